"""Pretraining: span masking on the accelerator and the objectives computed at the masked positions."""
from spanbert_jax.pretraining.masking import MaskedRows, Masker, make_masker
from spanbert_jax.pretraining.spec import MaskingSpec

__all__ = ["MaskedRows", "Masker", "MaskingSpec", "make_masker"]
