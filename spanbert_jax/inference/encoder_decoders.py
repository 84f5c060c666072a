"""Encoder-decoder models of transformers, imported and exported with their task and compared with transformers."""
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from spanbert_jax.common.directories import new_directory, require_absent_or_empty
from spanbert_jax.common.errors import RunFailed, UserError
from spanbert_jax.common.paths import user_path
from spanbert_jax.inference.model_folder import (
    TASK_FILE,
    FineTuned,
    StoredTask,
    load_model,
    with_overrides,
    write_model,
)
from spanbert_jax.interop.exporting import Comparison, on_cpu
from spanbert_jax.interop.formats.huggingface import LIBRARY, TOLERANCE, quiet
from spanbert_jax.interop.sources.location import is_transformers
from spanbert_jax.interop.tokenizer_check import check_tokenizer
from spanbert_jax.tasks import TASKS
from spanbert_jax.tasks.protocol import Model


def convert(path: pathlib.Path, out: str | pathlib.Path, name: str | None = None,
            tokenizer: str | pathlib.Path | None = None,
            settings: Mapping[str, Any] | None = None) -> tuple[FineTuned, Comparison]:
    """Writes the directory of an EncoderDecoderModel again, together with its task as fine-tuning writes it.

    Args:
      path: the directory.
      out: the new directory.
      name: name of the task, such as "translation"; not needed if the directory has a task.json.
      tokenizer: path of the source tokenizer, if not in the directory.
      settings: new values of the task's overridable settings.

    Returns:
      The fine-tuned model, and how it and its source tokenizer compare with transformers' on the directory at `path`.

    Raises:
      UserError: the directory cannot be read, or is for another task.
      RunFailed: transformers computes other outputs, or the written tokenizer gives other ids; nothing is left on disk.
    """
    require_absent_or_empty(out)
    out = user_path(out)
    if (path / TASK_FILE).is_file():
        if tokenizer:
            raise UserError(f"--tokenizer {tokenizer}: the model in {path} has its own; leave it out")
        fine_tuned = load_model(path, settings=settings)
        if name not in (None, fine_tuned.name):
            raise UserError(f"--task {name}: the model in {path} was trained for {fine_tuned.name}; leave it out")
    elif name is None:
        raise UserError(f"{path}: an encoder-decoder model; name its task, as in --task summarization or --task "
                        "translation")
    else:
        task, *parts = TASKS.get(name).import_model(path, tokenizer or path)
        fine_tuned = FineTuned(StoredTask(name, with_overrides(task, settings or {})), *parts)
    comparison = compare(path, fine_tuned.model, fine_tuned.params)
    with new_directory(out) as folder:
        write_model(folder, fine_tuned, out.name)
        checked = check_tokenizer(folder, fine_tuned.tokenizer, path, comparison.difference is not None)
    return fine_tuned, dataclasses.replace(comparison, tokenizer=checked)


def compare(path: pathlib.Path, model: Model, params: Any) -> Comparison:
    """Compares logits with transformers' in float32 on the CPU. Raises RunFailed if they differ beyond tolerance."""
    if not is_transformers(path):
        return Comparison(LIBRARY, None, TOLERANCE, "it would read a pickle, which may run code")
    random = np.random.default_rng(0)
    lengths = [min(length, config.max_positions) for length, config in ((24, model.config), (16, model.decoder_config))]
    tokens, targets = (random.integers(0, config.vocab_size, (3, length)) for length, config in
                       zip(lengths, (model.config, model.decoder_config)))
    mask = (np.arange(lengths[0]) < np.linspace(lengths[0], 3, 3).astype(int)[:, None]).astype(np.int64)
    try:
        theirs = _transformers_logits(path, tokens, mask, targets)
    except ImportError as error:
        return Comparison(LIBRARY, None, TOLERANCE, f"{error.name} is not installed")
    with on_cpu():
        ours = np.asarray(jax.jit(model.apply)({"params": params}, tokens, mask, targets, np.ones_like(targets)))
    difference = float(np.max(np.abs(theirs - ours)) / max(1.0, np.max(np.abs(ours))))
    comparison = Comparison(f"{LIBRARY} on {path}", difference, TOLERANCE)
    if not difference <= TOLERANCE:  # also if NaN
        raise RunFailed(f"{comparison}; nothing is written: this is a bug, or a version of {LIBRARY} that is not "
                        "supported")
    return comparison


def _transformers_logits(path: pathlib.Path, tokens: np.ndarray, mask: np.ndarray, targets: np.ndarray) -> np.ndarray:
    import torch
    import transformers

    with quiet():
        model = transformers.EncoderDecoderModel.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        outputs = model(input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask),
                        decoder_input_ids=torch.from_numpy(targets))
    return outputs.logits.numpy()
