"""Fine-tuning of small models: they learn, the best one is kept, stops and devices change nothing."""
import collections
import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

import spanbert_jax
from spanbert_jax.commands.main import main
from spanbert_jax.common.errors import RunFailed, UserError
from spanbert_jax.common.manifest import MANIFEST_FILE
from spanbert_jax.finetuning.config import as_finetuning_config, default_task_config
from spanbert_jax.finetuning.run import build, finetune
from spanbert_jax.inference.model_folder import load_model
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import EncoderModel, EncoderOnly
from spanbert_jax.model.architectures.modernbert import ModernBertConfig
from spanbert_jax.pretraining.config import as_pretraining_config, default_config
from spanbert_jax.pretraining.run import train
from spanbert_jax.tasks.text_classification import TextClassification
from spanbert_jax.text import load_tokenizer
from spanbert_jax.training.config import save_config
from spanbert_jax.training.init_from import with_architecture
from spanbert_jax.training.loop import TrainingLoop
from spanbert_jax.training.trackers import read_metrics
from tests.interop.networks import random_params
from tests.runs import visible_devices
from tests.tasks.small import MAKERS, small_config, write

pytestmark = pytest.mark.usefixtures("one_device")


def config_of(name, start, folder, count=160, **settings):
    train, dev = (write(folder / f"{part}.jsonl", MAKERS[name](count if part == "train" else 40, seed))
                  for seed, part in enumerate(("train", "dev")))
    return small_config(name, start, train, **{"dev": dev, **settings})


@pytest.mark.parametrize("name,duration,least", [
    ("text_classification", 100, 90), ("question_answering", 150, 80), ("relation_extraction", 200, 80),
    ("token_classification", 150, 90), ("extractive_summarization", 100, 90),
    ("coreference", 200, 50)])
