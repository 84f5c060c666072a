"""The train state: everything that changes from step to step, and how checkpoints name it."""
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.model import EncoderDecoder, EncoderModel, SpanBert, split_tied_params
from spanbert_jax.training.mesh import Rules, optimizer_shardings, parameter_shardings, spread_over_data
from spanbert_jax.training.skipping import UpdateHistory, empty_history

Network = SpanBert | EncoderModel | EncoderDecoder


@flax.struct.dataclass
class TrainState:
    """State of a run after some steps, without random key and data position: seed and step determine both."""
    step: jax.Array  # [] int32, batches seen
    params: Any
    opt_state: Any
    history: UpdateHistory  # recent losses and gradient norms, by which bad updates are skipped


# Names of leaves in checkpoints, where they differ from the attributes: the names that the first checkpoints had.
_STORED_HISTORY = "recent"
_STORED_NAMES = {"applied": "made", "skipped": "left_out", "consecutive_skips": "in_a_row"}


def to_stored(state: TrainState) -> dict[str, Any]:
    """A state, or its abstract form, as the tree of named arrays that checkpoints hold."""
    history = {_STORED_NAMES.get(name, name): value for name, value in vars(state.history).items()}
    return {"step": state.step, "params": state.params, "opt_state": state.opt_state, _STORED_HISTORY: history}


def from_stored(stored: dict[str, Any]) -> TrainState:
    """The inverse of `to_stored`."""
    names = {stored_name: name for name, stored_name in _STORED_NAMES.items()}
    history = UpdateHistory(**{names.get(name, name): value for name, value in stored[_STORED_HISTORY].items()})
    return TrainState(stored["step"], stored["params"], stored["opt_state"], history)


def init_params(model: Network, key: jax.Array) -> Any:
    """Random parameters, each boxed with the logical names of its axes."""
    params = model.init(key, **model.dummy_inputs)["params"]
    return split_tied_params(params) if isinstance(model, EncoderDecoder) and model.shared else params


def _initial_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), empty_history())


def abstract_train_state(model: Network, optimizer: optax.GradientTransformation, mesh: Mesh, rules: Rules,
                         zero1: bool = False) -> TrainState:
    """Shapes, dtypes and shardings of a state, to compile for and to restore into; `zero1` as in `MeshSettings`."""
    boxed = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    params = nn.unbox(boxed)
    shardings = parameter_shardings(boxed, mesh, rules)
    replicated = NamedSharding(mesh, PartitionSpec())
    moments = spread_over_data(params, shardings) if zero1 else shardings
    layout = TrainState(replicated, shardings,  # type: ignore[arg-type]  # shardings in place of arrays
                        optimizer_shardings(optimizer, params, moments, mesh),
                        jax.tree.map(lambda _: replicated, jax.eval_shape(empty_history)))
    shapes = jax.eval_shape(lambda params: _initial_state(params, optimizer), params)
    return jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                        shapes, layout)


def shardings_of(abstract: Any) -> Any:
    """The shardings in an abstract tree."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def create_state(model: Network, optimizer: optax.GradientTransformation, abstract: TrainState,
                 seed: int) -> TrainState:
    """The state before step 0 with random parameters, created in its layout: no device holds more than its part."""
    create = jax.jit(lambda key: _initial_state(nn.unbox(init_params(model, key)), optimizer),
                     out_shardings=shardings_of(abstract))
    return create(jax.random.key(seed))


def state_from_params(params: Any, optimizer: optax.GradientTransformation, abstract: TrainState) -> TrainState:
    """The state before step 0 with given parameters: arrays on the host, of which every process holds all."""
    placed = jax.tree.map(lambda leaf, array: jax.make_array_from_callback(
        leaf.shape, leaf.sharding, lambda index: array[index]), abstract.params, params)
    create = jax.jit(lambda params: _initial_state(params, optimizer), out_shardings=shardings_of(abstract),
                     donate_argnums=0)
    return create(placed)
