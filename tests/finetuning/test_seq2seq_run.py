"""Fine-tuning of encoder-decoder models: they learn, every initial decoder works, and texts can be generated."""
import json

import jax
import numpy as np
import pytest

import spanbert_jax
from spanbert_jax.commands.main import main as cli
from spanbert_jax.commands.train import format_result
from spanbert_jax.common.errors import UserError
from spanbert_jax.finetuning.config import as_finetuning_config
from spanbert_jax.finetuning.run import build, finetune
from spanbert_jax.inference.files import predict_files, score_files
from spanbert_jax.inference.model_folder import load_model
from spanbert_jax.training.init_from import with_architecture
from spanbert_jax.training.loop import TrainingLoop
from spanbert_jax.training.trackers import read_metrics
from tests.tasks.small import NAMES, THINGS, small_config, write
from tests.transformers_pairs import torch, transformers

pytestmark = pytest.mark.usefixtures("one_device")
SETTINGS = {"length": 48, "target_length": 10, "label_smoothing": 0.0, "beams": 2}


def pairs(count, seed=0, periods=(1, 1, 30)):
    """Sentences, of a length for each number of periods, whose translations contain their name and thing."""
    random, found = np.random.default_rng(seed), []
    for _ in range(count):
        name, thing = random.choice(NAMES), random.choice(THINGS)
        found.append({"source": f"the {thing} of {name} {'. ' * random.choice(periods)}",
                      "target": f"{name} was near old {thing} {thing}"})
    return found


def config_of(start, folder, count=200, periods=(1, 1, 30), **settings):
    train, dev = (write(folder / f"{part}.jsonl", pairs(count if part == "train" else 30, seed, periods))
                  for seed, part in enumerate(("train", "dev")))
    return small_config("translation", start, train, **{**SETTINGS, "dev": dev, **settings})


def results(workdir):
    return json.loads((workdir / "results.json").read_text())["dev"]


