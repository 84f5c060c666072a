"""Settings of masking: refused values, and how mixtures are read."""
import re

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.masking import MaskingSettings
from spanbert_jax.masking.settings import scheme_shares


@pytest.mark.parametrize("field,value,allowed", [
    ("scheme", "geometrical", "allowed are annotated, geometric, token, whole_word"),
    ("scheme", "geometric+", "allowed are"), ("scheme", "0.5*geometric+token", "shares that sum to 1"),
    ("scheme", "0.5*geometric+0.4*token", "shares that sum to 1"), ("scheme", "1..0*geometric", "allowed are"),
    ("scheme", "0*token+1*geometric", "shares that sum to 1"),
    ("rate", 0.0, "above 0"), ("rate", 1.2, "at most 1"), ("geometric_p", 1.0, "below 1"),
    ("span_lower", 0, "at least 1"),
    ("span_upper", 0, "at least 1"), ("replacement", "word", "allowed are 'span', 'token'"),
    ("endpoints", "both", "allowed are 'external', 'internal'"), ("max_span_positions", 0, "at least 1"),
    ("annotated_rate", -0.1, "at least 0"), ("mask_share", 1.1, "at most 1"),
    ("random_share", 0.3, "at most 1 - mask_share = 0.2"), ("random_share", -0.1, "at least 0")])
def test_refused_settings_are_named_with_what_is_allowed(field: str, value: object, allowed: str) -> None:
    with pytest.raises(UserError) as error:
        MaskingSettings(**{field: value}).validate("config.masking")
    message = str(error.value)
    assert message.startswith(f"config.masking.{field}={value!r}: ") and allowed in message and "\n" not in message


def test_the_longest_span_is_not_below_the_shortest() -> None:
    with pytest.raises(UserError, match=re.escape("masking.span_upper=2: must be at least span_lower=3")):
        MaskingSettings(span_lower=3, span_upper=2).validate("masking")


def test_shares_may_sum_to_one_up_to_rounding() -> None:
    MaskingSettings(mask_share=0.7, random_share=0.1 + 0.2).validate("masking")


@pytest.mark.parametrize("scheme,shares", [
    ("token", (("token", 1.0),)),
    ("geometric+token", (("geometric", 0.5), ("token", 0.5))),
    ("0.8*geometric + 0.2*whole_word", (("geometric", 0.8), ("whole_word", 0.2)))])
def test_mixtures_are_read(scheme: str, shares: tuple) -> None:
    MaskingSettings(scheme=scheme).validate("masking")
    assert scheme_shares(scheme) == shares