def test_each_task_learns_and_writes_its_files(name, duration, least, start, tmp_path):
    config = config_of(name, start, tmp_path, count=400)
    config.train.duration = f"{duration} steps"
    config.evaluation.every = "50 percent"
    config.evaluation.batch_size = config.train.batch_size = 32
    result = finetune(config, tmp_path / "run")
    assert result.finished and result.step == duration
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    fine_tuned = load_model(tmp_path / "run")
    assert results["dev"][fine_tuned.task.metric] >= least
    # The best of the evaluations, and the predictions that it gave.
    evaluations = {line["step"]: line for line in read_metrics(tmp_path / "run") if line["kind"] == "evaluation"}
    assert results["dev"][fine_tuned.task.metric] == max(line[fine_tuned.task.metric] for line in evaluations.values())
    lines = (tmp_path / "run" / "predictions" / "dev" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 40 and all("id" in json.loads(line) for line in lines)


def test_the_best_checkpoint_by_the_dev_metric_is_used(start, tmp_path, capsys):
    config = config_of("text_classification", start, tmp_path)
    config.schedule.name, config.optimizer.learning_rate = "constant", 3e-2  # jumps about
    config.train.duration, config.evaluation.every = "40 steps", "5 steps"
    finetune(config, tmp_path / "run")
    lines = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "evaluation"]
    scores, losses = ({line["step"]: line[name] for line in lines} for name in ("accuracy", "loss"))
    best = max(scores, key=lambda step: (scores[step], -step))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert best < 40 and results["step"] == best and results["dev"]["examples"] == 40
    # The loss is that of the stored probabilities, and was measured at that step.
    stored, records = ([json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
                       for name in ("run/predictions/dev/predictions.jsonl", "dev.jsonl"))
    loss = -np.mean([np.log(prediction["scores"][record["label"]]) for prediction, record in zip(stored, records)])
    assert results["dev"]["loss"] == pytest.approx(loss, rel=1e-4)
    assert losses[best] == pytest.approx(loss, rel=1e-4)
    # Scores of each class without the files.
    counts = collections.Counter(record["label"] for record in records)
    assert {name: values["count"] for name, values in results["dev"]["classes"]["scores"].items()} == counts
    capsys.readouterr()
    assert main(["evaluate", "--workdir", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert f"dev, step {best}:" in printed and "Scores by class" in printed and "Confusion of examples" in printed
    assert all(re.search(rf"{name}\W+{count}\W", printed) for name, count in counts.items())
    assert "classes" not in json.loads((tmp_path / "run" / "model" / "task.json").read_text())["run"]["scores"]["dev"]
    assert {int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.is_dir()} == {best, 40}


def weights(workdir):
    return jax.tree.leaves(load_model(workdir).params)


@pytest.mark.parametrize(("name", "settings"), [
    ("text_classification", {}), ("coreference", {}), ("coreference", {"pair_categories": True})])
def test_a_stopped_run_continues_to_the_same_result(name, settings, start, tmp_path, monkeypatch):
    config = config_of(name, start, tmp_path, **settings)
    config.model.dropout, config.train.duration = 0.1, "12 steps"
    config.evaluation.every = config.checkpoint.every = "5 steps"
    finetune(config, tmp_path / "whole")

    def ends(loop):
        loop.stopping = loop.step == 7
        return loop.stopping

    monkeypatch.setattr(TrainingLoop, "_ends", ends)
    result = finetune(config, tmp_path / "run")
    assert not result.finished and result.step == 7 and not (tmp_path / "run" / "results.json").exists()
    monkeypatch.undo()
    assert finetune(config, tmp_path / "run").finished
    for ours, theirs in zip(weights(tmp_path / "run"), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # A finished run says its results again and alters nothing.
    before = (tmp_path / "run" / "results.json").read_text()
    assert finetune(config, tmp_path / "run").finished and (tmp_path / "run" / "results.json").read_text() == before


def test_devices_change_nothing_but_rounding(start, tmp_path):
    losses = {}
    for devices, split in ((1, 1), (8, 2)):
        config = config_of("question_answering", start, tmp_path, dev="")
        config.train.batch_size, config.train.duration = 64, "8 steps"
        config.mesh.update(dict(fsdp=split, tensor=split))
        with visible_devices(devices):
            result = finetune(config, tmp_path / f"run{devices}")
        losses[devices] = [line["loss"] for line in read_metrics(result.workdir) if line["kind"] == "train"]
    assert len(losses[8]) == 8
    np.testing.assert_allclose(losses[8], losses[1], rtol=2e-4)


def test_a_step_has_as_many_examples_as_configured(start, tmp_path):
    config = config_of("text_classification", start, tmp_path, count=400)
    config.train.batch_size, config.train.duration = 64, "2 epochs"
    with visible_devices(8):
        experiment = build(with_architecture(as_finetuning_config(config), tmp_path, keep_positions=True), tmp_path)
    learning = experiment.workload
    rows = learning.dataset.rows["train"]
    assert rows.filled >= 0.9
    examples = learning.rows_per_step * 400 / len(rows)
    assert abs(examples - 64) <= 0.5 * 400 / len(rows)
    assert (learning.rows_per_step + learning.padding_rows) % 8 == 0
    assert experiment.size.total_steps == round(2 * 400 / examples)
    # A row is described by the places of its examples.
    places = learning.describe_row(3).split(", ")
    lines, row = (tmp_path / "train.jsonl").read_text().splitlines(), rows.rows(np.array([3]))
    text = learning.dataset.tokenizer.decode(row["tokens"][0].tolist()).replace(" ", "")
    for place in places:
        assert json.loads(lines[int(place.rpartition(":")[2]) - 1])["text"].replace(" ", "") in text
    assert len(places) == row["weights"].sum() > 1


def test_ids_outside_the_embedding_are_reported_before_training(start, tmp_path, monkeypatch):
    features = TextClassification.features

    def shifted(*args):
        made = features(*args)
        return dataclasses.replace(made, tokens=made.tokens + 1000)

    monkeypatch.setattr(TextClassification, "features", shifted)
    config = as_finetuning_config(config_of("text_classification", start, tmp_path))
    with pytest.raises(UserError, match=r"token id 1\d\d\d: the model's embedding has \d+ rows"):
        build(with_architecture(config, tmp_path, keep_positions=True), tmp_path)


def test_a_tokenizer_of_a_failed_run_is_not_reused(start, tmp_path):
    config = config_of("text_classification", start, tmp_path, dev="")
    config.optimizer.learning_rate, config.train.duration = 1e35, "3 steps"
    with pytest.raises(RunFailed):
        finetune(config, tmp_path / "run")
    other = tmp_path / "other"
    shutil.copytree(start, other)
    (other / MANIFEST_FILE).unlink()
    (other / "tokenizer.json").unlink()
    lines = (other / "vocab.txt").read_text().splitlines()
    lines[5], lines[6] = lines[6], lines[5]  # "red" and "blue"
    (other / "vocab.txt").write_text("\n".join(lines) + "\n")
    config.optimizer.learning_rate, config.init_from = 1e-3, str(other)
    finetune(config, tmp_path / "run")
    assert load_model(tmp_path / "run").tokenizer.token_to_id("red") == 6


def test_weights_without_a_tokenizer_use_the_configured_one(start, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(pathlib.Path(start, name), bare)
    config = config_of("text_classification", str(bare), tmp_path, dev="")
    config.train.duration = "1 steps"
    with pytest.raises(UserError, match="neither tokenizer.json nor vocab.txt"):
        finetune(config, tmp_path / "run")
    config.task.tokenizer = start
    assert finetune(config, tmp_path / "run").finished


def test_unknown_task_fields_are_rejected():
    with pytest.raises(UserError, match="config.task has no field 'lenght'; did you mean 'length'"):
        default_task_config("text_classification", lenght=64)


def test_a_batch_size_that_rows_cannot_meet_is_reported(start, tmp_path, capsys):
    config = config_of("text_classification", start, tmp_path, dev="")
    config.train.batch_size, config.train.duration = 1, "1 steps"
    finetune(config, tmp_path / "run")
    assert "config.train.batch_size=1: a step has " in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("fields,message", [
    ({"init_from": ""}, "config.init_from='': a task begins from weights"),
    ({"task.train": ""}, "config.task.train='': name the files"),
    ({"task.dev_fraction": 0.1}, "give files or task.dev_fraction, not both"),
    ({"task.dev_fraction": 1.0}, "config.task.dev_fraction=1.0: must be at least 0 and below 1"),
    ({"task.length": 0}, "config.task.length=0"), ({"task.metric": "guess"}, "config.task.metric='guess'"),
    ({"optimizer.layer_decay": 0.0}, "config.optimizer.layer_decay=0.0: must be above 0"),
    ({"schedule.name": "steep"}, "config.schedule.name='steep'")])
def test_wrong_fields_are_rejected_before_any_work(fields, message):
    config = small_config("text_classification", "nowhere", "nothing.jsonl", dev="dev.jsonl")
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        as_finetuning_config(config).validate("config")


def test_a_workdir_of_the_other_kind_is_refused_at_once(tmp_path):
    task = small_config("text_classification", "nowhere", "nothing.jsonl", dev="dev.jsonl")
    pretraining = default_config()
    pretraining.data.path = "nowhere"
    for name, config in (("task", as_finetuning_config(task)), ("pretraining", as_pretraining_config(pretraining))):
        (tmp_path / name).mkdir()
        save_config(tmp_path / name, config)
    with pytest.raises(UserError, match="holds a run of pretraining, and this config is one of fine-tuning; give"):
        finetune(task, tmp_path / "pretraining")
    with pytest.raises(UserError, match="holds a run of fine-tuning, and this config is one of pretraining; give"):
        train(pretraining, tmp_path / "task")


def test_a_finished_run_is_a_source_of_weights_and_not_a_pretraining_run(start, tmp_path):
    config = config_of("text_classification", start, tmp_path)
    config.train.duration = "4 steps"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "_ends", lambda loop: setattr(loop, "stopping", loop.step == 2) or loop.stopping)
        finetune(config, tmp_path / "run")
    with pytest.raises(UserError, match="an unfinished fine-tuning run"):
        open_pretrained(tmp_path / "run")
    finetune(config, tmp_path / "run")
    assert open_pretrained(tmp_path / "run").head.labels == ("blue", "green", "red")
    card, results = ((tmp_path / "run" / name).read_text() for name in ("model/README.md", "results.json"))
    assert "\n# run\n" in card and 'spanbert_jax.pipeline("text-classification", "DIR")' in card
    assert f"- data: `{tmp_path}/train.jsonl`, 160 examples\n- steps: 4 of 16 examples each" in card
    scores = next(line for line in card.splitlines() if line.startswith("- dev, 40 examples: "))
    assert f"accuracy {json.loads(results)['dev']['accuracy']:.4g}%, macro_f1 " in scores
    # The same classes start from the trained head, others from a new one.
    (tmp_path / "tags").mkdir()
    other = config_of("token_classification", str(tmp_path / "run"), tmp_path / "tags", dev="")
    other.train.duration = "2 steps"
    assert finetune(other, tmp_path / "other").finished
    again = config.copy_and_resolve_references()
    again.init_from, again.train.duration, again.task.dev = str(tmp_path / "run"), "1 steps", ""
    again.optimizer.learning_rate = 1e-12
    finetune(again, tmp_path / "again")
    heads = [load_model(tmp_path / name).params["classification_head"]["kernel"] for name in ("run", "again")]
    np.testing.assert_allclose(*heads, rtol=1e-6)


def test_a_length_beyond_the_models_positions_is_rejected(start, tmp_path):
    config = config_of("text_classification", start, tmp_path, length=200)
    with pytest.raises(UserError, match="config.task.length=200: the model of .* has 128 positions.* repeat the"):
        finetune(config, tmp_path / "run")
    tokenizer = load_tokenizer(start)
    rotary = EncoderModel(ModernBertConfig(tokenizer.get_vocab_size(), 1, 8, 2, 8, max_positions=128), EncoderOnly())
    spanbert_jax.save_pretrained(rotary, random_params(rotary), tmp_path / "rotary", tokenizer=tokenizer)
    config.init_from = str(tmp_path / "rotary")
    with pytest.raises(UserError, match="has 128 positions; .* or set config.model.max_positions$"):
        finetune(config, tmp_path / "run")


def test_a_model_gets_more_positions_for_longer_examples(start, tmp_path):
    config = config_of("text_classification", start, tmp_path, length=200)
    config.model.max_positions, config.train.duration, config.optimizer.learning_rate = 256, "2 steps", 1e-9
    for _ in range(2):  # the second call finds the run finished
        assert finetune(config, tmp_path / "run").step == 2
    tables = []
    for folder in (start, tmp_path / "run"):
        pretrained = open_pretrained(folder)
        tables.append(pretrained.tensors.read(pretrained.tensors.names.tensor("encoder/embeddings/position",
                                                                              "embedding")))
    np.testing.assert_allclose(tables[1], np.concatenate([tables[0], tables[0]]), atol=1e-7)
    assert load_model(tmp_path / "run").task.settings.length == 200
    config.model.max_positions = 64
    with pytest.raises(UserError, match="config.model.max_positions=64: it is 128 in "):
        finetune(config, tmp_path / "other")
