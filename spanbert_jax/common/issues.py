"""Counts of what was repaired, cut or left out while data was read."""
import collections
import dataclasses
import logging
from typing import Self

_PLACES_KEPT = 5
logger = logging.getLogger("spanbert_jax")


@dataclasses.dataclass
class DataIssues:
    """Issues of the data: how often each one occurred, and its first few places, such as `file:line`."""
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    places: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, issue: str, place: str, count: int = 1) -> None:
        """Counts an issue at a place."""
        self.counts[issue] += count
        places = self.places.setdefault(issue, [])
        if len(places) < _PLACES_KEPT and place not in places:
            places.append(place)

    def merge(self, later: Self) -> None:
        """Adds the issues of a later part of the data."""
        self.counts.update(later.counts)
        for issue, places in later.places.items():
            self.places[issue] = list(dict.fromkeys(self.places.get(issue, []) + places))[:_PLACES_KEPT]


def format_issues(issues: DataIssues) -> list[str]:
    """Returns one line per issue: "empty files (2): a.txt, b.txt"."""
    return [f"{issue} ({count:,}): {', '.join(issues.places[issue])}" for issue, count in issues.counts.items()]


def log_issues(issues: DataIssues) -> None:
    """Logs the lines of `format_issues` as warnings."""
    for line in format_issues(issues):
        logger.warning("%s", line)
