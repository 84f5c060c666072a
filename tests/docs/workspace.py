"""A folder in which the commands and snippets of the pages run: small inputs, and settings with which a run takes
seconds."""
from __future__ import annotations

import json
import pathlib
import pydoc_data.topics
import shutil

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.coreference import parse_coreference, to_conll
from tests.runs import ROOT
from tests.tasks.small import make_start, questions, stories, texts

# Settings of a pretraining run of seconds.
PRETRAIN = tuple(f"--config.{field}" for field in (
    "model.num_layers=2", "model.width=32", "model.num_heads=2", "model.feed_forward=64", "model.max_positions=64",
    "model.dropout=0", "model.attention_dropout=0", "compute.dtype=float32", "compute.layers=scanned",
    "schedule.warmup=1 steps", "train.duration=3 steps", "train.batch_size=8", "train.log_every=1",
    "evaluation.every=3 steps", "evaluation.batch_size=8", "evaluation.max_rows=8", "checkpoint.every=3 steps"))
# The same for a task; the model's shape is that of the weights.
FINETUNE = tuple(f"--config.{field}" for field in (
    "model.dropout=0", "model.attention_dropout=0", "compute.dtype=float32", "compute.layers=scanned",
    "schedule.warmup=1 steps", "train.duration=3 steps", "train.batch_size=8", "train.log_every=1",
    "evaluation.every=3 steps", "evaluation.batch_size=8", "checkpoint.every=3 steps", "task.length=64"))
QUESTIONS = (*FINETUNE, "--config.task.stride=8", "--config.task.question_length=16")
COREFERENCE = (*FINETUNE, "--config.task.ffnn_size=8")
PREPARE = {"30000": "400", "extra": ("--length=64", "--validation-fraction=0.2", "--workers=1")}


def make_workspace(folder: pathlib.Path) -> None:
    """Fills a folder with the inputs that the pages name."""
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "texts").mkdir()
    for name, text in list(pydoc_data.topics.topics.items())[:10]:
        (folder / "texts" / f"{name}.txt").write_text(text, encoding="utf-8")
    start = pathlib.Path(make_start(folder / "released"))
    shutil.make_archive(str(folder / "spanbert_hf_base"), "gztar", start)
    shutil.copy(folder / "released" / "vocab.txt", folder / "bert-base-cased-vocab.txt")
    for name in ("train-v1.1.json", "dev-v1.1.json", "questions.json"):
        (folder / name).write_text(json.dumps(_squad(questions(16, seed=len(name)))), encoding="utf-8")
    for name in ("train", "dev"):
        documents = (parse_coreference(story, f"{name}:{number}", DataIssues(), with_labels=True)
                     for number, story in enumerate(stories(8, seed=len(name))))
        (folder / f"{name}.conll").write_text("".join(to_conll(document, document.chains) for document in documents))
    (folder / "novel.txt").write_text(" ".join(text["text"] for text in texts(20)))
    (folder / "reviews").mkdir()
    for name in ("train", "new"):
        lines = [f'"{text["text"]}",{text["label"]}' for text in texts(32)]
        (folder / "reviews" / f"{name}.csv").write_text("\n".join(["text,label", *lines, ""]), encoding="utf-8")


def _squad(records: list[dict]) -> dict:
    """Questions in SQuAD's layout."""
    return {"version": "1.1", "data": [
        {"title": record["title"], "paragraphs": [{"context": record["context"], "qas": [
            {"id": record["id"], "question": record["question"],
             "answers": [{"text": text, "answer_start": start} for text, start in
                         zip(record["answers"]["text"], record["answers"]["answer_start"])]}]}]}
        for record in records]}
