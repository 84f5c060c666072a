"""Files are damaged: a run falls back a checkpoint and ends the same, and nothing else is silently wrong.

`tests/checkpoints` damages every file of a checkpoint in every way, and `tests/corpus` those of a corpus.
"""
import collections
import dataclasses
import itertools
import os
import pathlib
import shutil
import tarfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import spanbert_jax
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.manifest import README_FILE
from spanbert_jax.finetuning.feature_cache import cached_features
from spanbert_jax.inference import executors
from spanbert_jax.inference.files import predict_files
from spanbert_jax.inference.model_folder import load_model
from spanbert_jax.interop import load_tokenizer
from spanbert_jax.tasks import make_task
from tests.damage import flip_bit
from tests.inference.conftest import save_random_model
from tests.runs import assert_same_run, run_here
from tests.tasks.small import MAKERS, write
from tests.tasks.test_packing import make_features


def flip_a_bit(path: pathlib.Path) -> None:
    flip_bit(path, 4 * path.stat().st_size + 3)


def truncate(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


@pytest.mark.parametrize("damage,file", [
    (flip_a_bit, "state/d/*"), (truncate, "state/ocdbt.process_0/manifest.ocdbt"), (os.unlink, "about/metadata")],
                         ids=["flip_a_bit", "truncate", "unlink"])
def test_a_damaged_checkpoint_is_quarantined_and_the_run_ends_the_same(files, unbroken, tmp_path, damage, file):
    workdir = tmp_path / "run"
    shutil.copytree(unbroken, workdir)
    path = max((workdir / "checkpoints/20").glob(file), key=lambda path: path.stat().st_size)
    damage(path)
    output = run_here(files, workdir)
    assert_same_run(workdir, unbroken)
    assert (workdir / "checkpoints" / "20.unsound").is_dir()
    reason = (workdir / "checkpoints" / "20.unsound.txt").read_text().strip()
    assert reason.startswith(path.relative_to(workdir / "checkpoints/20").as_posix()) and reason in output


class Killed(BaseException):
    """Simulates the end of the process."""


def flatten(value) -> list:
    """The leaves of a tree with their names, for comparison."""
    return [(jax.tree_util.keystr(path), np.asarray(leaf).tobytes())
            for path, leaf in jax.tree_util.tree_leaves_with_path(value)]


@dataclasses.dataclass(frozen=True)
class Artefact:
    """What is written once and trusted later."""
    folder: pathlib.Path  # its files
    use: Callable[[], Any]  # what a user gets from it
    is_cache: bool = False  # whether it is made again instead of an error


@pytest.fixture
def artefacts(start, tmp_path, monkeypatch):
    """One of each kind, of a small random model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(executors._SIZES, "cpu", (128, 16))
    data = write(tmp_path / "data.jsonl", MAKERS["text_classification"](40))
    task = make_task("text_classification", {"length": 32})
    task = task.fit(list(task.read(data, DataIssues())), load_tokenizer(start))
    save_random_model(tmp_path / "model", start, "text_classification", task)
    spanbert_jax.save_pretrained(*spanbert_jax.from_pretrained(start), tmp_path / "export", load_tokenizer(start))
    with tarfile.open(tmp_path / "archive.tar", "w") as archive:
        archive.add(tmp_path / "export", "export")
    issues, features = DataIssues(), make_features([5, 9])

    def load(path) -> list:
        return [*flatten(spanbert_jax.from_pretrained(path)[1]), load_tokenizer(path).to_str()]

    def load_fine_tuned() -> list:
        fine_tuned = load_model(tmp_path / "model")
        return [fine_tuned.stored.to_json(), fine_tuned.tokenizer.to_str(), *flatten(fine_tuned.params)]

    def load_features() -> list:
        found = cached_features(tmp_path / "features", "key", type(task), issues, lambda issues: features)
        return flatten([vars(found)[name] for name in ("starts", "tokens", "token_types", "columns", "token_columns")])

    def kill(count):
        if count == 32:
            raise Killed

    def predict() -> bytes:
        """Predicts to the end from what is there, and returns to 32 examples for the next time."""
        output = tmp_path / "predictions" / "out.jsonl"
        predict_files(tmp_path / "model", data, output)
        found = output.read_bytes()
        shutil.rmtree(output.parent)
        with pytest.raises(Killed):
            predict_files(tmp_path / "model", data, output, on_examples=kill)
        return found

    load(tmp_path / "archive.tar"), load_features()
    unpacked, = (tmp_path / "cache/spanbert_jax/archives").iterdir()
    entry, = (tmp_path / "features").iterdir()
    return {"model": Artefact(tmp_path / "model", load_fine_tuned),
            "export": Artefact(tmp_path / "export", lambda: load(tmp_path / "export")),
            "archive": Artefact(unpacked, lambda: load(tmp_path / "archive.tar"), is_cache=True),
            "features": Artefact(entry, load_features, is_cache=True),
            "predictions": Artefact(tmp_path / "predictions", predict, is_cache=True)}


def test_no_flipped_bit_is_silently_wrong(artefacts, sweep, one_device):
    """What a flipped bit leaves is the same result or an error that names the file."""
    random, outcomes = np.random.default_rng(sweep), collections.Counter()
    expected = {kind: artefact.use() for kind, artefact in artefacts.items()}
    for kind in itertools.islice(itertools.cycle(artefacts), sweep or 3 * len(artefacts)):
        artefact = artefacts[kind]
        path = random.choice(sorted(path for path in artefact.folder.rglob("*") if path.stat().st_size))
        bit = int(random.integers(8 * path.stat().st_size))
        flip_bit(path, bit)
        try:
            found = artefact.use()
        except UserError as error:
            assert not artefact.is_cache and "\n" not in str(error), (path, bit, str(error))
            assert f"{artefact.folder}: {path.relative_to(artefact.folder)}: contents differ" in str(error)
            assert [result["unsound"] for result in spanbert_jax.verify(artefact.folder)] == [
                f"{path.relative_to(artefact.folder)}: contents differ"]
            flip_bit(path, bit)
            outcomes["named"] += 1
        else:
            assert found == expected[kind], (path, bit)
            assert artefact.is_cache or path.name == README_FILE, (path, bit)
            outcomes["as before"] += 1
    assert outcomes["named"]
