"""Weights in and out: Hugging Face, the reference, PyTorch, TensorFlow, ONNX and StableHLO.

Tensors come from `sources` under whatever names they have, get those of `layout` by `naming`, and become parameters in
`weights`; `formats` writes parameters, one file a format.
"""
from spanbert_jax.interop.encoder_decoder import load_encoder_decoder, save_encoder_decoder
from spanbert_jax.interop.exporting import save_pretrained
from spanbert_jax.interop.pretrained import from_pretrained, load_tokenizer

__all__ = ["from_pretrained", "load_encoder_decoder", "load_tokenizer", "save_encoder_decoder", "save_pretrained"]
