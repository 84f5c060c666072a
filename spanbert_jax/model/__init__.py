"""The network: sizes, attention, encoder and pretraining heads, as pure Flax Linen modules. Imports no other room."""
from spanbert_jax.model.config import SIZES, DecoderConfig, ModelConfig
from spanbert_jax.model.decoder import Decoder
from spanbert_jax.model.encoder import Encoder, position_ids
from spanbert_jax.model.encoder_decoder import EncoderDecoder, complete, without_shared
from spanbert_jax.model.encoder_model import DEFAULT_LABELS, HEADS, EncoderModel, Outputs
from spanbert_jax.model.flops import decoder_step_flops, train_step_flops
from spanbert_jax.model.spanbert import PretrainingLogits, SpanBert

__all__ = ["DEFAULT_LABELS", "HEADS", "SIZES", "Decoder", "DecoderConfig", "Encoder", "EncoderDecoder",
           "EncoderModel", "ModelConfig", "Outputs", "PretrainingLogits", "SpanBert", "complete", "decoder_step_flops",
           "position_ids", "train_step_flops", "without_shared"]
