"""Retention policy: which steps are kept, and why."""
from collections.abc import Sequence


def retained_steps(steps: Sequence[int], keep: int, keep_every: int, best: int = 0) -> dict[int, str]:
    """Returns the steps to keep, each with its reasons: {20: "every 10 steps", 35: "newest 1"}.

    Args:
      steps: all stored steps.
      keep: number of newest steps to keep.
      keep_every: keeps the first step saved in every interval of this many steps; 0 keeps none.
      best: the step with the best score so far; 0 if there is none.
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
