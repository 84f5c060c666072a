"""Masking schemes, one file each, by name.

A scheme makes a function `propose` from the settings. Given a `MaskingStep`, which is one block of one row with some
of its tokens masked already, `propose` returns the next tokens to mask as bool [S]. The masker keeps those that are
unmasked tokens of the block, cuts them at the budget, and repeats until the budget is used up. So a proposal must
contain at least one unmasked token of the block.

To add a scheme, write a function `settings -> propose` in a new file, decorate it with `@Scheme`, and add its name
here. In a package of your own, decorate it with `@SCHEMES.register(NAME)` too, and name the module in `config.plugins`.
"""
from spanbert_jax.common.registry import Registry
from spanbert_jax.masking.schemes.step import MaskingStep, Scheme

SCHEMES: Registry[Scheme] = Registry("masking scheme", "masking_schemes", {
    "annotated": "spanbert_jax.masking.schemes.annotated:annotated",
    "geometric": "spanbert_jax.masking.schemes.geometric:geometric",
    "token": "spanbert_jax.masking.schemes.token:token",
    "whole_word": "spanbert_jax.masking.schemes.geometric:whole_word",
})

__all__ = ["SCHEMES", "MaskingStep", "Scheme"]
