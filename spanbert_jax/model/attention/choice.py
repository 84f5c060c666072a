"""Which way of computing attention a network takes."""
from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

import jax

from spanbert_jax.model.attention.call import AttentionKind

# name: (the only platform it is for; whether it must be told of each device's part of its arrays). Where the choice is
# free the first is taken that can compute what is asked for without changing it. A kind is one file here.
KINDS: dict[str, tuple[str, bool]] = {
    "paired_heads": ("tpu", True),
    "splash": ("tpu", True),
    "cudnn": ("gpu", False),
    "plain": ("", False),
}


def implementation(name: str) -> ModuleType:
    """The file of a kind, imported when it is used: most need one alone, and kernels take their time to import.

    It has `attend`; `unsupported_reason`, all but the plain one; and `join`, if it takes what belongs to queries, keys and
    values in one array.
    """
    return importlib.import_module(f"spanbert_jax.model.attention.{name}")


def lay_out(way: ModuleType, parts: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """What belongs to queries, keys and values, as an implementation takes it: three arrays, or one of all of them."""
    return (way.join(parts),) if hasattr(way, "join") else tuple(parts)


def unsupported_reason(name: str, platform: str, length: int, heads: int, kind: AttentionKind, dtype: str) -> str:
    """Why a kind cannot compute what is asked for; empty if it can.

    Args:
      platform: of the devices, as JAX names it.
      length: positions in a row.
      heads: on one device.
      dtype: of the computation.
    """
    wanted = KINDS[name][0]
    if not wanted:
        return ""
    if platform != wanted:
        return f"it is for {wanted.upper()}s, and these devices are {platform.upper()}s"
    if dtype != "bfloat16":
        return f"it computes in bfloat16, and model.dtype is {dtype!r}"
    return implementation(name).unsupported_reason(length, heads, kind)


def choose(platform: str, length: int, heads: int, kind: AttentionKind, dtype: str) -> str:
    """The first kind that can compute what is asked for; arguments as those of `unsupported_reason`."""
    return next(name for name in KINDS if not unsupported_reason(name, platform, length, heads, kind, dtype))
