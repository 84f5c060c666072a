"""RoBERTa and XLM-R in Hugging Face's formats, as BERT's tensors under other names.

Two rows stand before the first position. The head of classifiers of texts is BERT's pooler and its classifier.
"""
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.architectures import Conversion, StoredParts, bert
from spanbert_jax.interop.naming import NamedTensors, Stored
from spanbert_jax.model import BertConfig
from spanbert_jax.model.architectures.roberta import RobertaConfig, XlmRobertaConfig

NAMES = dataclasses.replace(bert.NAMES, prefix="roberta.")
_POSITIONS = NAMES.tensor("encoder/embeddings/position", "embedding")
_UNUSED_ROWS = 2  # of the position embedding: positions begin behind the id of the padding token, 1
# The start of a tensor's name in files -> of BERT's; first those of classifiers of texts.
_TEXT_CLASSIFIER = {"classifier.dense.": "bert.pooler.dense.", "classifier.out_proj.": "classifier."}
_PARTS = {"roberta.": "bert.", "lm_head.dense.": "cls.predictions.transform.dense.",
          "lm_head.layer_norm.": "cls.predictions.transform.LayerNorm.", "lm_head.": "cls.predictions."}


def rename(path: pathlib.Path, stored: Sequence[Stored]) -> dict[str, Stored]:
    """Returns stored tensors by BERT's names. Raises UserError for other models and duplicate names."""
    entries = bert.rename(path, stored, lambda name: _with_other_start(name, _TEXT_CLASSIFIER | _PARTS))
    if _POSITIONS in entries:
        entries[_POSITIONS] = dataclasses.replace(entries[_POSITIONS], skipped=_UNUSED_ROWS)
    return entries


def _with_other_start(name: str, starts: Mapping[str, str]) -> str:
    """Replaces the first of `starts` that a name has; other names stay."""
    start = next((start for start in starts if name.startswith(start)), "")
    return starts.get(start, "") + name.removeprefix(start)


def export(named: Iterable[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors by BERT's names as transformers names and stores them."""
    tensors = dict(named)
    classifies_texts = {"classifier.weight", "bert.pooler.dense.weight"} <= tensors.keys()
    parts = _TEXT_CLASSIFIER | _PARTS if classifies_texts else _PARTS
    starts = {ours: theirs for theirs, ours in parts.items()}
    for name, value in tensors.items():
        if name == _POSITIONS:
            value = np.concatenate([np.zeros((_UNUSED_ROWS, value.shape[1]), value.dtype), value])
        yield _with_other_start(name, starts), value


def read(tensors: NamedTensors, values: Mapping[str, Any], file: pathlib.Path | None, *,
         config: type[RobertaConfig]) -> StoredParts:
    """Returns config and heads of stored tensors. Raises UserError if config and tensors contradict each other."""
    changed = dict(values)
    stated = changed.pop("max_position_embeddings", None)
    if (shape := tensors.shapes.get(_POSITIONS)) and stated not in (None, rows := shape[0] + _UNUSED_ROWS):
        raise UserError(f"{file}: max_position_embeddings is {stated!r}, but the tensors of {tensors.path} have {rows}")
    if names := values.get("architectures"):
        changed["architectures"] = [re.sub(r"^(XLM)?Roberta", "Bert", str(name)) for name in names]
    parts = bert.read(tensors, changed, file)
    if parts.config.token_types != 1:
        raise UserError(f"{file}: type_vocab_size is {parts.config.token_types}; RoBERTa has 1")
    return dataclasses.replace(parts, config=config(**dataclasses.asdict(parts.config)))


def to_values(config: BertConfig, *, required: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config.json."""
    return {**bert.to_values(config), **required,
            "max_position_embeddings": config.max_positions + _UNUSED_ROWS}


def _conversion(config: type[RobertaConfig], prefix: str) -> Conversion:
    required = {"model_type": config.architecture, "hidden_act": "gelu", "position_embedding_type": "absolute",
                "pad_token_id": _UNUSED_ROWS - 1}
    classes = {head: name.replace("Bert", prefix) for head, name in bert.BERT.classes.items()
               if head in (None, "masked_lm", "question_answering", "sequence_classification", "token_classification")}
    return Conversion(NAMES, required, bert.BERT.encoder_only, "RoBERTa with GELU", rename,
                      functools.partial(read, config=config), functools.partial(to_values, required=required), classes,
                      export, bert.BERT.synonyms)


ROBERTA = _conversion(RobertaConfig, "Roberta")
XLM_ROBERTA = _conversion(XlmRobertaConfig, "XLMRoberta")
