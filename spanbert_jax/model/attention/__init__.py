"""Attention: the inputs of every backend, the backends by name, one file each, and the choice between them.

Each backend names its output "context" (`checkpoint_name`), so that recomputation may keep it.
"""
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spanbert_jax.common.registry import Registry


class AttentionInputs(NamedTuple):
    """Arrays of one attention: B rows, S positions, N heads of width H, D = N H."""
    # Queries, keys and values [B, S, D], heads side by side; or one array [B, S, 3 D] made by the backend's `join`, if
    # it has one.
    projections: tuple[jax.Array, ...]
    segments: jax.Array  # [B, S] integers, 0 for padding
    seeds: jax.Array | None  # dropout seeds, uint32 [B, N, 2]; None without dropout
    # Cosine and sine of rotary positions, float32 [B, S, H / 2] each; None if positions are not rotary.
    rotary: tuple[jax.Array, jax.Array] | None = None

    def split_heads(self, head_width: int) -> list[jax.Array]:
        """Queries, keys and values [B, S, N, H], from three arrays [B, S, D]; queries and keys rotated."""
        query, key, value = (flat.reshape(*flat.shape[:2], -1, head_width) for flat in self.projections)
        return [self.rotate(query), self.rotate(key), value]

    def rotate(self, heads: jax.Array) -> jax.Array:
        """Rotates queries or keys [B, S, ..., H] by their positions, if these are rotary.

        Element i of a head makes a pair with element i + H / 2 (Su et al., 2021, in the order of transformers).
        """
        if self.rotary is None:
            return heads
        cos, sin = (part.reshape(*part.shape[:2], *[1] * (heads.ndim - 3), -1) for part in self.rotary)
        first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(heads.dtype)


class AttentionSpec(NamedTuple):
    """Settings of an attention that are the same in every call."""
    head_width: int  # H
    dropout: float = 0.0  # rate on the attention probabilities
    clamp: bool = False  # clip scores to +-10,000 before masking
    # A token attends to tokens at most `window // 2` positions away in the row; 0 for no limit.
    window: int = 0


class AttentionBackend(NamedTuple):
    """One implementation of attention. All compute the same function, to rounding."""
    name: str  # in `BACKENDS`
    attend: Callable[[AttentionInputs, AttentionSpec], jax.Array]  # computes the context [B, S, D]
    platform: str = ""  # the only platform it runs on, as JAX names it; "" for all
    # Whether it runs on each device's rows and heads inside `shard_map`, since the compiler cannot partition it.
    needs_shard_map: bool = False
    dtypes: tuple[str, ...] = ()  # the activation dtypes it supports; () for all
    # From (length of rows, heads on one device, spec) to the reason why it does not support them, or "".
    limits: Callable[[int, int, AttentionSpec], str] = lambda length, heads, spec: ""
    # Whether "auto" takes it on a platform for rows of a length; others may be faster there.
    preferred: Callable[[str, int], bool] = lambda platform, length: True
    # Makes one array of queries, keys and values, or of their parameters, if `attend` takes one.
    join: Callable[[Sequence[jax.Array]], jax.Array] | None = None

    def arrange(self, parts: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """Arrays for queries, keys and values as `attend` takes them: all three, or one joined array."""
        return (self.join(parts),) if self.join else tuple(parts)

    def unsupported_reason(self, platform: str, length: int, heads: int, specs: Sequence[AttentionSpec],
                           dtype: str) -> str:
        """Why this backend cannot compute rows of S = `length` with so many heads on one device; "" if it can.

        `specs`: of all layers.
        """
        if self.platform and platform != self.platform:
            return f"it is for {self.platform.upper()}s, and these devices are {platform.upper()}s"
        if self.dtypes and dtype not in self.dtypes:
            return f"it computes in {' or '.join(self.dtypes)}, and compute.dtype is {dtype!r}"
        return next(filter(None, (self.limits(length, heads, spec) for spec in specs)), "")


_HERE = "spanbert_jax.model.attention"
BACKENDS: Registry[AttentionBackend] = Registry("attention backend", "attention", {  # fastest first
    "paired_heads": f"{_HERE}.paired_heads:BACKEND", "splash": f"{_HERE}.splash:BACKEND",
    "cudnn": f"{_HERE}.cudnn:BACKEND", "blockwise": f"{_HERE}.blockwise:BACKEND", "plain": f"{_HERE}.plain:BACKEND"})


def get_backend(name: str, length: Any = 0) -> AttentionBackend:
    """The backend of a name.

    Training resolves "auto" first, with `select_backend`. Here it is a backend that runs on every platform: the one for
    rows of S = `length`, or plain attention where the length is not known when a program is traced.
    """
    if name == "auto":
        long = isinstance(length, int) and BACKENDS.get("blockwise").preferred(jax.default_backend(), length)
        name = "blockwise" if long else "plain"
    return BACKENDS.get(name)


def select_backend(platform: str, length: int, heads: int, specs: Sequence[AttentionSpec], dtype: str) -> str:
    """The name of the fastest backend that supports all layers; arguments as for `unsupported_reason`."""
    return next(name for name in BACKENDS.names() if BACKENDS.get(name).preferred(platform, length)
                and not BACKENDS.get(name).unsupported_reason(platform, length, heads, specs, dtype))
