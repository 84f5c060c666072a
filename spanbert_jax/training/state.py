"""What a run is at a step: the whole of what a checkpoint holds."""
from __future__ import annotations

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.model import EncoderDecoder, EncoderModel, SpanBert, without_shared
from spanbert_jax.training.mesh import Rules, optimizer_shardings, parameter_shardings, spread_over_data
from spanbert_jax.training.skipping import Recent, no_updates

Network = SpanBert | EncoderModel | EncoderDecoder


@flax.struct.dataclass
class TrainState:
    """Batches seen, parameters, optimiser state and what the last updates were like.

    No random key and no data position: both are functions of the seed and the step.
    """
    step: jax.Array
    params: Any
    opt_state: Any
    recent: Recent


def init_params(model: Network, key: jax.Array) -> Any:
    """Fresh parameters, each boxed with the logical names of its axes."""
    params = model.init(key, **model.smallest_inputs)["params"]
    return without_shared(params) if isinstance(model, EncoderDecoder) and model.shared else params


def state_of(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update of given parameters."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), no_updates())


def init_state(model: Network, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """The state before the first update of fresh parameters."""
    return state_of(nn.unbox(init_params(model, key)), optimizer)


def abstract_state(model: Network, optimizer: optax.GradientTransformation, mesh: Mesh, rules: Rules,
                   zero1: bool = False) -> TrainState:
    """Shapes, dtypes and shardings of a state, without an array; what is compiled for and restored into.

    Args:
      zero1: split the optimiser state over the data axis too.
    """
    boxed = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    params = nn.unbox(boxed)
    shardings = parameter_shardings(boxed, mesh, rules)
    whole = NamedSharding(mesh, PartitionSpec())
    kept = spread_over_data(params, shardings) if zero1 else shardings
    layout = TrainState(whole, shardings, optimizer_shardings(optimizer, params, kept, mesh),
                        jax.tree.map(lambda _: whole, jax.eval_shape(no_updates)))
    shapes = jax.eval_shape(lambda: init_state(model, optimizer, jax.random.key(0)))
    return jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                        shapes, layout)


def shardings_of(abstract: Any) -> Any:
    """The shardings in an abstract tree."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def create_state(model: Network, optimizer: optax.GradientTransformation, abstract: TrainState,
                 seed: int) -> TrainState:
    """A fresh state, made where it is to live: no device ever holds more than its part."""
    make = jax.jit(lambda key: init_state(model, optimizer, key), out_shardings=shardings_of(abstract))
    return make(jax.random.key(seed))


def state_from(params: Any, optimizer: optax.GradientTransformation, abstract: TrainState) -> TrainState:
    """The state before the first update of parameters that every process has whole, laid out where it is to live."""
    placed = jax.tree.map(lambda leaf, array: jax.make_array_from_callback(
        leaf.shape, leaf.sharding, lambda index: array[index]), abstract.params, params)
    make = jax.jit(lambda params: state_of(params, optimizer), out_shardings=shardings_of(abstract), donate_argnums=0)
    return make(placed)
