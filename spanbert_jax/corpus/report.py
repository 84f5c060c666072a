"""What preparing a corpus found, as a dictionary for report.json and as a table in plain words."""
from typing import Any

from rich.console import Console
from rich.table import Table

from spanbert_jax.common.formatting import format_plural
from spanbert_jax.corpus.survey import SPLITS, Survey
from spanbert_jax.corpus.tokenization import Tally

_UNKNOWN_WORDS_SHOWN = 20


def make_report(survey: Survey, tallies: dict[str, Tally], length: int, seconds: float, workers: int) -> dict[str, Any]:
    """Gathers the figures.

    Args:
      survey: of the sources.
      tallies: for each split, the sums over its chunks.
      length: S.
      seconds: wall time of tokenising and writing.
      workers: processes used.
    """
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    counts = total.counts
    total.faults.merge(survey.faults)
    report = {
        "num_rows": {split: tallies[split].counts["rows"] if split in tallies else 0 for split in SPLITS},
        "documents": {**{split: tallies[split].counts["documents"] if split in tallies else 0 for split in SPLITS},
                      "duplicates skipped": survey.duplicates, "empty skipped": survey.empty},
        "files": len(survey.files),
        "characters": int(survey.characters[survey.fate < len(SPLITS)].sum()),
        "sentences": counts["sentences"],
        "tokens": counts["tokens"],
        "tokens_dropped_to_fit_pairs": counts["tokens dropped to fit pairs"],
        "filled_share": counts["filled positions"] / max(1, counts["rows"] * length),
        "unknown_tokens": counts["unknown tokens"],
        "unknown_share": counts["unknown tokens"] / max(1, counts["tokens"]),
        "unknown_words": [{"word": word, "count": count, "first": total.seen[word]}
                          for word, count in total.unknown.most_common(_UNKNOWN_WORDS_SHOWN)],
        "mended": {fault: {"count": count, "places": total.faults.places[fault]}
                   for fault, count in sorted(total.faults.counts.items())},
        "seconds": round(seconds, 3),
        "tokens_per_second": round(counts["tokens"] / max(seconds, 1e-9)),
        "workers": workers,
    }
    report["notes"] = _notes(report)
    return report


def print_report(report: dict[str, Any], path: str, console: Console) -> None:
    """Prints the table a person reads after `prepare`."""
    table = Table(title=f"Corpus {path}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    documents, rows = report["documents"], report["num_rows"]
    skipped = [f"{documents[f'{kind} skipped']:,} {kind}" for kind in ("duplicates", "empty")
               if documents[f"{kind} skipped"]]
    table.add_row("documents", f"{documents['train']:,} train, {documents['validation']:,} validation"
                  + (f"; skipped: {', '.join(skipped)}" if skipped else ""))
    table.add_row("sentences", f"{report['sentences']:,}")
    table.add_row("tokens", f"{report['tokens']:,} ({report['unknown_share']:.3%} unknown), "
                  f"{report['vocab_size']:,} pieces in the vocabulary")
    table.add_row("rows", f"{rows['train']:,} train, {rows['validation']:,} validation, of {report['length']} "
                  f"positions, {report['filled_share']:.1%} full")
    if report["unknown_words"]:
        table.add_row("unknown words", "\n".join(
            f"{unknown['word']!r} {unknown['count']:,} times, first at {unknown['first']}"
            for unknown in report["unknown_words"][:5]))
    for fault, found in report["mended"].items():
        table.add_row(fault, f"{found['count']:,}, first at {found['places'][0]}")
    table.add_row("time", f"{report['seconds']:.1f} s for tokenising and writing, "
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
