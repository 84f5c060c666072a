"""Whole runs of the commands: training, resuming, evaluation, and errors."""
import itertools
import json
import re
import shutil

import jax
import numpy as np
import pytest

import spanbert_jax
from spanbert_jax.cluster.lock import lock_workdir
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import from_dict
from spanbert_jax.corpus import RowSource, open_corpus
from spanbert_jax.pretraining.config import PretrainingConfig
from spanbert_jax.pretraining.evaluation import describe_masked_rows, format_metrics
from spanbert_jax.pretraining.example import fill_example
from spanbert_jax.pretraining.workload import PretrainingWorkload
from spanbert_jax.training.config import load_values
from tests.runs import evaluations, losses, run_here

SHORT = ("--config.train.duration=12 steps", "--config.evaluation.every=6 steps", "--config.checkpoint.every=5 steps",
         "--config.checkpoint.keep=1", "--config.checkpoint.keep_every=10 steps")


def steps_in(workdir) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def written(workdir) -> dict:
    """The modification time of each file, except the lock, which every run writes."""
    return {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.fixture(scope="module")
def unbroken(files, tmp_path_factory):
    """A finished run and its output."""
    workdir = tmp_path_factory.mktemp("unbroken")
    return workdir, run_here(files, workdir, *SHORT)


def test_a_run_writes_metrics_checkpoints_and_config(unbroken):
    workdir, output = unbroken
    assert list(losses(workdir)) == list(range(1, 13))
    assert [line["step"] for line in evaluations(workdir)] == [6, 12]
    kinds = [json.loads(line)["kind"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert kinds == [*["train"] * 6, "evaluation", *["train"] * 6, "evaluation", "goodput"]
    assert steps_in(workdir) == [10, 12]  # every tenth, and the newest
    assert json.loads((workdir / "config.json").read_text())["train"]["batch_size"] == 8
    assert (workdir / "tokenizer.json").exists() and list((workdir / "tensorboard").iterdir())
    assert "encoder/layers/attention/query/kernel" in output
    assert f"{evaluations(workdir)[-1]['unigram_loss']:.3f}" in output
    assert "spanbert-jax evaluate --workdir" in output
    assert re.search(r"Loss in training:\n *\d+\.\d\d \|[ *]*\*\n", output)


def test_a_word_of_a_held_out_text_is_filled_before_and_after_training(unbroken):
    title, text, *fillings = fill_example(from_dict(PretrainingConfig, load_values(unbroken[0])), unbroken[0])
    assert "not seen" in title and re.search(r" \[\w+\] ", text)
    assert [(line[2:17].strip(), line[19:36].strip()) for line in fillings] == list(itertools.product(
        ("before training", "after training"), ("masked-token head", "boundary head", "both heads")))
    assert all(len(re.findall(r"\(\d+\.\d%\)", line)) == 3 for line in fillings)
    assert not {line[36:] for line in fillings[:3]} & {line[36:] for line in fillings[3:]}


def test_a_run_resumed_elsewhere_prints_changes_and_is_evaluated_anywhere(files, unbroken, tmp_path):
    run_here(files, tmp_path, *SHORT, "--config.train.duration=5 steps")
    output = run_here(files, tmp_path, *SHORT, "--config.mesh.fsdp=2", "--config.mesh.zero1=True", "--verbose",
                      devices=4)
    assert "encoder/layers/attention/query/kernel" in output
    assert "Resuming from the checkpoint of step 5" in output
    assert "Changed since then: config.mesh.fsdp: 1 -> 2\n" in output
    assert "Changed since then: config.mesh.zero1: False -> True\n" in output
    assert "Changed since then: config.train.duration: '5 steps' -> '12 steps'\n" in output
    got, expected = losses(tmp_path), losses(unbroken[0])
    assert [got[step] for step in range(1, 6)] == [expected[step] for step in range(1, 6)]
    for step in range(6, 13):
        np.testing.assert_allclose(got[step], expected[step], rtol=1e-5)
    assert json.loads(run_here(files, tmp_path, "--json", command="evaluate").splitlines()[-1])["step"] == 12


def test_a_finished_run_is_not_changed(files, unbroken):
    before = (unbroken[0] / "metrics.jsonl").read_bytes()
    output = run_here(files, unbroken[0], *SHORT)
    assert (unbroken[0] / "metrics.jsonl").read_bytes() == before
    assert "How good" in output and "encoder/layers/attention/query/kernel" not in output


def test_evaluate_agrees_with_training_for_any_batch_size(files, unbroken):
    workdir = unbroken[0]
    metrics = json.loads(run_here(files, workdir, "--json", command="evaluate").splitlines()[-1])
    assert metrics["step"] == 12
    in_flight = workdir / "checkpoints" / "13.saving"
    in_flight.mkdir()
    with_all = spanbert_jax.evaluate(workdir)  # on eight devices, not one
    in_flight.rmdir()  # the save of a running trainer is still there
    for name in ("masked_loss", "boundary_loss", "unigram_loss", "masked_accuracy"):
        assert metrics[name] == pytest.approx(with_all[name], rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["masked_loss"]))
    earlier = spanbert_jax.evaluate(workdir, step=10)
    assert earlier["masked_loss"] != metrics["masked_loss"] and earlier["unigram_loss"] == with_all["unigram_loss"]


def test_a_run_is_evaluated_under_the_masking_of_another(files, unbroken):
    own = spanbert_jax.evaluate(unbroken[0])
    same = spanbert_jax.evaluate(unbroken[0], settings={"masking.scheme": "geometric"})
    assert same == own and own["boundary_targets"] > 0
    rows = len(RowSource(open_corpus(files.corpus), "validation"))
    assert describe_masked_rows(own).startswith(f"{rows:,} held-out rows, masking scheme=geometric, rate=0.15")
    other = spanbert_jax.evaluate(unbroken[0], settings={"masking.scheme": "token"})
    assert ", masking scheme=token, rate=0.15" in describe_masked_rows(other)
    assert other["masked_tokens"] == own["masked_tokens"] and other["masked_loss"] != own["masked_loss"]
    assert "boundary_loss" not in other and "boundary" not in format_metrics(other)  # single tokens have no boundaries
    assert sum(own["tokens_by_length"]) == sum(own["tokens_by_place"]) == own["masked_tokens"]
    assert "loss_by_position" not in own  # rows of 64 tokens
    twice = spanbert_jax.evaluate(unbroken[0], settings={"evaluation.masks": 2})
    assert f"{rows:,} held-out rows with 2 masks each, masking scheme" in describe_masked_rows(twice)
    assert twice["masked_tokens"] == pytest.approx(2 * own["masked_tokens"], rel=0.01)
    assert own["unigram_loss"] != twice["unigram_loss"] == pytest.approx(own["unigram_loss"], rel=0.05)
    for field, value, message in (("masking.max_span_positions", 3, "of a pretraining run masking.scheme, "),
                                  ("evaluation.max_rows", 3, "of a pretraining run masking.scheme, "),
                                  ("evaluation.masks", 0, "config.evaluation.masks=0: must be at least 1"),
                                  ("masking.scheme", "words", "allowed are"), ("masking.rate", "x", "of type float")):
        with pytest.raises(UserError, match=message):
            spanbert_jax.evaluate(unbroken[0], settings={field: value})


def test_an_evaluation_without_enough_memory_names_the_batch_size(unbroken, monkeypatch):
    def evaluate(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(PretrainingWorkload, "evaluate", evaluate)
    with pytest.raises(UserError, match="batch_size=3: the device ran out of memory .*give a smaller batch size"):
        spanbert_jax.evaluate(unbroken[0], batch_size=3)


def test_evaluate_reports_what_is_missing(files, unbroken, tmp_path):
    with pytest.raises(UserError, match="no run here"):
        spanbert_jax.evaluate(tmp_path)
    with pytest.raises(UserError, match="step 11"):
        spanbert_jax.evaluate(unbroken[0], step=11)


def test_plugins_of_the_config_are_imported_for_training_and_evaluation(files, tmp_path):
    config = spanbert_jax.load_config(str(files.folder / "config.py"), [f"--config.data.path={files.corpus}"])
    config.plugins = ("no_such_plugin",)
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    for function in (lambda: spanbert_jax.train(config, tmp_path), lambda: spanbert_jax.evaluate(tmp_path)):
        with pytest.raises(UserError, match="config.plugins: module 'no_such_plugin' cannot be imported"):
            function()


def test_evaluate_does_not_change_a_corrupt_checkpoint(files, unbroken, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(unbroken[0], workdir)
    (workdir / "checkpoints" / "12" / "state" / "_METADATA").unlink()
    before = sorted(workdir.rglob("*"))
    assert spanbert_jax.evaluate(workdir)["step"] == 10
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.parametrize("changes,message", [
    (["--config.model.size=mini"], "checkpoint of step 12: .* config.model.size: 'tiny' -> 'mini'; .*--force"),
    (["--config.model.size=mini", "--force"], "checkpoint of step 12: "),
    (["--config.seed=3", "--config.train.batch_size=16"], "config.seed: 0 -> 3; config.train.batch_size: 8 -> 16"),
    (["--config.schedule.name=linear", "--config.train.duration=30 steps"], "config.train.duration"),
    (["--config.masking.scheme=annotated", "--force"], "prepared without annotations")])
def test_changes_that_make_it_another_run_are_refused(files, unbroken, changes, message):
    workdir = unbroken[0]
    before = written(workdir)
    output = run_here(files, workdir, *SHORT, *changes, "--verbose", status=2)
    assert "encoder/layers/attention/query/kernel" not in output
    assert re.search(message, output.strip().splitlines()[-1])
    assert written(workdir) == before


def test_a_corpus_of_another_tokenizer_is_refused_even_if_forced(files, unbroken, tmp_path):
    spanbert_jax.prepare(str(files.folder / "texts" / "a*.txt"), tmp_path / "corpus", vocab_size=600, length=64,
                         workers=1, progress=False)
    output = run_here(files, unbroken[0], *SHORT, f"--config.data.path={tmp_path / 'corpus'}", "--force", status=2)
    assert "trained with another tokenizer" in output.strip().splitlines()[-1]


def test_a_corpus_of_another_length_is_refused(files, unbroken, tmp_path):
    spanbert_jax.prepare(str(files.folder / "texts"), tmp_path / "corpus", tokenizer=files.corpus / "tokenizer.json",
                         length=48, validation_fraction=0.1, workers=1, progress=False)
    output = run_here(files, unbroken[0], *SHORT, f"--config.data.path={tmp_path / 'corpus'}", status=2)
    assert "corpus.length: 64 -> 48" in output.strip().splitlines()[-1]


def test_a_run_without_its_checkpoints_starts_again_and_prints_it(files, unbroken, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(unbroken[0], workdir)
    shutil.rmtree(workdir / "checkpoints")
    before = (workdir / "metrics.jsonl").read_bytes()
    assert f"No checkpoint in {workdir}: starting at step 0" in run_here(files, workdir, *SHORT)
    assert (workdir / "metrics.old.jsonl").read_bytes() == before
    assert losses(workdir) == losses(unbroken[0])


def test_two_runs_cannot_use_one_workdir_at_the_same_time(files, tmp_path):
    with lock_workdir(tmp_path):
        assert "another run is using it" in run_here(files, tmp_path, status=2)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoints(files, unbroken, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(unbroken[0], workdir)
    output = run_here(files, workdir, *SHORT, "--config.train.duration=60 steps", "--force",
                      "--config.optimizer.learning_rate=1e30", status=1)
    last = output.strip().splitlines()[-1]
    assert "not finite" in last and "gradient norm" in last and "rows with the highest loss, of 8: " in last
    assert "lower config.optimizer.learning_rate" in last and "config.skip.stop_after" in last
    assert steps_in(workdir) == [10, 12]


def test_bad_updates_are_skipped_up_to_a_limit_and_a_resumed_run_skips_the_same(files, tmp_path):
    # So few deviations that many ordinary updates count as bad.
    settings = ["--config.train.duration=60 steps", "--config.skip.stop_after=3", "--config.skip.deviations=0.1",
                "--config.evaluation.every=0", "--config.checkpoint.every=0"]
    output = run_here(files, tmp_path / "unbroken", *settings, status=1)
    assert "3 bad updates in a row" in output.strip().splitlines()[-1]
    whole = losses(tmp_path / "unbroken")
    skipped = [line for line in output.splitlines() if "update skipped" in line]
    run_here(files, tmp_path / "broken", *settings, f"--config.train.duration={max(whole) - 3} steps")
    again = run_here(files, tmp_path / "broken", *settings, status=1)
    assert [line for line in again.splitlines() if "update skipped" in line] == skipped[-3:]
    assert losses(tmp_path / "broken") == whole
