"""Retention policy: which steps are kept, and why."""
from collections.abc import Sequence

from spanbert_jax.common.formatting import format_plural


def retained_steps(steps: Sequence[int], keep: int, keep_every: int, best: int = 0) -> dict[int, str]:
    """Returns the steps to keep, each with its reasons: {20: "every 10 steps", 35: "newest 1"}.

    These are the `keep` newest of the stored steps, the first step saved in every interval of `keep_every` steps (0
    keeps none), and `best`, the step with the best score so far (0 if there is none).
    """
    newest = set(sorted(steps)[-keep:] if keep else [])
    reasons, period = {}, 0
    for step in sorted(steps):
        why = [f"newest {keep:,}"] if step in newest else []
        if keep_every and step // keep_every > period:
            period = step // keep_every
            why.append(f"every {format_plural(keep_every, 'step')}")
        if step == best:
            why.append("best score")
        if why:
            reasons[step] = ", ".join(why)
    return reasons
