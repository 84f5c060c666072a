"""Counts of what was repaired, truncated or left out while data was read."""
from __future__ import annotations

import collections
import dataclasses

_PLACES_KEPT = 5


@dataclasses.dataclass
class DataIssues:
    """What had to be mended, cut or left out.

    Attributes:
      counts: how often, by fault.
      places: the first few places of each fault.
    """
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    places: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, fault: str, place: str, count: int = 1) -> None:
        """Counts a fault."""
        self.counts[fault] += count
        places = self.places.setdefault(fault, [])
        if len(places) < _PLACES_KEPT and place not in places:
            places.append(place)

    def merge(self, later: "DataIssues") -> None:
        """Adds the faults of a later part."""
        self.counts.update(later.counts)
        for fault, places in later.places.items():
            self.places[fault] = list(dict.fromkeys(self.places.get(fault, []) + places))[:_PLACES_KEPT]
