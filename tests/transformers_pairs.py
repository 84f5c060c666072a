"""Encoders with decoders of transformers, small and random, to compare with."""
import pathlib

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Kind of the decoder, and its width; the encoder is 32 wide.
KINDS = [("bert", 32), ("gpt2", 32), ("bert", 48), ("gpt2", 48)]
SOURCE_PIECES, TARGET_PIECES, POSITIONS = 50, 40, 32
START, END, PAD = 1, 2, 0


def make_pair(kind: str, width: int, seed: int = 0, deviation: float = 0.3, pieces: int = TARGET_PIECES):
    """A random EncoderDecoderModel; no bias in it is zero."""
    torch.manual_seed(seed)

    def bert(pieces: int, width: int, layers: int, **fields):
        return transformers.BertConfig(
            vocab_size=pieces, hidden_size=width, num_hidden_layers=layers, num_attention_heads=4,
            intermediate_size=2 * width, max_position_embeddings=POSITIONS, initializer_range=deviation, **fields)

    decoder = bert(pieces, width, 2, is_decoder=True, add_cross_attention=True) if kind == "bert" else (
        transformers.GPT2Config(vocab_size=pieces, n_embd=width, n_layer=2, n_head=4, n_positions=POSITIONS,
                                add_cross_attention=True, initializer_range=deviation, bos_token_id=START,
                                eos_token_id=END))
    both = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(bert(SOURCE_PIECES, 32, 1), decoder)
    model = transformers.EncoderDecoderModel(both).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def save_pair(folder: pathlib.Path, kind: str, width: int, **how):
    """The same, and the directory that it is saved in."""
    model = make_pair(kind, width, **how)
    model.save_pretrained(folder)
    return model, folder
