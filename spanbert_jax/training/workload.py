"""What the training engine knows of pretraining and of tasks."""
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from spanbert_jax.corpus import Rows
from spanbert_jax.model.losses import LossSums

Call = Callable[..., Any]  # calls a jitted function with arguments; `TrainingLoop.call`, or a plain call
ShouldStop = Callable[[], bool | None]  # asked after each batch of an evaluation; true ends it
Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """The function that a run minimises: pure functions of arrays, traced inside the train step."""
    # (key, batch) -> model inputs and targets, a tree of arrays [B, ...], such as masked rows.
    prepare_inputs: Callable[[jax.Array, Batch], Any]
    counts: Callable[[Any], dict[str, jax.Array]]  # (inputs of the whole batch) -> number of targets by loss
    # (params, inputs of R rows, dropout key) -> sums over the targets of each row [R], or of all rows, by loss.
    loss_sums: Callable[[Any, Any, jax.Array], dict[str, LossSums]]
    # (loss sums of some rows, counts of the whole batch) -> the scalar to minimise. The values of the parts of a batch
    # add up to the value of the whole batch. From sums and counts of each row [R], the losses of these rows alone [R].
    loss: Callable[[Mapping[str, LossSums], Mapping[str, jax.Array]], jax.Array]


class Workload(Protocol):
    """Rows to train on, an objective over them, and an evaluation."""
    objective: Objective  # what the train step minimises
    rows_per_step: int  # B, over all devices
    padding_rows: int  # padding rows that each batch has besides, so that it divides over the devices
    length: int  # S, positions in a row
    flops: float  # model floating-point operations of a step
    metric: str  # name of the evaluation metric by which the best state is chosen, higher is better; "" for none
    can_evaluate: bool  # whether there are held-out rows

    @property
    def identity(self) -> dict[str, Any]:
        """Fingerprint of data and tokenizer, stored in checkpoints; the tokenizer's is under "tokenizer"."""

    def open_rows(self) -> Rows:
        """The rows to train on."""

    def describe_row(self, number: int) -> str:
        """What a row to train on holds, for messages; "" if its number is enough to find it."""

    def initial_params(self) -> Any | None:
        """Parameters to start from, on the host; None for random ones."""

    def evaluate(self, params: Any, call: Call, should_stop: ShouldStop) -> dict[str, Any] | None:
        """Metrics of parameters on held-out rows; None if `should_stop` ended the evaluation."""

    def format_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Evaluation metrics as one line of text."""

    def summary(self) -> list[str]:
        """Lines that describe the data; the first is shown beside the number of parameters and the mesh."""

    def write_artifacts(self, workdir: pathlib.Path) -> None:
        """Writes the files that export and predict need besides config and checkpoints, such as the tokenizer."""
