"""Curves in plain characters, for terminals and logs."""
import math
from collections.abc import Sequence
from statistics import fmean

_WIDTH, _HEIGHT = 60, 8  # characters


def draw_curve(points: Sequence[tuple[int, float]], unit: str) -> list[str]:
    """Lines of text that draw values over whole numbers.

    Args:
      points: (number, value) in ascending order, at least one. Of more than 60, neighbours are averaged.
      unit: what the numbers count, as "step".
    """
    points = [point for point in points if math.isfinite(point[1])]
    per_column = math.ceil(len(points) / _WIDTH)
    values = [fmean(value for _, value in points[start:start + per_column])
              for start in range(0, len(points), per_column)]
    high, low = max(values), min(values)
    rows = [round((high - value) / ((high - low) or 1) * (_HEIGHT - 1)) for value in values]
    labels = {0: f"{high:.2f}", _HEIGHT - 1: f"{low:.2f}"}
    margin = max(map(len, labels.values()))
    first, last = (f"{unit} {points[0][0]:,}", f"{points[-1][0]:,}")
    return [*(f"{labels.get(row, ''):>{margin}} |{''.join('*' if at == row else ' ' for at in rows)}".rstrip()
              for row in range(_HEIGHT)),
            f"{'':{margin}} +{'-' * len(rows)}",
            f"{'':{margin}}  {first}{last:>{max(len(rows) - len(first), len(last) + 1)}}"]
