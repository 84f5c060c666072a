"""Which steps are kept, and why."""
from __future__ import annotations

from collections.abc import Sequence


def kept(steps: Sequence[int], keep: int, keep_every: int) -> dict[int, str]:
    """The steps that are kept, each with its reasons in words.

    Args:
      steps: that there are.
      keep: how many of the newest are kept.
      keep_every: steps divisible by this are kept for good; 0 keeps none.
    """
    newest = set(sorted(steps)[-keep:] if keep else [])
    reasons = {}
    for step in sorted(steps):
        why = [f"newest {keep:,}"] if step in newest else []
        if keep_every and step % keep_every == 0:
            why.append(f"every {keep_every:,} steps")
        if why:
            reasons[step] = ", ".join(why)
    return reasons
