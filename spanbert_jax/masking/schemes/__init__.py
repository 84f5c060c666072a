"""Masking schemes, one a file, by name.

A scheme turns the settings into a `propose` function: given a `MaskingStep` (one block of one row, part of it masked already),
it returns the next tokens to mask as bool [S]. The loop in masking.py keeps those of them that are unmasked tokens of
the block, cuts them at the budget, and asks again until the budget is met; so a proposal must hold an unmasked token.

To add a scheme: write one file here with a function `settings -> propose` and add a line to SCHEMES.
"""
from spanbert_jax.masking.schemes import annotated, geometric, token
from spanbert_jax.masking.schemes.step import MaskingStep, Scheme

SCHEMES: dict[str, Scheme] = {
    "annotated": Scheme(annotated.annotated),
    "geometric": Scheme(geometric.geometric),
    "token": Scheme(token.token, forms_spans=False),
    "whole_word": Scheme(geometric.whole_word),
}

__all__ = ["SCHEMES", "Scheme", "MaskingStep"]
