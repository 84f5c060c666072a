"""The tasks of GLUE: columns of the official TSV files and of those of `datasets`, metrics, and submission files."""
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.sources.tables import RowCheck
from spanbert_jax.tasks.files import reading
from spanbert_jax.tasks.files.labels import class_number
from spanbert_jax.tasks.protocol import Example, Prediction

_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("contradiction", "entailment", "neutral")
_NUMBERED_INFERENCE = ("entailment", "neutral", "contradiction")
_PREMISE = {"premise": "sentence1", "hypothesis": "sentence2"}


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
    # What is called otherwise by the library `datasets`: official columns by its names, and classes by its numbers.
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    numbered: tuple[str, ...] = ()

    @property
    def regression(self) -> bool:
        """Whether numbers are predicted."""
        return not self.labels


TASKS = {
    "cola": GlueTask({"": "CoLA"}, "sentence", "", "label", _BINARY, "matthews",
                     headerless=("source", "label", "star", "sentence"), test_header=("index", "sentence")),
    "sst2": GlueTask({"": "SST-2"}, "sentence", "", "label", _BINARY, "accuracy"),
    "mrpc": GlueTask({"": "MRPC"}, "#1 String", "#2 String", "Quality", _BINARY, "accuracy_f1",
                     renamed={"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"}),
    "stsb": GlueTask({"": "STS-B"}, "sentence1", "sentence2", "score", (), "pearson_spearman",
                     renamed={"label": "score"}),
    "qqp": GlueTask({"": "QQP"}, "question1", "question2", "is_duplicate", _BINARY, "accuracy_f1", id="id",
                    broken=True, renamed={"label": "is_duplicate"}),
    "mnli": GlueTask({"diagnostic": "AX", "mismatched": "MNLI-mm", "": "MNLI-m"}, "sentence1", "sentence2",
                     "gold_label", _INFERENCE, "accuracy", undecided="-", renamed=_PREMISE | {"label": "gold_label"},
                     numbered=_NUMBERED_INFERENCE),
    "qnli": GlueTask({"": "QNLI"}, "question", "sentence", "label", _ENTAILMENT, "accuracy",
                     numbered=_ENTAILMENT),
    "rte": GlueTask({"": "RTE"}, "sentence1", "sentence2", "label", _ENTAILMENT, "accuracy",
                    numbered=_ENTAILMENT),
    "wnli": GlueTask({"": "WNLI"}, "sentence1", "sentence2", "label", _BINARY, "accuracy"),
    "ax": GlueTask({"": "AX"}, "sentence1", "sentence2", "label", _INFERENCE, "matthews", renamed=_PREMISE,
                   numbered=_NUMBERED_INFERENCE),
}


def rows(path: str, task: GlueTask, issues: DataIssues, with_labels: bool,
         check: RowCheck) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file:line" and the fields by name of each example.

    JSON and CSV files are read by `reading.table`, all others as official TSV files, without quoting. The columns and
    numbers of classes of the library `datasets` become the official ones.

    Args:
      with_labels: lines that are broken or have no agreed label are left out and counted.
      check: of an empty row with the official columns; it is called for a table without rows.

    Raises:
      UserError: the file cannot be read, or a line has more or fewer fields than there are columns.
    """
    is_table = reading.is_json(path) or reading.without_compression(path).lower().endswith(".csv")
    def check_official(row: dict[str, Any], place: str) -> object:
        return check(_official(row, task), place)

    for location, record in (reading.table(path, issues, check=check_official) if is_table else
                             _tsv(path, task, issues, with_labels, check_official)):
        record = _official(record, task)
        if with_labels and task.undecided is not None and record.get(task.label) == task.undecided:
            issues.add("examples without an agreed label, left out", location)
            continue
        yield location, record


def _official(record: Mapping[str, Any], task: GlueTask) -> dict[str, Any]:
    """A record with the official names."""
    renamed = {"idx": task.id, **task.renamed}
    record = {renamed.get(name, name): value for name, value in record.items()}
    if task.numbered and isinstance(label := record.get(task.label), (int, float, str)):
        names: dict[int | None, str] = dict(enumerate(task.numbered))
        record[task.label] = names.get(class_number(label), str(label))
    return record


def _tsv(path: str, task: GlueTask, issues: DataIssues, with_labels: bool,
         check: RowCheck) -> Iterator[tuple[str, dict[str, Any]]]:
    columns, header = tuple[str, ...](), ""  # the place of a header line without rows
    for number, line in reading.lines(path, issues):
        location, fields = f"{path}:{number}", line.split("\t")
        if not line:
            continue
        if not columns:
            has_header = not task.headerless or tuple(fields) == task.test_header
            columns = tuple(fields) if has_header else task.headerless
            if has_header:
                header = location
                continue
        header = ""
        if len(fields) != len(columns):
            if not (task.broken and with_labels):
                raise UserError(f"{location}: {format_plural(len(fields), 'field')}, but {len(columns)} columns "
                                f"({', '.join(columns)}); fix the line")
            issues.add("lines with a wrong number of fields, left out", location)
            continue
        yield location, dict(zip(columns, fields))
    if header:
        check(dict.fromkeys(columns, ""), header)
        issues.add("empty files", path)


def submission(task: GlueTask, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, str]:
    """Submission files by name: a line per example, with class names, or numbers with three decimals."""
    files: dict[str, list[str]] = {}
    for example, prediction in zip(examples, predictions, strict=True):
        value = f"{prediction['value']:.3f}" if task.regression else prediction["label"]
        file = pathlib.PurePath(reading.file_of(example)).name
        name = next(name for part, name in task.submissions.items() if part in file)
        files.setdefault(f"{name}.tsv", ["index\tprediction"]).append(f"{example.id}\t{value}")
    return {name: "\n".join([*lines, ""]) for name, lines in files.items()}
