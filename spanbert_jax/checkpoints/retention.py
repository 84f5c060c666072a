"""Which steps are kept, and why."""
from __future__ import annotations

from collections.abc import Sequence


def retained_steps(steps: Sequence[int], keep: int, keep_every: int, best: int = 0) -> dict[int, str]:
    """The steps that are kept, each with its reasons in words.

    Args:
      steps: that there are.
      keep: how many of the newest are kept.
      keep_every: of every so many steps the first that was saved is kept for good; 0 keeps none.
      best: the one that scored best so far; 0 for none.
    """
    newest = set(sorted(steps)[-keep:] if keep else [])
    reasons, period = {}, 0
    for step in sorted(steps):
        why = [f"newest {keep:,}"] if step in newest else []
        if keep_every and step // keep_every > period:
            period = step // keep_every
            why.append(f"every {keep_every:,} steps")
        if step == best:
            why.append("best score")
        if why:
            reasons[step] = ", ".join(why)
    return reasons
