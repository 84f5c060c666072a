"""Weights in and out: Hugging Face, the reference, PyTorch, TensorFlow, ONNX and StableHLO. One file a format."""
from spanbert_jax.interop.exporting import save_pretrained
from spanbert_jax.interop.pretrained import from_pretrained, load_tokenizer

__all__ = ["from_pretrained", "load_tokenizer", "save_pretrained"]
