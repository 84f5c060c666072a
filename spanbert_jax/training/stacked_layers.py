"""Parameters of all layers, stacked on a leading axis: their names, and optimizers that treat each layer by itself."""
from typing import Any

import jax
import optax

from spanbert_jax.training.mesh import map_optimizer_state, parameter_name

_STACKS = (("encoder", "layers"), ("decoder", "layers"))


def is_stacked(path: Any) -> bool:
    """Whether a parameter holds all layers, stacked on its first axis."""
    return _first_keys(path) in _STACKS


def _first_keys(path: Any) -> tuple[Any, ...]:
    return tuple(getattr(key, "key", None) for key in path[:2])


def layer_names(path: Any, count: int) -> list[str]:
    """Names of a parameter: one for each layer if stacked, such as encoder/layers/0/attention_norm/scale."""
    name = parameter_name(path)
    if not is_stacked(path):
        return [name]
    prefix = parameter_name(path[:2])
    return [f"{prefix}/{layer}{name.removeprefix(prefix)}" for layer in range(count)]


def per_layer(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimizer that updates each layer of a stacked parameter as if it were a parameter of its own.

    This matters to optimizers with one statistic for each parameter, such as the trust ratio of LAMB. What the state
    holds for a stacked parameter is stacked as well, so an element-wise optimizer has the same state as without it.

    Args: optimizer: its update of a parameter must not depend on other parameters, nor on random numbers.
    """
    for stack in _STACKS:  # one after the other: encoder and decoder may have different numbers of layers
        optimizer = _mapped(optimizer, stack)
    return optimizer


def _mapped(optimizer: optax.GradientTransformation, stack: tuple[str, str]) -> optax.GradientTransformation:
    """Maps an optimizer over the first axis of the parameters in a stack."""
    def members(params: optax.Params) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: _first_keys(path) == stack, params)

    def axes(params: optax.Params) -> tuple[Any, Any]:
        """The axes to map, of the parameters and of the state: 0 in the stack, else None."""
        member = members(params)
        in_state = map_optimizer_state(lambda _, param, member: member, optimizer, params, member, False)
        return jax.tree.map(lambda member: 0 if member else None, (member, in_state))

    def init(params: optax.Params) -> optax.OptState:
        if not any(jax.tree.leaves(members(params))):
            return optimizer.init(params)
        of_params, of_state = axes(params)
        return jax.vmap(optimizer.init, (of_params,), of_state)(params)

    def update(updates: optax.Updates, state: optax.OptState,
               params: optax.Params) -> tuple[optax.Updates, optax.OptState]:
        if not any(jax.tree.leaves(members(params))):
            return optimizer.update(updates, state, params)
        of_params, of_state = axes(params)
        return jax.vmap(optimizer.update, (of_params, of_state, of_params), (of_params, of_state))(
            updates, state, params)

    return optax.GradientTransformation(init, update)