@pytest.fixture(scope="module")
def trained(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    config = config_of(start, folder, count=400)
    config.train.duration, config.train.batch_size = "150 steps", 32
    config.optimizer.learning_rate = 3e-3
    config.evaluation.every = "50 percent"
    result = finetune(config, folder / "run")
    assert result.finished
    (folder / "said.txt").write_text(format_result(as_finetuning_config(config), result))
    return folder


def test_translation_learns_and_writes_its_files(trained):
    found = results(trained / "run")
    assert found["bleu"] > 80 > 20 > found["copy/bleu"]
    assert f"bleu_signature {found['bleu_signature']}" in (trained / "said.txt").read_text()
    evaluations = [line for line in read_metrics(trained / "run") if line["kind"] == "evaluation"]
    assert evaluations[-1]["log_likelihood"] > evaluations[0]["log_likelihood"]
    lines = (trained / "run" / "predictions" / "dev" / "translation.txt").read_text().splitlines()
    stored = [json.loads(line) for line in
              (trained / "run" / "predictions" / "dev" / "predictions.jsonl").read_text().splitlines()]
    assert lines == [line["translation"] for line in stored] and len(lines) == 30


def test_predictions_do_not_depend_on_batch_size_and_scores_equal_the_runs(trained, tmp_path):
    some = write(tmp_path / "some.jsonl", pairs(40, 2, periods=(1,)))
    for settings in ({}, {"beams": 1, "sample": True}):
        outputs = {}
        for size in (1, 200):  # rows of 32 pieces go 32 at a time, one chunk of them or several
            output = tmp_path / f"{len(settings)} {size}.jsonl"
            predict_files(trained / "run", some, output, batch_size=size, settings=settings)
            outputs[size] = output.read_bytes()
        assert outputs[1] == outputs[200]
    data = str(trained / "dev.jsonl")
    predict_files(trained / "run", data, tmp_path / "dev.jsonl")
    whole = (tmp_path / "dev.jsonl").read_bytes()
    assert whole == (trained / "run" / "predictions" / "dev" / "predictions.jsonl").read_bytes()
    metrics, _ = score_files(trained / "run", data)
    assert metrics["bleu"] == results(trained / "run")["bleu"]
    call = spanbert_jax.pipeline("translation", trained / "run")
    first = pairs(30, 1)[0]
    assert call(first["source"])["translation"] == json.loads(whole.splitlines()[0])["translation"]
    with pytest.warns(UserWarning, match=r"empty sources \(1\): input 2"):
        both = call([first["source"], ""])
    assert both[0]["translation"] == call(source=first["source"])["translation"] and len(both) == 2


def test_generation_settings_can_be_overridden(trained, tmp_path, capsys):
    fine_tuned = load_model(trained / "run", settings={"beams": 1, "length_penalty": 2})
    assert fine_tuned.task.settings.beams == 1 and fine_tuned.task.settings.length_penalty == 2.0
    command = ["predict", "--model", str(trained / "run"), "--input", str(trained / "dev.jsonl"), "--output",
               str(tmp_path / "out.jsonl")]
    assert cli([*command, "--set", "sample=true", "--set", "beams=1", "--set", "temperature=50"]) == 0
    drawn = [json.loads(line)["translation"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    stored = [json.loads(line)["translation"] for line in
              (trained / "run" / "predictions" / "dev" / "predictions.jsonl").read_text().splitlines()]
    assert len(drawn) == len(stored) and drawn != stored
    for settings, message in (({"beam": 1}, "setting 'beam': .* allowed are beams, length_penalty"),
                              ({"beams": True}, "config.task.beams=True: must be of type int"),
                              ({"beams": "few"}, "config.task.beams='few': must be of type int"),
                              ({"beams": 0}, "config.task.beams=0: must be at least 1"),
                              ({"target_length": 5}, "setting 'target_length'")):
        with pytest.raises(UserError, match=message):
            spanbert_jax.pipeline("translation", trained / "run", **settings)
    with pytest.raises(SystemExit, match="2"):
        cli([*command, "--set", "beams"])
    assert "'beams': write FIELD=VALUE" in capsys.readouterr().err


def test_plain_files_can_be_predicted(trained, tmp_path):
    sources = [json.loads(line)["source"] for line in (trained / "dev.jsonl").read_text().splitlines()]
    (tmp_path / "plain.en").write_text("".join(f"{source}\n" for source in sources))
    assert cli(["predict", "--model", str(trained / "run"), "--input", str(tmp_path / "plain.en"), "--output",
                str(tmp_path / "out.jsonl"), "--set", "source=en"]) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (
        trained / "run" / "predictions" / "dev" / "predictions.jsonl").read_bytes()


def test_transformers_generates_the_same_texts_from_the_saved_model(trained):
    folder = trained / "run" / "model"
    network = transformers.EncoderDecoderModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=True)
    sources = [record["source"] for record in pairs(8, 5)]
    call = spanbert_jax.pipeline("translation", trained / "run")
    with torch.no_grad():
        inputs = tokenizer(sources, return_tensors="pt", padding=True)
        written = network.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"])  # as its files say
    assert tokenizer.batch_decode(written, skip_special_tokens=True) == [
        prediction["translation"] for prediction in call(sources)]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    from tokenizers import ByteLevelBPETokenizer
    folder = tmp_path_factory.mktemp("gpt2")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([" ".join((*NAMES, *THINGS))] * 20, vocab_size=290, special_tokens=["<|endoftext|>"],
                                show_progress=False)
    trained.save_model(str(folder))
    transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=trained.get_vocab_size(), n_embd=24, n_layer=2, n_head=2, n_positions=32)).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("settings", [
    {"decoder": "shared"}, {"decoder_layers": 1, "target_vocabulary": "330"}, {"decoder": "gpt2"}],
                         ids="-".join)
