"""Learning-rate schedules. A new schedule is one entry of `SCHEDULES`."""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.settings import Settings, setting
from spanbert_jax.training.durations import parse_duration

# (step counted from 1, total steps, warm-up steps, decay steps, final fraction) -> share of the peak after warm-up.
Shape = Callable[[jax.Array, int, int, int, float], jax.Array]

SCHEDULES: dict[str, Shape] = {
    # Falls along a line from the peak at step 0, as in the reference: just after warm-up it is below the peak.
    "linear": lambda step, total, warmup, decay, final: final + (1 - final) * (total - step) / total,
    # Falls along a line from the peak at the end of warm-up; usual in fine-tuning.
    "triangular": lambda step, total, warmup, decay, final:
        final + (1 - final) * (total - step) / max(total - warmup, 1),
    "cosine": lambda step, total, warmup, decay, final:
        final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * step / total)),
    "constant": lambda step, total, warmup, decay, final: jnp.ones_like(step),
    # Warm-up, stable, decay: falls as 1 - sqrt in the last phase (Hagele et al., 2024).
    "wsd": lambda step, total, warmup, decay, final:
        1 - (1 - final) * jnp.sqrt(jnp.maximum(step - (total - decay), 0) / max(decay, 1)),
}


@dataclasses.dataclass(frozen=True)
class ScheduleSettings(Settings):
    """Learning rate over the run."""
    name: str = setting("linear", "Shape of the schedule. 'wsd' is warmup, stable, decay.", choices=tuple(SCHEDULES))
    warmup: str = setting("10k steps", "Length of the linear warmup from 0, such as '500 steps' or '10 percent'.",
                          check=parse_duration)
    decay: str = setting("20 percent", "Length of the decay at the end of a 'wsd' run.", check=parse_duration)
    final_fraction: float = setting(0.0, "Final learning rate, as a fraction of optimizer.learning_rate; 'constant' "
                                    "ignores it.", minimum=0, maximum=1)


def learning_rate_schedule(name: str, peak: float, total: int, warmup: int, decay: int, final: float) -> optax.Schedule:
    """The learning rate as a function of the number of updates done.

    The first update (count 0) uses peak / warmup. In the reference the first update of each epoch uses the peak, which
    is corrected here.

    Args:
      peak: learning rate at the end of the warm-up.
      total: updates of the run; the rate stays constant afterwards.
      warmup: updates of linear warm-up from 0.
      decay: updates of the last phase of "wsd".
      final: fraction of the peak at the end.

    Raises:
      UserError: warm-up and decay do not fit into the run.
    """
    if warmup + (decay if name == "wsd" else 0) > total:
        fields = "config.schedule.warmup" + (" and config.schedule.decay" if name == "wsd" else "")
        raise UserError(f"{fields}: {format_plural(warmup, 'step')} of warm-up"
                        + (f" and {decay:,} of decay" if name == "wsd" else "")
                        + f" do not fit into a run of {total:,}; shorten them or lengthen config.train.duration")
    shape = SCHEDULES[name]

    def schedule(count: jax.Array) -> jax.Array:
        step = jnp.asarray(count, jnp.float32) + 1
        later = shape(jnp.minimum(step, total), total, warmup, decay, final)
        return peak * jnp.where(step <= warmup, step / max(warmup, 1), later)

    return schedule
