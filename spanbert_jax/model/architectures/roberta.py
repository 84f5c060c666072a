"""RoBERTa and XLM-R: BERT with one token type (Liu et al., 2019; Conneau et al., 2020).

Their files have two unused rows before the first position, which `interop` leaves out.
"""
import dataclasses

from spanbert_jax.model.architectures.bert import BertConfig


@dataclasses.dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """A RoBERTa."""
    architecture = "roberta"

    token_types: int = 1
    layer_norm_epsilon: float = 1e-5


@dataclasses.dataclass(frozen=True)
class XlmRobertaConfig(RobertaConfig):
    """An XLM-R, which differs by its name only."""
    architecture = "xlm-roberta"