def test_every_initial_decoder_trains_and_loads(settings, start, gpt2, tmp_path):
    if settings.get("decoder") == "gpt2":
        settings = {"decoder": gpt2, "target_length": 30}
    config = config_of(start, tmp_path, count=40, periods=(1,), **settings, beams=1)  # each length is compiled
    config.train.duration = "2 steps"
    assert finetune(config, tmp_path / "run").finished
    predict_files(tmp_path / "run", str(tmp_path / "dev.jsonl"), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (
        tmp_path / "run" / "predictions" / "dev" / "predictions.jsonl").read_bytes()
    if "target_vocabulary" not in settings:
        return
    # Training continues from the fine-tuned model, with its target vocabulary.
    more = config_of(str(tmp_path / "run"), tmp_path, count=40, decoder=str(tmp_path / "run"))
    begun, experiment = parameters(more, tmp_path / "more")
    before = load_model(tmp_path / "run")
    assert (experiment.workload.dataset.task.target_tokenizer(None).get_vocab()
            == before.task.target_tokenizer(None).get_vocab() != before.tokenizer.get_vocab())
    jax.tree.map(np.testing.assert_array_equal, begun, before.params)


def parameters(config, workdir):
    experiment = build(with_architecture(as_finetuning_config(config), workdir, keep_positions=True), workdir)
    return experiment.workload.initial_params(), experiment


def test_decoder_is_initialized_from_the_encoder(start, tmp_path):
    begun, _ = parameters(config_of(start, tmp_path, count=40), tmp_path)
    for name in ("attention", "feed_forward_in", "feed_forward_norm"):
        jax.tree.map(np.testing.assert_array_equal, begun["decoder"]["layers"][name], begun["encoder"]["layers"][name])
    jax.tree.map(np.testing.assert_array_equal, begun["decoder"]["embeddings"], begun["encoder"]["embeddings"])
    random, _ = parameters(config_of(start, tmp_path, count=40, decoder="random"), tmp_path)
    assert np.abs(random["decoder"]["layers"]["attention"]["query"]["kernel"]
                  - random["encoder"]["layers"]["attention"]["query"]["kernel"]).max() > 0.1
    shared, experiment = parameters(config_of(start, tmp_path, count=40, decoder="shared"), tmp_path)
    assert jax.tree.structure(shared) == jax.tree.structure(experiment.abstract_state.params)
    counts = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (shared, begun)]
    assert counts[0] < 0.75 * counts[1]


def test_frozen_parameters_stay_and_layer_decay_slows_lower_layers(start, tmp_path):
    config = config_of(start, tmp_path, count=60, periods=(1,), dev="")
    config.train.duration, config.optimizer.layer_decay = "2 steps", 0.01
    config.optimizer.freeze = "encoder/embeddings, decoder/layers/1/"
    begun, _ = parameters(config, tmp_path / "run")
    assert finetune(config, tmp_path / "run").finished
    moved = jax.tree.map(lambda before, after: np.abs(after - before), begun, load_model(tmp_path / "run").params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(moved["encoder"]["embeddings"]))
    kernel = moved["encoder"]["layers"]["attention"]["query"]["kernel"].mean(axis=(1, 2))
    np.testing.assert_allclose(kernel[0] / kernel[1], 0.01, rtol=0.5)
    kernel = moved["decoder"]["layers"]["attention"]["query"]["kernel"]
    assert kernel[0].any() and not kernel[1].any()


def test_a_stopped_run_cannot_predict_and_continues_to_the_same_result(start, tmp_path):
    config = config_of(start, tmp_path, count=60, periods=(1,), dev="")
    config.train.duration = "4 steps"
    finetune(config, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "_ends", lambda loop: setattr(loop, "stopping", loop.step == 2) or loop.stopping)
        assert not finetune(config, tmp_path / "run").finished
    with pytest.raises(UserError, match="run: an unfinished fine-tuning run; run its command again, and"):
        load_model(tmp_path / "run")
    assert finetune(config, tmp_path / "run").finished
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "run").params,
                 load_model(tmp_path / "whole").params)


@pytest.mark.parametrize("settings,message", [
    ({"decoder_layers": 3}, "decoder_layers=3: the decoder has 2; use fewer, or 0 for all"),
    ({"decoder": "shared", "decoder_layers": 1}, "or 0 for all, as required with decoder=shared"),
    ({"target_length": 200}, "target_length=200: the decoder has 128 positions"),
    ({"decoder": "nowhere/at/all"}, "config.task.decoder='nowhere/at/all': neither encoder")])
def test_unusable_decoders_are_rejected(settings, message, start, tmp_path):
    config = config_of(start, tmp_path, count=40, **settings)
    with pytest.raises(UserError, match=message):
        finetune(config, tmp_path / "run")
