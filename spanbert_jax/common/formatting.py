"""Numbers and times as people read them."""
from __future__ import annotations

import datetime


def format_quantity(value: float, unit: str) -> str:
    """A number with three digits and a prefix: 1.23e9, "FLOP/s" -> "1.23 GFLOP/s"."""
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10 ** power:
            return f"{value / 10 ** power:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def format_clock(seconds: float) -> str:
    """A time as h:mm:ss."""
    return str(datetime.timedelta(seconds=round(seconds)))


def format_duration(seconds: float) -> str:
    """A time in its two largest units: 4 h 10 m, 4 m 12 s, 12 s, 1.2 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60:,} h {minutes % 60} m"
