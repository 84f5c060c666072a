"""Settings of span masking, and mixtures of masking schemes."""
import dataclasses
import math
import re

from spanbert_jax.common.settings import Settings, require, setting
from spanbert_jax.masking.schemes import SCHEMES

_TERM = re.compile(r"(?:(?P<share>[0-9.eE-]+)\*)?(?P<name>\w+)")


def scheme_shares(scheme: str, field: str = "config.masking.scheme") -> tuple[tuple[str, float], ...]:
    """Reads "a", "a+b" or "0.8*a+0.2*b" as ((name, probability), ...) with sum 1. Raises UserError for other texts."""
    allowed = (f"allowed are {', '.join(SCHEMES.names())}, schemes of modules in config.plugins, and mixtures as a+b "
               "or 0.8*a+0.2*b with shares that sum to 1")
    terms = [match for term in scheme.split("+") if (match := _TERM.fullmatch(term.strip()))]
    require(len(terms) == scheme.count("+") + 1 and all(term["name"] in SCHEMES for term in terms), field, scheme,
            allowed)
    given = [term["share"] for term in terms]
    try:
        shares = [1 / len(terms)] * len(terms) if not any(given) else [float(share or "nan") for share in given]
    except ValueError:
        shares = [math.nan]
    # NaN fails both comparisons.
    require(abs(sum(shares) - 1) < 1e-6 and min(shares) > 0, field, scheme, allowed)
    return tuple((term["name"], share) for term, share in zip(terms, shares))


@dataclasses.dataclass(frozen=True)
class MaskingSettings(Settings):
    """Span masking. The defaults are the published ones (SpanBERT, sections 3.1 and 4.2)."""
    scheme: str = setting("geometric", "A masking scheme, 'a+b' (each block draws one of them uniformly) or "
                          "'0.8*a+0.2*b' (with these probabilities).",
                          check=lambda field, scheme: scheme_shares(scheme, field))
    rate: float = setting(0.15, "Fraction of a block's maskable tokens that is masked, rounded up.", above=0, maximum=1)
    geometric_p: float = setting(0.2, "Parameter of the geometric law of span lengths in words.", above=0, below=1)
    span_lower: int = setting(1, "Shortest span drawn, in words.", minimum=1)
    span_upper: int = setting(10, "Longest span drawn, in words.", minimum=1)
    replacement: str = setting("span", "Draw [MASK], random tokens or the original tokens once per span or once per "
                               "token.", choices=("span", "token"))
    endpoints: str = setting("external", "Predict a span from its unmasked neighbours (external) or from its own first "
                             "and last token (internal).", choices=("external", "internal"))
    max_span_positions: int = setting(15, "Boundary targets of a span at most; further tokens have none.", minimum=1)
    annotated_rate: float = setting(0.5, "Probability that a step of the scheme 'annotated' masks an annotated unit.",
                                    minimum=0, maximum=1)
    mask_share: float = setting(0.8, "Probability of replacement by [MASK].", minimum=0, maximum=1)
    random_share: float = setting(0.1, "Probability of random tokens; otherwise the tokens are kept.", minimum=0)

    def validate(self, path: str) -> None:
        super().validate(path)
        require(self.span_upper >= self.span_lower, f"{path}.span_upper", self.span_upper,
                f"must be at least span_lower={self.span_lower}")
        # The tolerance is for sums such as 0.8 + 0.2, which need not be 1 in floating point.
        require(self.random_share <= 1 - self.mask_share + 1e-9, f"{path}.random_share", self.random_share,
                f"must be at most 1 - mask_share = {1 - self.mask_share:g}")
