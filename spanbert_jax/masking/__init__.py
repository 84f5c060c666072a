"""Span masking on the accelerator, as pure functions of (key, row); one file for each masking scheme."""
from spanbert_jax.masking.masker import MaskedRows, Masker, make_masker
from spanbert_jax.masking.settings import MaskingSettings

__all__ = ["MaskedRows", "Masker", "MaskingSettings", "make_masker"]
