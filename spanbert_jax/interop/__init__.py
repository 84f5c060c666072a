"""Import and export of weights: Hugging Face, the reference, PyTorch, TensorFlow, ONNX and StableHLO.

`sources` opens files of any format. `naming` gives their tensors the names of an architecture in `architectures`, and
`weights` makes parameters of them. `formats` exports parameters, one file for each format.
"""
from spanbert_jax.interop.encoder_decoder import load_encoder_decoder, save_encoder_decoder
from spanbert_jax.interop.exporting import save_pretrained
from spanbert_jax.interop.pretrained import from_pretrained, load_tokenizer

__all__ = ["from_pretrained", "load_encoder_decoder", "load_tokenizer", "save_encoder_decoder", "save_pretrained"]
