"""What masking can be told: the settings, their checks, and the notation for mixtures of schemes."""
import dataclasses
import math
import re

from spanbert_jax.errors import UserError
from spanbert_jax.pretraining.schemes import SCHEMES

_TERM = re.compile(r"(?:(?P<share>[0-9.eE-]+)\*)?(?P<name>\w+)")


@dataclasses.dataclass(frozen=True)
class MaskingSpec:
    """Settings of span masking; the defaults are the published ones (SpanBERT, sections 3.1 and 4.2).

    Attributes:
        scheme: a registered name, "a+b" (one of them drawn uniformly for each block, as the reference's list of
            schemes) or "0.8*a+0.2*b" (drawn with these shares).
        rate: share of a block's maskable tokens that is masked, rounded up.
        geometric_p: parameter of the span length law, in words.
        span_lower: shortest span drawn, in words.
        span_upper: longest span drawn, in words.
        replacement: "span" draws mask, random or kept once for each span, "token" for each token.
        endpoints: "external" predicts a span from its unmasked neighbours, "internal" from its own first and last
            token (the reference's `endpoints`).
        max_span_positions: boundary targets of a span (the reference's `max_pair_targets`); further tokens have none.
        annotated_rate: chance that a step of the `annotated` scheme masks an annotated unit (the reference's
            `ner_masking_prob`).
        mask_share: share replaced by [MASK].
        random_share: share replaced by random pieces; the rest is kept.
    """
    scheme: str = "geometric"
    rate: float = 0.15
    geometric_p: float = 0.2
    span_lower: int = 1
    span_upper: int = 10
    replacement: str = "span"
    endpoints: str = "external"
    max_span_positions: int = 15
    annotated_rate: float = 0.5
    mask_share: float = 0.8
    random_share: float = 0.1

    def validate(self) -> None:
        """Raises UserError for the first field whose value is not allowed."""
        scheme_shares(self.scheme)
        _require(0 < self.rate <= 1, "rate", self.rate, "a number above 0, at most 1")
        _require(0 < self.geometric_p < 1, "geometric_p", self.geometric_p, "a number between 0 and 1, both excluded")
        _require(self.span_lower >= 1, "span_lower", self.span_lower, "a number of words, at least 1")
        _require(self.span_upper >= self.span_lower, "span_upper", self.span_upper,
                 f"a number of words, at least span_lower ({self.span_lower})")
        _require(self.replacement in ("span", "token"), "replacement", self.replacement, "span, token")
        _require(self.endpoints in ("external", "internal"), "endpoints", self.endpoints, "external, internal")
        _require(self.max_span_positions >= 1, "max_span_positions", self.max_span_positions, "at least 1")
        _require(0 <= self.annotated_rate <= 1, "annotated_rate", self.annotated_rate, "a number from 0 to 1")
        _require(0 <= self.mask_share <= 1, "mask_share", self.mask_share, "a number from 0 to 1")
        # A hair above is let through: 0.8 + 0.2 written as sums of floats need not be 1.
        _require(0 <= self.random_share <= 1 - self.mask_share + 1e-9, "random_share", self.random_share,
                 f"a number from 0 to 1 - mask_share ({1 - self.mask_share:g})")


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
