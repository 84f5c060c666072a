"""The network: sizes, attention, encoder and pretraining heads, as pure Flax Linen modules. Imports no other room."""
from spanbert_jax.model.config import SIZES, ModelConfig
from spanbert_jax.model.encoder import Encoder, position_ids
from spanbert_jax.model.encoder_model import DEFAULT_LABELS, HEADS, EncoderModel, Outputs
from spanbert_jax.model.flops import train_step_flops
from spanbert_jax.model.spanbert import PretrainingLogits, SpanBert

__all__ = ["DEFAULT_LABELS", "HEADS", "SIZES", "Encoder", "EncoderModel", "ModelConfig", "Outputs", "PretrainingLogits",
           "SpanBert", "position_ids", "train_step_flops"]
