"""What the user sees of a run: the table of parameters, lines of steps, where the time went."""
import time
from collections.abc import Mapping
from typing import Any, Self

import jax
import rich.console
import rich.progress
import rich.table

from spanbert_jax.common.console import make_table
from spanbert_jax.common.formatting import format_clock, format_duration, format_plural, format_quantity
from spanbert_jax.training.experiment import Experiment
from spanbert_jax.training.mesh import parameter_name

# Categories of `Goodput` as the user reads them.
_CATEGORIES = {"steps": "steps", "compile": "compiling", "data": "data", "checkpoint": "checkpoints",
               "evaluation": "evaluation", "profile": "profiling", "starting": "starting", "lost": "lost to restarts"}

_SECONDS = 30.0  # after which a line is shown at the end of a step


def parameter_table(params: Any) -> rich.table.Table:
    """Every parameter with its shape, size and sharding, from abstract parameters."""
    table = make_table("parameter", "shape", "size", "sharding", title="Parameters", right=("size",))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        axes = [str(axis) if axis else "-" for axis in leaf.sharding.spec]
        layout = "replicated" if leaf.sharding.is_fully_replicated else f"({', '.join(axes)})"
        table.add_row(parameter_name(path), " x ".join(map(str, leaf.shape)), f"{leaf.size:,}", layout)
    return table


def print_summary(console: rich.console.Console, experiment: Experiment, table: bool) -> None:
    """Prints mesh, data and length of a run, and with `table` every parameter."""
    workload = experiment.workload
    first, *others = workload.summary()
    if table:
        console.print(parameter_table(experiment.abstract_state.params))
    mesh = ", ".join(f"{axis} {size}" for axis, size in experiment.mesh.shape.items())
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    console.print(f"{experiment.parameters:,} parameters; mesh {mesh}{processes}; {first}, "
                  f"{format_plural(experiment.total_steps, 'step')}, {format_quantity(workload.flops, 'FLOP')} a step")
    for line in others:
        console.print(line)


class TrainingProgress:
    """Lines with loss, learning rate, speed and remaining time; on a terminal also a progress bar below them."""

    def __init__(self, console: rich.console.Console, total: int, first_step: int):
        """Args: console: to print to; total: steps of the run; first_step: steps done before."""
        self._console, self._total, self._shown = console, total, time.monotonic()
        text = rich.progress.TextColumn
        self._bar = rich.progress.Progress(
            text("step {task.completed:,}/{task.total:,}"), rich.progress.BarColumn(),
            text("{task.fields[metrics]}"), console=console, disable=console.quiet or not console.is_terminal)
        self._task = self._bar.add_task("train", total=total, completed=first_step, metrics="compiling")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.stop()

    def show(self, step: int, metrics: Mapping[str, float], log: bool) -> None:
        """Shows the metrics of a step: as a line if `log`, or if the last line is `_SECONDS` ago."""
        left = (self._total - step) * metrics["seconds_per_step"]
        text = (f"loss {metrics['loss']:.3f}  lr {metrics['learning_rate']:.2e}  "
                f"{format_quantity(metrics['tokens_per_second'], 'tokens/s')}  "
                f"{format_quantity(metrics['model_flops_per_second'], 'FLOP/s')}  {format_clock(left)} left")
        self._bar.update(self._task, completed=step, metrics=text)
        if log or time.monotonic() - self._shown >= _SECONDS:
            self._shown = time.monotonic()
            self._console.print(f"step {step:,}/{self._total:,}  {text}")

    def log(self, line: str) -> None:
        """Prints a line above the bar."""
        self._console.print(line)


def format_goodput(metrics: Mapping[str, float]) -> str:
    """Where the time of a run went, as one line, from `Goodput.metrics`."""
    spent = ", ".join(f"{name} {format_duration(metrics[f'{category}_seconds'])}"
                      for category, name in _CATEGORIES.items() if category != "profile" or metrics["profile_seconds"])
    return (f"Goodput {metrics['goodput']:.1%}: of {format_duration(metrics['total_seconds'])} since the first start, "
            f"{spent} ({format_plural(int(metrics['restarts']), 'restart')})")
