"""The tasks of GLUE: columns of the official TSV files, metrics, and submission files."""
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading
from spanbert_jax.tasks.protocol import Example, Prediction

_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("contradiction", "entailment", "neutral")


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """One task."""
    # Name of the submission file without ".tsv", by a part of the input file's name; the first match is used, and ""
    # matches all.
    submissions: Mapping[str, str]
    text: str  # name of the column
    second: str  # name of the second text's column; "" for single texts
    label: str  # name of the column
    labels: tuple[str, ...]  # the classes in the reference's order; empty for regression
    metric: str  # compares two models
    id: str = "index"  # column of the example's number; files without it use line numbers
    headerless: tuple[str, ...] = ()  # columns of files without a header line
    test_header: tuple[str, ...] = ()  # header line of those files that have one, if others do not
    broken: bool = False  # whether the official files have lines with a wrong number of fields, which are skipped
    undecided: str | None = None  # the label of examples on which the annotators disagree

    @property
    def regression(self) -> bool:
        """Whether numbers are predicted."""
        return not self.labels


TASKS = {
    "cola": GlueTask({"": "CoLA"}, "sentence", "", "label", _BINARY, "matthews",
                     headerless=("source", "label", "star", "sentence"), test_header=("index", "sentence")),
    "sst2": GlueTask({"": "SST-2"}, "sentence", "", "label", _BINARY, "accuracy"),
    "mrpc": GlueTask({"": "MRPC"}, "#1 String", "#2 String", "Quality", _BINARY, "accuracy_f1"),
    "stsb": GlueTask({"": "STS-B"}, "sentence1", "sentence2", "score", (), "pearson_spearman"),
    "qqp": GlueTask({"": "QQP"}, "question1", "question2", "is_duplicate", _BINARY, "accuracy_f1", id="id",
                    broken=True),
    "mnli": GlueTask({"diagnostic": "AX", "mismatched": "MNLI-mm", "": "MNLI-m"}, "sentence1", "sentence2",
                     "gold_label", _INFERENCE, "accuracy", undecided="-"),
    "qnli": GlueTask({"": "QNLI"}, "question", "sentence", "label", _ENTAILMENT, "accuracy"),
    "rte": GlueTask({"": "RTE"}, "sentence1", "sentence2", "label", _ENTAILMENT, "accuracy"),
    "wnli": GlueTask({"": "WNLI"}, "sentence1", "sentence2", "label", _BINARY, "accuracy"),
    "ax": GlueTask({"": "AX"}, "sentence1", "sentence2", "label", _INFERENCE, "matthews"),
}


def rows(path: str, task: GlueTask, issues: DataIssues, with_labels: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file:line" and the fields by name of each line of an official TSV file, without quoting.

    Args:
      with_labels: lines that are broken or have no agreed label are left out and counted.

    Raises:
      UserError: the file cannot be read, or a line has more or fewer fields than there are columns.
    """
    columns: tuple[str, ...] = ()
    for number, line in reading.lines(path, issues):
        location, fields = f"{path}:{number}", line.split("\t")
        if not line:
            continue
        if not columns:
            has_header = not task.headerless or tuple(fields) == task.test_header
            columns = tuple(fields) if has_header else task.headerless
            if has_header:
                continue
        if len(fields) != len(columns):
            if not (task.broken and with_labels):
                raise UserError(f"{location}: {len(fields)} fields, but {len(columns)} columns "
                                f"({', '.join(columns)}); fix the line")
            issues.add("lines with a wrong number of fields, left out", location)
            continue
        record = dict(zip(columns, fields))
        if with_labels and task.undecided is not None and record.get(task.label) == task.undecided:
            issues.add("examples without an agreed label, left out", location)
            continue
        yield location, record


def submission(task: GlueTask, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, str]:
    """Submission files by name: a line per example, with class names, or numbers with three decimals."""
    files: dict[str, list[str]] = {}
    for example, prediction in zip(examples, predictions, strict=True):
        value = f"{prediction['value']:.3f}" if task.regression else prediction["label"]
        file = pathlib.PurePath(example.location.rpartition(":")[0]).name
        name = next(name for part, name in task.submissions.items() if part in file)
        files.setdefault(f"{name}.tsv", ["index\tprediction"]).append(f"{example.id}\t{value}")
    return {name: "\n".join([*lines, ""]) for name, lines in files.items()}
