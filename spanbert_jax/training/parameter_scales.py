"""Frozen parameters and layer-wise learning-rate decay."""
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spanbert_jax.common.errors import UserError
from spanbert_jax.training.stacked_layers import is_stacked, layer_names


def parameter_scales(freeze: str, layer_decay: float) -> tuple[list[optax.GradientTransformation], ...]:
    """Transformations to chain before and after an optimiser; empty lists if nothing is frozen or decayed.

    Args:
      freeze: regular expressions, separated by commas, that match the start of names of `layer_names`. Frozen
        parameters have neither gradients nor updates.
      layer_decay: factor on the learning rate from each encoder layer to the one below. Updates of layer l of L,
        counted from 1, are multiplied by layer_decay ** (L + 1 - l), those of the embeddings by
        layer_decay ** (L + 1); heads and decoders are not scaled. Commonly used for ELECTRA and DeBERTa.
    """
    patterns = [pattern.strip() for pattern in freeze.split(",") if pattern.strip()]
    before = [_scaled(lambda params: _trained(params, patterns))] if patterns else []
    after = [_scaled(lambda params: _decayed(params, layer_decay))] if layer_decay != 1 else []
    return before, [*after, *before]


def _scaled(scales: Any) -> optax.GradientTransformation:
    """Multiplies updates by `scales(params)`."""
    def init(params: optax.Params) -> optax.EmptyState:
        if isinstance(params, Mapping):  # optax.tree.map_params passes placeholders
            scales(params)  # may raise UserError
        return optax.EmptyState()

    def update(updates: optax.Updates, state: optax.EmptyState, params: optax.Params) -> tuple[Any, optax.EmptyState]:
        return jax.tree.map(lambda update, scale: update * scale, updates, scales(params)), state

    return optax.GradientTransformation(init, update)


def _per_layer(values: list[float], leaf: jax.Array, path: Any) -> jax.Array | float:
    """One value, or one for each layer [L, 1, ...] of a stacked parameter."""
    if not is_stacked(path):
        return values[0]
    return jnp.asarray(np.reshape(values, (-1, *[1] * (leaf.ndim - 1))), jnp.float32)


def _trained(params: optax.Params, patterns: list[str]) -> Any:
    """1 for trained and 0 for frozen parameters. Raises UserError if a pattern matches none, or if all are frozen."""
    matched, trained = set(), False

    def scale(path: Any, leaf: jax.Array) -> jax.Array | float:
        nonlocal trained
        values = []
        for name in layer_names(path, leaf.shape[0] if leaf.ndim else 1):
            found = [pattern for pattern in patterns if _matches(pattern, name)]
            matched.update(found)
            values.append(float(not found))
        trained |= any(values)
        return _per_layer(values, leaf, path)

    scales = jax.tree_util.tree_map_with_path(scale, params)
    for pattern in patterns:
        if pattern not in matched:
            raise UserError(f"config.optimizer.freeze: {pattern!r} matches no parameter; parameters have names such as "
                            "encoder/embeddings/token/embedding and encoder/layers/0/attention/query/kernel")
    if not trained:
        raise UserError(f"config.optimizer.freeze={','.join(patterns)!r}: nothing is left to train; freeze less")
    return scales


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.match(pattern, name) is not None
    except re.error as error:
        raise UserError(f"config.optimizer.freeze: {pattern!r} is not a regular expression ({error})") from None


def _decayed(params: optax.Params, decay: float) -> Any:
    layers = params["encoder"]["layers"]
    count = jax.tree.leaves(layers)[0].shape[0]

    def scale(path: Any, leaf: jax.Array) -> jax.Array | float:
        if path[0].key != "encoder":
            return 1.0
        depths = range(count, 0, -1) if is_stacked(path) else [count + 1]
        return _per_layer([decay ** depth for depth in depths], leaf, path)

    return jax.tree_util.tree_map_with_path(scale, params)
