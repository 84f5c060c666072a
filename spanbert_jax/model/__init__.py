"""Models as pure Flax Linen modules: architectures, attention backends, heads, and how they are computed."""
from spanbert_jax.model.architectures import ARCHITECTURES
from spanbert_jax.model.architectures.bert import BertConfig
from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.decoder import Decoder
from spanbert_jax.model.description import describe_model, read_description
from spanbert_jax.model.encoder_decoder import EncoderDecoder, merge_tied_params, split_tied_params
from spanbert_jax.model.encoder_model import EncoderModel, Outputs
from spanbert_jax.model.flops import decoder_step_flops, train_step_flops
from spanbert_jax.model.heads import DEFAULT_LABELS, HEADS, EncoderOnly, Head, head_names, make_head
from spanbert_jax.model.heads.masked_tokens import MaskedLm
from spanbert_jax.model.heads.pretraining import PretrainingHeads
from spanbert_jax.model.spanbert import PretrainingLogits, SpanBert

__all__ = ["ARCHITECTURES", "DEFAULT_LABELS", "HEADS", "BertConfig", "ComputeConfig", "Decoder", "EncoderDecoder",
           "EncoderModel", "EncoderOnly", "Head", "MaskedLm", "ModelConfig", "Outputs", "PretrainingHeads",
           "PretrainingLogits", "SpanBert", "decoder_step_flops", "describe_model", "head_names", "make_head",
           "merge_tied_params", "read_description", "split_tied_params", "train_step_flops"]
