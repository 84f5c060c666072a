"""What masking can be told."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class MaskingSettings:
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
