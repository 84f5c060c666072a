"""Tasks, examples, files and batches for the tests of text classification."""
import json

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import add_rows
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.text_classification import Text
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer

UNKNOWN = "examples of classes without training examples, left out of the loss and counted as wrong"


def make(fitted=None, **settings):
    return make_task("text_classification", {"length": 64, **settings}, fitted)


def text(id, label=None, first="a", second=None):
    return Text(id, f"file:{id}", id, first, second, label)


def read(path, content, with_labels=True, **settings):
    """Examples of a file with given content, and the issues."""
    issues = DataIssues()
    path.write_text(content, encoding="utf-8", newline="")
    return list(make(**settings).read(str(path), issues, with_labels)), issues


def json_lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def letter_tokenizer(folder):
    """A tokenizer in whose vocabulary each letter is a word."""
    file = folder / "vocab.txt"
    file.write_text("".join(f"{piece}\n" for piece in [*SPECIAL_TOKENS, *"abcdefghijklmnopqrst"]))
    return load_tokenizer(file)


def packed(labels, seed=0):
    """Logits and targets of 3 rows of 4 texts at most, some of them missing and some of unknown class."""
    random = np.random.default_rng(seed)
    weights = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.float32)
    known = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 1]], np.float32)
    logits = random.normal(0, 3, (3, 4, labels)).astype(np.float32)
    return logits, random.integers(0, labels, (3, 4)).astype(np.int32) * known.astype(np.int32), weights, known


def term(task, logits, labels, weights, known):
    batch = {"label": labels, "weights": weights, "weight": known, "first": np.zeros((3, 4), np.int32),
             "segments": np.zeros((3, 9), np.int32)}
    return jax.jit(lambda logits, batch: add_rows(task.loss(Outputs(jnp.zeros((3, 9, 2)), logits=logits), batch)))(
        logits, batch)
