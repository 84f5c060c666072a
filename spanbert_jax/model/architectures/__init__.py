"""Architectures, one file each: a `ModelConfig` with its encoder.

A further one is one file and a name in `ARCHITECTURES`. Heads, pretraining, fine-tuning and planning take whatever
architecture a config belongs to.
"""
from spanbert_jax.common.registry import Registry
from spanbert_jax.model.config import ModelConfig

_HERE = "spanbert_jax.model.architectures"
ARCHITECTURES: Registry[type[ModelConfig]] = Registry("architecture", "architectures", {
    "bert": f"{_HERE}.bert:BertConfig", "modernbert": f"{_HERE}.modernbert:ModernBertConfig",
    "roberta": f"{_HERE}.roberta:RobertaConfig", "xlm-roberta": f"{_HERE}.roberta:XlmRobertaConfig",
    "gpt2": f"{_HERE}.gpt2:Gpt2Config"})
