"""Numbers, sizes, times and changes as text for people."""
import datetime
import re
from collections.abc import Callable
from typing import Any

_SI_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_COUNT_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_TIME_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))

_HASH = re.compile("[0-9a-f]{16,}")
_PERCENT = re.compile(r"(.*_)?(accuracy|exact|precision|recall|f1|matthews|pearson|spearman|bleu|chrf|rouge_\w)")


def format_quantity(value: float, unit: str) -> str:
    """Three digits and an SI prefix: 1.23e9, "FLOP/s" -> "1.23 GFLOP/s"."""
    number, prefix = _scaled(value, _SI_PREFIXES)
    return f"{number} {prefix}{unit}"


def format_bytes(size: float) -> str:
    """A file or disk size in decimal units: "433 MB"."""
    return format_quantity(size, "B")


def format_gib(size: float) -> str:
    """A memory size in GiB, without the unit: "15.75"."""
    return f"{size / 2**30:,.2f}" if size >= 2**27 else f"{size / 2**30:.2g}"


def format_count(number: float) -> str:
    """A number of tokens or parameters with three digits: "20B", "1.26T", "432M"."""
    return "".join(_scaled(number, _COUNT_SUFFIXES))


def format_plural(number: int, noun: str) -> str:
    """A number and its noun: "1 restart", "2 restarts", "2 classes"."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def is_percent(metric: str) -> bool:
    """Whether a task's metric of this name is in percent, such as "macro_f1", "f1/PER" and "lead/rouge_l"."""
    return any(_PERCENT.fullmatch(part) for part in metric.split("/"))


def format_metric(name: str, value: float | str) -> str:
    """A value of an evaluation: a float with four digits and, in percent, "%"; integers and texts as they are."""
    if isinstance(value, float):
        return (f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}") + "%" * is_percent(name)
    return value if isinstance(value, str) else f"{value:,}"


def format_change(name: str, old: Any, new: Any, show: Callable[[Any], str] = repr) -> str:
    """A change of a value: "seed: 0 -> 3". Hashes are left out: "content: changed", "test: None -> (content)"."""
    texts = ["(content)" if isinstance(value, str) and _HASH.fullmatch(value) else show(value) for value in (old, new)]
    return f"{name}: changed" if texts[0] == texts[1] else f"{name}: {' -> '.join(texts)}"


def format_clock(seconds: float) -> str:
    """A time as h:mm:ss."""
    return str(datetime.timedelta(seconds=round(seconds)))


def format_milliseconds(seconds: float) -> str:
    """A time in milliseconds with three digits or more, without the unit: "12.3", "1,234"."""
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def format_duration(seconds: float) -> str:
    """A time in its two largest units: "2 d 6 h", "4 h 10 m", "4 m 12 s", "12 s", "1.2 s"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for size, unit, smaller_size, smaller_unit in _TIME_UNITS:
        whole, rest = divmod(round(seconds / smaller_size), size // smaller_size)
        if whole:
            return f"{whole:,} {unit} {rest} {smaller_unit}"
    return f"{round(seconds)} s"


def _scaled(value: float, suffixes: tuple[tuple[float, str], ...]) -> tuple[str, str]:
    """Three digits of a number, and the suffix of the power of ten that they count."""
    for size, suffix in suffixes:
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}", suffix
    return f"{value:.3g}", ""
