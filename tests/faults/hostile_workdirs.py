"""Generates hostile workdirs and JSON files of runs and corpora, as `tests.faults.hostile_weights` does models."""
import functools
import json
import os
import pathlib
import random
import shutil
import tempfile
from collections.abc import Callable

import jax.numpy as jnp

import spanbert_jax
from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.checkpoints.folder import FOLDER, METADATA, manifest_path
from spanbert_jax.checkpoints.manifest import write_manifest
from spanbert_jax.cluster.lock import lock_workdir
from spanbert_jax.commands.checkpoints import list_checkpoints
from spanbert_jax.corpus.corpus import open_corpus
from spanbert_jax.inference.model_folder import load_model
from spanbert_jax.training.config import load_values
from spanbert_jax.training.goodput import read_record
from spanbert_jax.training.trackers import read_metrics

Use = Callable[[], object]
TASK = {"task": "text_classification", "settings": {"length": 16}, "fitted": {"labels": ["a", "b"]}, "plugins": [],
        "run": {"step": 3}}
RUN = {"train": {"duration": "3 steps"}, "data": {"path": "x"}, "plugins": [], "init_from": "", "model": {}}
GOODPUT = {"restarts": 1, "finished": None, "saved": {"3": {"at": 1.5, "seconds": {"steps": 3.0}}}}
REPORT = {"format_version": 2, "contents": {}, "settings": {"blocks": "sentences"}, "special_ids": {"pad": 0},
          "num_rows": {"train": 1}, "length": 64, "vocab_size": 20, "max_blocks": 1, "seal": "x"}
METRICS = {"step": 3, "kind": "train", "loss": 1.5}
SAVED = {"config": RUN, "corpus": {"seal": "x"}, "network": {"vocab_size": 20, "width": 8, "heads": {}},
         "fingerprint": {"step": [1, 2]}}
LOCK = {"host": "x", "machine": "y", "pid": 3, "since": "z"}
ODD = (None, True, -1, 0, 2**63, 1e308, float("nan"), "", "x" * 100_000, "\x1b[2J\n", "../../etc/passwd", [], {}, [[]],
       [None], {"": {}}, {"a": []}, ["\u202e"], 10**19)


def odd_json(value: object, chance: random.Random) -> bytes:
    """A JSON text with an odd value at any place in it, or of an odd kind."""
    kind = chance.randrange(10)
    if kind == 0:
        return chance.choice((b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe{}", b"\x00" * 1000,
                              b"[" * 10**6, b'{"a":' * 10**5, b"9" * 10**6, b"[" + b"{}," * 3_000_000 + b"{}]",
                              b'{"a": "' + b"x" * (70 << 20) + b'"}'))
    holder = changed = json.loads(json.dumps(value))
    while True:
        key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if not (isinstance(holder[key], (dict, list)) and holder[key] and chance.random() < 0.7):
            break
        holder = holder[key]
    if kind == 1 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = chance.choice(ODD)
    return json.dumps(changed).encode()


def run_json(folder: pathlib.Path, chance: random.Random) -> Use:
    """A JSON file of a run or a corpus."""
    name, value, use = chance.choice((
        ("config.json", RUN, lambda: load_values(folder)), ("report.json", REPORT, lambda: open_corpus(folder)),
        ("goodput.json", GOODPUT, lambda: read_record(folder, lambda line: None)),
        ("metrics.jsonl", METRICS, lambda: read_metrics(folder))))
    (folder / name).write_bytes(odd_json(value, chance))
    return use


def lock_files(folder: pathlib.Path, chance: random.Random) -> Use:
    """The lock of another machine, which is watched for a moment."""
    (folder / ".lock").write_bytes(odd_json(LOCK, chance))
    return lambda: _lock(folder)


def _lock(folder: pathlib.Path) -> None:
    with lock_workdir(folder, log=lambda line: None, watch_seconds=0.1):
        pass


@functools.cache
def _step() -> pathlib.Path:
    """The checkpoints of a run with one small step."""
    folder = pathlib.Path(tempfile.mkdtemp())
    with Checkpointer(folder) as checkpointer:
        checkpointer.save(3, {"params": {"a": jnp.zeros(3)}}, SAVED)
        checkpointer.wait()
    return folder / FOLDER


def workdirs(folder: pathlib.Path, chance: random.Random) -> Use:
    """A whole workdir, sealed by its manifest, with some files that are odd, links, directories, pipes or missing."""
    steps, values = folder / FOLDER, {
        "config.json": RUN, "task.json": TASK, "goodput.json": GOODPUT, "metrics.jsonl": METRICS, ".lock": LOCK,
        "model/task.json": TASK, "report.json": REPORT, f"{FOLDER}/3/{METADATA}/metadata": SAVED}
    (folder / "model").mkdir()
    shutil.copytree(_step(), steps)
    for name in values:
        (folder / name).write_bytes(json.dumps(values[name]).encode())
    for name in chance.sample(list(values), chance.choice((1, 1, 3))):
        kind, file = chance.randrange(12), folder / name
        if kind > 4:
            file.write_bytes(odd_json(values[name], chance))
            continue
        file.unlink()
        make = (lambda: file.mkdir(), lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero"),
                lambda: file.symlink_to(file), lambda: None)
        make[kind]()
    if chance.random() < 0.7:
        write_manifest(manifest_path(steps, 3), steps / "3", 3, 1, 0)
    else:
        manifest = manifest_path(steps, 3)
        manifest.write_bytes(odd_json(json.loads(manifest.read_text()), chance))
    return chance.choice((
        lambda: spanbert_jax.from_pretrained(folder), lambda: load_model(folder), lambda: spanbert_jax.verify(folder),
        lambda: list_checkpoints(folder, verify=True), lambda: load_values(folder), lambda: read_metrics(folder),
        lambda: read_record(folder, lambda line: None), lambda: _lock(folder)))
