"""The attention backends by name, and which one a model uses on given devices."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from spanbert_jax.common.registry import Registry
from spanbert_jax.model.attention.inputs import AttentionInputs, AttentionSpec


class AttentionBackend(NamedTuple):
    """One implementation of attention. All compute the same function, to rounding.

    Attributes:
      name: in `BACKENDS`.
      attend: computes the context [B, S, D].
      platform: the only platform it runs on, as JAX names it; "" for all.
      needs_shard_map: whether it runs on each device's rows and heads inside `shard_map`, since the compiler cannot
        partition it.
      dtypes: the activation dtypes it supports; () for all.
      limits: from (length of rows, heads on one device, spec) to the reason why it does not support them, or "".
      join: makes one array of queries, keys and values, or of their parameters, if `attend` takes one.
    """
    name: str
    attend: Callable[[AttentionInputs, AttentionSpec], jax.Array]
    platform: str = ""
    needs_shard_map: bool = False
    dtypes: tuple[str, ...] = ()
    limits: Callable[[int, int, AttentionSpec], str] = lambda length, heads, spec: ""
    join: Callable[[Sequence[jax.Array]], jax.Array] | None = None

    def arrange(self, parts: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """Arrays for queries, keys and values as `attend` takes them: all three, or one joined array."""
        return (self.join(parts),) if self.join else tuple(parts)

    def unsupported_reason(self, platform: str, length: int, heads: int, spec: AttentionSpec, dtype: str) -> str:
        """Why this backend cannot compute an attention; "" if it can.

        Args:
          platform: of the devices, as JAX names it.
          length: positions in a row, S.
          heads: heads on one device.
          spec: settings of the attention.
          dtype: of the activations.
        """
        if self.platform and platform != self.platform:
            return f"it is for {self.platform.upper()}s, and these devices are {platform.upper()}s"
        if self.dtypes and dtype not in self.dtypes:
            return f"it computes in {' or '.join(self.dtypes)}, and compute.dtype is {dtype!r}"
        return self.limits(length, heads, spec)


_HERE = "spanbert_jax.model.attention"
# Fastest first.
BACKENDS: Registry[AttentionBackend] = Registry("attention backend", "attention", {
    "paired_heads": f"{_HERE}.paired_heads:BACKEND", "splash": f"{_HERE}.splash:BACKEND",
    "cudnn": f"{_HERE}.cudnn:BACKEND", "plain": f"{_HERE}.plain:BACKEND"})


def get_backend(name: str) -> AttentionBackend:
    """The backend of a name. "auto" is plain attention here; training resolves it first, with `select_backend`."""
    return BACKENDS.get("plain" if name == "auto" else name)


def select_backend(platform: str, length: int, heads: int, spec: AttentionSpec, dtype: str) -> str:
    """The name of the fastest backend that supports an attention; arguments as for `unsupported_reason`."""
    return next(name for name in BACKENDS.names()
                if not BACKENDS.get(name).unsupported_reason(platform, length, heads, spec, dtype))
