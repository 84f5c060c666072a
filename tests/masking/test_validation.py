"""Settings of masking: what is refused, and how mixtures are read."""
import dataclasses
import re

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.masking import MaskingSettings
from spanbert_jax.masking.validation import scheme_shares, validate


@pytest.mark.parametrize("field,value", [
    ("scheme", "geometrical"), ("scheme", "geometric+"), ("scheme", "0.5*geometric+token"),
    ("scheme", "0.5*geometric+0.4*token"), ("scheme", "1..0*geometric"), ("scheme", "0*token+1*geometric"),
    ("rate", 0.0), ("rate", 1.2), ("geometric_p", 1.0), ("span_lower", 0), ("span_upper", 0), ("replacement", "word"),
    ("endpoints", "both"), ("max_span_positions", 0), ("annotated_rate", -0.1), ("mask_share", 1.1),
    ("random_share", 0.3)])
def test_a_wrong_setting_is_refused_by_name(field: str, value: object) -> None:
    spec = dataclasses.replace(MaskingSettings(), **{field: value})
    with pytest.raises(UserError, match=rf"^masking\.{field} is {re.escape(repr(value))}; allowed: .+$"):
        validate(spec)


@pytest.mark.parametrize("scheme,shares", [
    ("token", (("token", 1.0),)),
    ("geometric+token", (("geometric", 0.5), ("token", 0.5))),
    ("0.8*geometric + 0.2*whole_word", (("geometric", 0.8), ("whole_word", 0.2)))])
def test_mixtures_are_read(scheme: str, shares: tuple) -> None:
    validate(MaskingSettings(scheme=scheme))
    assert scheme_shares(scheme) == shares
