"""What a person sees of a run: the table of parameters, the progress bar, the closing words."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import rich.console
import rich.progress
import rich.table

from spanbert_jax.common.console import make_table
from spanbert_jax.common.formatting import format_clock, format_duration, format_plural, format_quantity
from spanbert_jax.training.experiment import Experiment
from spanbert_jax.training.mesh import parameter_name


def parameter_table(params: Any) -> rich.table.Table:
    """Every parameter with its shape, size and sharding, from abstract parameters."""
    table = make_table("parameter", "shape", "size", "sharding", title="Parameters", right=("size",))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        axes = [str(axis) if axis else "-" for axis in leaf.sharding.spec]
        layout = "replicated" if leaf.sharding.is_fully_replicated else f"({', '.join(axes)})"
        table.add_row(parameter_name(path), " x ".join(map(str, leaf.shape)), f"{leaf.size:,}", layout)
    return table


def introduce(console: rich.console.Console, experiment: Experiment) -> None:
    """Says what is about to run."""
    learning, params = experiment.workload, experiment.abstract_state.params
    first, *others = learning.introduction()
    console.print(parameter_table(params))
    mesh = ", ".join(f"{axis} {size}" for axis, size in experiment.mesh.shape.items())
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    console.print(
        f"{experiment.parameters:,} parameters; mesh {mesh}{processes}; "
        f"{first}, {experiment.size.total_steps:,} steps, {format_quantity(learning.flops, 'FLOP')} a step")
    for words in others:
        console.print(words)


class TrainingProgress:
    """A bar with loss, learning rate, speed and the time left; where there is no terminal, a line now and then.

    A context manager.
    """

    def __init__(self, console: rich.console.Console, total: int, first_step: int):
        """Shows a run of `total` steps that begins at `first_step`."""
        self._console, self._total = console, total
        text = rich.progress.TextColumn
        self._bar = rich.progress.Progress(
            text("step {task.completed:,}/{task.total:,}"), rich.progress.BarColumn(),
            text("{task.fields[figures]}"), console=console, disable=console.quiet or not console.is_terminal)
        self._task = self._bar.add_task("train", total=total, completed=first_step, figures="compiling")

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.stop()

    def show(self, step: int, figures: Mapping[str, float], log: bool) -> None:
        """Shows the figures of a step; without a terminal only if they are to be logged."""
        left = (self._total - step) * figures["seconds_per_step"]
        words = (f"loss {figures['loss']:.3f}  lr {figures['learning_rate']:.2e}  "
                 f"{format_quantity(figures['tokens_per_second'], 'tokens/s')}  "
                 f"{format_quantity(figures['model_flops_per_second'], 'FLOP/s')}  {format_clock(left)} left")
        self._bar.update(self._task, completed=step, figures=words)
        if log and not self._console.is_terminal:
            self._console.print(f"step {step:,}/{self._total:,}  {words}")

    def say(self, words: str) -> None:
        """Prints a line above the bar."""
        self._console.print(words)


def evaluation_words(figures: Mapping[str, Any]) -> str:
    """An evaluation in a line."""
    words = (f"masked-token loss {figures['masked_loss']:.3f} nats (unigram {figures['unigram_loss']:.3f}), "
             f"perplexity {figures['perplexity']:,.1f}, accuracy {figures['masked_accuracy']:.1%}")
    if "boundary_loss" in figures:
        words += f"; boundary loss {figures['boundary_loss']:.3f}, accuracy {figures['boundary_accuracy']:.1%}"
    if "next_sentence_loss" in figures:
        words += f"; next-sentence accuracy {figures['next_sentence_accuracy']:.1%}"
    return words


def goodput_words(figures: Mapping[str, float]) -> str:
    """Where the time of a run went, in a line."""
    names = {"steps": "steps", "compile": "compiling", "data": "data", "checkpoint": "checkpoints",
             "evaluation": "evaluation", "profile": "profiling", "starting": "starting", "lost": "lost to restarts"}
    if not figures["profile_seconds"]:
        del names["profile"]
    spent = ", ".join(f"{name} {format_duration(figures[f'{category}_seconds'])}" for category, name in names.items())
    return (f"Goodput {figures['goodput']:.1%}: of {format_duration(figures['total_seconds'])} since the first start, "
            f"{spent} ({format_plural(figures['restarts'], 'restart')})")


def accuracy_table(figures: Mapping[str, Any]) -> rich.table.Table:
    """Masked-token accuracy by the length of the span and by the place in it."""
    table = make_table("tokens", "in spans of this length", "at this place in a span", title="Masked-token accuracy")
    rows = list(zip(figures["accuracy_by_length"], figures["accuracy_by_place"]))
    for number, pair in enumerate(rows, 1):
        label = f"{number} and more" if number == len(rows) else str(number)
        table.add_row(label, *("-" if value is None else f"{value:.1%}" for value in pair))
    return table
