"""Progress of preparing a corpus, and its results: a dictionary for report.json, and a table for people."""
import sys
import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from spanbert_jax.common.console import make_table
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.corpus.scan import SPLITS, SourceScan
from spanbert_jax.corpus.tokenization import CorpusStats

_UNKNOWN_WORDS_SHOWN = 20
_SECONDS_BETWEEN_LINES = 15.0


class ProgressBar:
    """A bar on a terminal, otherwise a line every few seconds, on standard error. A context manager."""

    def __init__(self, label: str, total: int | None, unit: str, shown: bool):
        """Creates a bar for `total` units (None if unknown), such as "characters"; not `shown`, it prints nothing."""
        self._label, self._total, self._unit, self._shown = label, total, unit, shown
        self._done, self._last_line = 0, time.monotonic()
        self._bar = None
        if shown and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
                TextColumn("{task.completed:,.0f} " + unit), TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task(label, total=total)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, amount: int) -> None:
        """Adds finished units."""
        self._done += amount
        if self._bar:
            self._bar.advance(self._task, amount)
        elif self._shown and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            share = f" ({self._done / self._total:.0%})" if self._total else ""
            print(f"{self._label}: {self._done:,} {self._unit}{share}", file=sys.stderr, flush=True)


def make_report(scan: SourceScan, stats: dict[str, CorpusStats], length: int, seconds: float,
                workers: int) -> dict[str, Any]:
    """Returns the figures of report.json: of rows of `length` positions, tokenized and written in `seconds`."""
    total = CorpusStats()
    for part in stats.values():
        total.add(part)
    counts = total.counts
    total.issues.merge(scan.issues)
    report = {
        "num_rows": {split: stats[split].counts["rows"] if split in stats else 0 for split in SPLITS},
        "documents": {**{split: stats[split].counts["documents"] if split in stats else 0 for split in SPLITS},
                      "duplicates skipped": scan.duplicates, "empty skipped": scan.empty},
        "files": len(scan.files),
        "characters": int(scan.characters[scan.assignment < len(SPLITS)].sum()),
        "sentences": counts["sentences"], "tokens": counts["tokens"],
        "tokens_dropped_to_fit_pairs": counts["tokens dropped to fit pairs"],
        "filled_share": counts["filled positions"] / max(1, counts["rows"] * length),
        "unknown_tokens": counts["unknown tokens"],
        "unknown_share": counts["unknown tokens"] / max(1, counts["tokens"]),
        "unknown_words": [{"word": word, "count": count, "first": total.first_places[word]}
                          for word, count in total.unknown_words.most_common(_UNKNOWN_WORDS_SHOWN)],
        "mended": {issue: {"count": count, "places": total.issues.places[issue]}
                   for issue, count in sorted(total.issues.counts.items())},
        "seconds": round(seconds, 3), "workers": workers,
        "tokens_per_second": round(counts["tokens"] / max(seconds, 1e-9))}
    report["notes"] = _notes(report)
    return report


def print_report(report: dict[str, Any], path: str, console: Console) -> None:
    """Prints the report as a table."""
    table = make_table("", "", title=f"Corpus {path}", show_header=False)
    table.columns[0].style, table.columns[1].overflow = "bold", "fold"
    documents, rows = report["documents"], report["num_rows"]
    skipped = [f"{kind} {documents[f'{kind} skipped']:,}" for kind in ("duplicates", "empty")
               if documents[f"{kind} skipped"]]
    table.add_row("documents", f"{documents['train']:,} train, {documents['validation']:,} validation"
                  + (f"; skipped: {', '.join(skipped)}" if skipped else ""))
    table.add_row("sentences", f"{report['sentences']:,}")
    table.add_row("tokens", f"{report['tokens']:,} ({report['unknown_share']:.3%} unknown), "
                  f"vocabulary of {report['vocab_size']:,}")
    table.add_row("rows", f"{rows['train']:,} train, {rows['validation']:,} validation, of {report['length']} "
                  f"positions, {report['filled_share']:.1%} full")
    if report["unknown_words"]:
        table.add_row("unknown words", "\n".join(
            f"{unknown['word']!r} {format_plural(unknown['count'], 'time')}, first at {unknown['first']}"
            for unknown in report["unknown_words"][:5]))
    for issue, found in report["mended"].items():
        table.add_row(issue, f"{found['count']:,}, first at {found['places'][0]}")
    table.add_row("time", f"{report['seconds']:.1f} s for tokenizing and writing, "
                  f"{report['tokens_per_second']:,} tokens/s with {format_plural(report['workers'], 'worker')}")
    console.print(table)
    for note in report["notes"]:
        console.print(f"Note: {note}")


def _notes(report: dict[str, Any]) -> list[str]:
    notes = []
    if not report["num_rows"]["validation"]:
        notes.append("no text is held out for validation: there is one document only, or no share was asked for.")
    if report["unknown_share"] > 0.01:
        notes.append(f"{report['unknown_share']:.1%} of the tokens are unknown: the vocabulary may not suit this text.")
    if report["filled_share"] < 0.5:
        notes.append(f"rows are only {report['filled_share']:.0%} full: pack several blocks in a row, or shorten "
                     "the rows.")
    return notes
