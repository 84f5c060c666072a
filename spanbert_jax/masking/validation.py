"""Whether masking can do what it is told, and the notation for mixtures of schemes."""
import math
import re

from spanbert_jax.common.errors import UserError
from spanbert_jax.masking.schemes import SCHEMES
from spanbert_jax.masking.settings import MaskingSettings

_TERM = re.compile(r"(?:(?P<share>[0-9.eE-]+)\*)?(?P<name>\w+)")


def validate(spec: MaskingSettings) -> None:
    """Raises UserError for the first field whose value is not allowed."""
    scheme_shares(spec.scheme)
    _require(0 < spec.rate <= 1, "rate", spec.rate, "a number above 0, at most 1")
    _require(0 < spec.geometric_p < 1, "geometric_p", spec.geometric_p, "a number between 0 and 1, both excluded")
    _require(spec.span_lower >= 1, "span_lower", spec.span_lower, "a number of words, at least 1")
    _require(spec.span_upper >= spec.span_lower, "span_upper", spec.span_upper,
             f"a number of words, at least span_lower ({spec.span_lower})")
    _require(spec.replacement in ("span", "token"), "replacement", spec.replacement, "span, token")
    _require(spec.endpoints in ("external", "internal"), "endpoints", spec.endpoints, "external, internal")
    _require(spec.max_span_positions >= 1, "max_span_positions", spec.max_span_positions, "at least 1")
    _require(0 <= spec.annotated_rate <= 1, "annotated_rate", spec.annotated_rate, "a number from 0 to 1")
    _require(0 <= spec.mask_share <= 1, "mask_share", spec.mask_share, "a number from 0 to 1")
    # A hair above is let through: 0.8 + 0.2 written as sums of floats need not be 1.
    _require(0 <= spec.random_share <= 1 - spec.mask_share + 1e-9, "random_share", spec.random_share,
             f"a number from 0 to 1 - mask_share ({1 - spec.mask_share:g})")


def scheme_shares(scheme: str) -> tuple[tuple[str, float], ...]:
    """Reads "a", "a+b" or "0.8*a+0.2*b" as ((name, share), ...), the shares summing to 1.

    Raises:
        UserError: the text has another form, names no registered scheme, or its shares do not sum to 1.
    """
    allowed = f"one of {', '.join(sorted(SCHEMES))}, or a mixture as a+b or 0.8*a+0.2*b with shares that sum to 1"
    terms = [_TERM.fullmatch(term.strip()) for term in scheme.split("+")]
    _require(all(term and term["name"] in SCHEMES for term in terms), "scheme", scheme, allowed)
    given = [term["share"] for term in terms]
    try:
        shares = [1 / len(terms)] * len(terms) if not any(given) else [float(share or "nan") for share in given]
    except ValueError:
        shares = [math.nan]
    # Not a number fails both comparisons.
    _require(abs(sum(shares) - 1) < 1e-6 and min(shares) > 0, "scheme", scheme, allowed)
    return tuple((term["name"], share) for term, share in zip(terms, shares))


def _require(holds: bool, field: str, value: object, allowed: str) -> None:
    if not holds:
        raise UserError(f"masking.{field} is {value!r}; allowed: {allowed}")
