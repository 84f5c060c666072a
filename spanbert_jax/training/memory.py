"""Whether a train step fits in the memory of its device: checked before the first step, and reported if it does not."""
import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_bytes
from spanbert_jax.training.config import RunConfig
from spanbert_jax.training.host_memory import free_host_memory


def check_memory(program: Any, config: RunConfig, ways: int) -> None:
    """Checks that a compiled train step fits in the free memory of its device; its arguments are there already.

    Args:
      program: of `jax.stages.Compiled`.
      ways: over which the rows of a batch are divided.

    Raises:
      UserError: it does not fit. The message has the number of microbatches with which it should.
    """
    analysis, free = program.memory_analysis(), free_memory()
    if analysis is None or free is None:
        return
    needed = analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    if needed <= free:
        return
    train, fixed = config.train, analysis.argument_size_in_bytes  # gradients do not shrink with the microbatch
    fitting = [parts for parts in range(train.accumulation, train.batch_size + 1, train.accumulation)
               if train.batch_size % (parts * ways) == 0
               and fixed + (needed - fixed) * train.accumulation / parts <= free]
    advice = (f"set train.accumulation={fitting[0]}, which computes the same step in parts, or a smaller "
              "train.batch_size or model.size" if fitting else
              "no train.accumulation helps; set a smaller model.size, or compute.remat='full'")
    raise UserError(f"config.train.batch_size={train.batch_size}: a step needs {format_bytes(needed)} of memory, and "
                    f"{format_bytes(free)} are free; {advice}")


@contextlib.contextmanager
def explained(value: str, advice: str) -> Iterator[None]:
    """Reports a device that runs out of memory as a UserError about a value, such as "batch_size=32", with advice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{value}: the device ran out of memory ({reason}); {advice}") from error


def explained_in_training(config: RunConfig) -> contextlib.AbstractContextManager[None]:
    """`explained` for a run; it names the fields to change."""
    return explained(
        f"config.train.batch_size={config.train.batch_size}", f"set a larger train.accumulation than "
        f"{config.train.accumulation}, which computes the same step in parts, or a smaller train.batch_size; in an "
        "evaluation, a smaller evaluation.batch_size")


def explained_in_prediction(batch_size: int) -> contextlib.AbstractContextManager[None]:
    """`explained` for a model that predicts batches of so many rows."""
    return explained(f"batch_size={batch_size}", "give a smaller batch size, or free the memory of the device")


def free_memory() -> float | None:
    """Bytes that a program can still allocate on a device of this process; None if they are not known."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":  # all devices are in the host's memory
        return free_host_memory() / jax.local_device_count()
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if {"bytes_limit", "bytes_in_use"} <= stats.keys() else None
