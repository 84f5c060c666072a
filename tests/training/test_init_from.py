"""Runs that start from existing weights, and exports of runs."""
import json
import shutil

import numpy as np
import pytest
import transformers

import spanbert_jax
from spanbert_jax.commands.config_files import as_run_config, load_config, with_overrides
from spanbert_jax.commands.main import main
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import to_dict
from spanbert_jax.model import ARCHITECTURES, EncoderModel, EncoderOnly
from spanbert_jax.pretraining.config import as_pretraining_config
from spanbert_jax.text import load_tokenizer
from spanbert_jax.training.config import check_kind
from spanbert_jax.training.init_from import with_architecture
from tests.interop.networks import assert_agree, assert_same, random_params, save
from tests.runs import evaluations, final_state, losses, run_here

SHORT = ("--config.train.duration=4 steps", "--config.evaluation.every=4 steps", "--config.checkpoint.every=2 steps",
         "--config.checkpoint.keep=2", "--config.evaluation.max_rows=8")
# The architecture is that of the weights.
OTHER = ("--config.model.width=0", "--config.model.num_heads=0", "--config.model.feed_forward=0")
STILL = "--config.optimizer.learning_rate=1e-30"  # parameters stay as they are


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    run_here(files, workdir, *SHORT)
    return workdir


def test_an_exported_run_is_loaded_again(trained, tmp_path, capsys):
    assert main(["export", "--workdir", str(trained), "--format", "huggingface", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "step 4: 2 layers of width 64" in printed and "masked-token head, span boundary head" in printed
    assert "compared on the same inputs with transformers on the export: largest difference" in printed
    model, params = spanbert_jax.from_pretrained(trained, "pretraining")
    again, same = spanbert_jax.from_pretrained(tmp_path / "out", "pretraining")
    assert again == model
    assert_same(params, same)
    state = final_state(trained)
    kernel = state["['params']['encoder']['layers']['attention']['query']['kernel']"]
    np.testing.assert_array_equal(kernel, params["encoder"]["layers"]["attention"]["query"]["kernel"])
    assert_agree(*spanbert_jax.from_pretrained(trained, "masked_lm"),
                 transformers.BertForMaskedLM.from_pretrained(tmp_path / "out").eval())
    text = "The boundary of a span"
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(text)["input_ids"] == (
        spanbert_jax.load_tokenizer(trained).encode(text).ids)

    card = (tmp_path / "out/README.md").read_text()
    metrics = evaluations(trained)[-1]
    assert "steps: 4 of 8 rows each" in card and f"loss {metrics['masked_loss']:.3f} nats" in card
    assert "license: other  # to be filled in" in card and "BertForMaskedLM" in card
    assert main(["export", "--workdir", str(trained), "--format", "onnx", "--step", "2", "--out",
                 str(tmp_path / "onnx")]) == 0
    assert "step 2: " in capsys.readouterr().out
    assert main(["export", "--workdir", str(trained), "--format", "onnx", "--out", str(tmp_path / "onnx")]) == 2
    assert "exists already and is not overwritten" in capsys.readouterr().err


def test_a_run_starts_from_another_run_here(files, trained, tmp_path):
    run_here(files, tmp_path, *SHORT, STILL, f"--config.init_from={trained}")
    before, after = (spanbert_jax.from_pretrained(workdir, "pretraining") for workdir in (trained, tmp_path))
    assert before[0] == after[0]
    assert_same(before[1], after[1])
    assert evaluations(tmp_path)[-1]["masked_loss"] == evaluations(trained)[-1]["masked_loss"]


def test_a_run_resumes_without_its_initial_weights(files, trained, tmp_path):
    source = tmp_path / "source"
    assert main(["import", "--from", str(trained), "--out", str(source)]) == 0
    arguments = (*SHORT, f"--config.init_from={source}")
    run_here(files, tmp_path / "unbroken", *arguments)
    run_here(files, tmp_path / "run", *arguments, "--config.train.duration=2 steps")
    shutil.rmtree(source)
    run_here(files, tmp_path / "run", *arguments)
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")
    run_here(files, tmp_path / "run", command="evaluate")


def test_a_damaged_stored_config_does_not_stop_the_own_command_of_a_run(tmp_path):
    network = save(None, tmp_path / "bert")
    config = as_pretraining_config(spanbert_jax.default_config()).replace(init_from=str(tmp_path / "bert"))
    (tmp_path / "config.json").write_text('{"init_from": ')
    check_kind(tmp_path, config)
    assert with_architecture(config, tmp_path).model.width == network.config.hidden_size


def test_weights_are_adapted_to_another_vocabulary_longer_rows_and_new_heads(files, tmp_path, caplog):
    """Starts from a BERT with another vocabulary and fewer positions."""
    bert = save(None, tmp_path / "bert", max_position_embeddings=40)
    tokenizer = load_tokenizer(files.corpus / "tokenizer.json")
    every = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    tokens = every[:125]  # enough to spell the others
    # Punctuation keeps its row, with and without the mark of a token that continues a word.
    again = [token for token in every[125:] if not token.removeprefix("##")[0].isalnum() and {
        token.removeprefix("##"), f"##{token}"} & set(tokens)]
    (tmp_path / "bert/vocab.txt").write_text("\n".join(tokens))
    run_here(files, tmp_path / "run", *SHORT, *OTHER, STILL, f"--config.init_from={tmp_path / 'bert'}")
    told = caplog.text
    assert "positions: 40 in " in told and "64 here; further ones repeat the old" in told
    assert f"vocabulary: {125 + len(again)} entries kept, " in told
    assert "no boundary head: it is initialized at random" in told
    model, params = spanbert_jax.from_pretrained(tmp_path / "run", "pretraining")
    table = np.asarray(params["encoder"]["embeddings"]["token"]["embedding"])
    theirs = bert.state_dict()["embeddings.word_embeddings.weight"].numpy()
    np.testing.assert_array_equal(table[:125], theirs[:125])
    old = load_tokenizer(tmp_path / "bert")
    for number in range(125, 600, 25):
        token = tokenizer.id_to_token(number)
        if not token.startswith("##"):
            ids = old.encode(token, add_special_tokens=False).ids
            if old.token_to_id("[UNK]") not in ids:
                np.testing.assert_allclose(table[number], theirs[ids].mean(axis=0), rtol=1e-5, atol=1e-6)
    positions = np.asarray(params["encoder"]["embeddings"]["position"]["embedding"])
    expected = bert.state_dict()["embeddings.position_embeddings.weight"].numpy()
    np.testing.assert_array_equal(positions, np.concatenate([expected, expected[:24]]))
    assert model.config.width == 32 and model.config.num_heads == 4


def test_weights_that_do_not_fit_are_refused(files, tmp_path):
    config = spanbert_jax.load_config(str(files.folder / "config.py"), [
        f"--config.data.path={files.corpus}", "--config.model.width=64", f"--config.init_from={tmp_path / 'bert'}"])
    save(None, tmp_path / "bert")
    with pytest.raises(UserError, match="config.model.width=64: it is 32 in .*, from which this run begins"):
        spanbert_jax.train(config, tmp_path / "run")
    # The weights have 130 vocabulary entries and no tokenizer.
    output = run_here(files, tmp_path / "run", *SHORT, *OTHER, f"--config.init_from={tmp_path / 'bert'}", status=2)
    assert "without it the 130 vocabulary entries are unknown" in output
    config = json.loads((tmp_path / "bert/config.json").read_text()) | {"model_type": "albert"}
    (tmp_path / "bert/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="model_type is 'albert'"):
        spanbert_jax.from_pretrained(tmp_path / "bert")


# Values of weights that are not the usual ones, and the usual ones. Weights decide the fields of the second row.
WEIGHTS = {
    "bert": ({"clamp_attention": (True, False), "max_positions": (40, 512)},
             {"layer_norm_epsilon": (1e-7, 1e-12), "token_types": (1, 2)}),
    "modernbert": ({"pooling": ("mean", "cls"), "global_rotary_base": (50.0, 160_000.0), "max_positions": (40, 8192),
                    "local_rotary_base": (7.0, 10_000.0)},
                   {"layer_norm_epsilon": (1e-3, 1e-5), "global_every": (2, 3), "window": (8, 128),
                    "norm_bias": (True, False), "attention_bias": (True, False), "feed_forward_bias": (True, False),
                    "head_bias": (True, False)})}


@pytest.fixture(scope="module", params=WEIGHTS)
def unusual(request, tmp_path_factory):
    """Weights with unusual values of all fields, and the fields of WEIGHTS."""
    folder = tmp_path_factory.mktemp(request.param)
    free, decided = WEIGHTS[request.param]
    config = ARCHITECTURES.get(request.param)(vocab_size=50, num_layers=2, width=8, num_heads=2, feed_forward=6,
                                              **{name: values[0] for name, values in (free | decided).items()})
    model = EncoderModel(config, EncoderOnly())
    spanbert_jax.save_pretrained(model, random_params(model), folder)
    return request.param, folder, free, decided


@pytest.mark.parametrize("make_config", [spanbert_jax.default_config,
                                         lambda: spanbert_jax.default_task_config("text_classification")])
def test_a_value_that_is_set_counts_also_if_it_is_the_usual_one(unusual, make_config, tmp_path):
    """And one that is not set is that of the weights, whatever the architecture of the config."""
    architecture, folder, free, decided = unusual

    def started(*overrides):
        config = as_run_config(with_overrides(make_config(), [f"--config.init_from={folder}", *overrides]))
        return with_architecture(config, tmp_path).model.config(50)

    everything = {name: values[0] for name, values in (free | decided).items()}
    config = started()
    assert {name: getattr(config, name) for name in everything} == everything
    chosen = f"--config.model.architecture={architecture}"
    overrides = [f"--config.model.{name}={usual}" for name, (_, usual) in free.items()]
    config = started(chosen, *overrides)
    assert {name: getattr(config, name) for name in free} == {name: usual for name, (_, usual) in free.items()}
    for name, (value, usual) in decided.items():
        assert getattr(started(chosen, f"--config.model.{name}={value}"), name) == value
        with pytest.raises(UserError, match=f"config.model.{name}={usual}: it is {value} in .*leave it out"):
            started(chosen, f"--config.model.{name}={usual}")


def test_a_rate_of_dropout_that_is_set_counts_with_weights_of_another_architecture(unusual, tmp_path):
    architecture, folder, *_ = unusual
    config = spanbert_jax.default_config()
    config.init_from, config.model.dropout = str(folder), 0.1
    config = with_architecture(as_pretraining_config(config), tmp_path).model.config(50)
    assert (config.dropout, config.attention_dropout) == (0.1, {"bert": 0.1, "modernbert": 0.0}[architecture])


def test_a_boundary_head_that_the_weights_lack_has_the_width_that_is_set(unusual, trained, tmp_path):
    config = spanbert_jax.default_config()
    config.init_from, config.model.boundary_features = str(unusual[1]), 30
    assert with_architecture(as_pretraining_config(config), tmp_path).model.boundary_features == 30
    config.init_from = str(trained)
    with pytest.raises(UserError, match="config.model.boundary_features=30: it is 200 in "):
        with_architecture(as_pretraining_config(config), tmp_path)


def test_old_values_for_not_set_are_read(unusual, tmp_path):
    _, folder, free, _ = unusual
    config = as_pretraining_config(spanbert_jax.default_config("modernbert"))
    old = json.loads(json.dumps(to_dict(config)))
    old["model"] |= {"pooling": "", "global_rotary_base": 0.0, "local_rotary_base": 0}
    (tmp_path / "config.json").write_text(json.dumps(old | {"data": old["data"] | {"path": "corpus"}}))
    stored = as_run_config(load_config(tmp_path / "config.json"))
    stored.validate("config")
    assert stored.model == config.model
    if "pooling" in free:
        assert with_architecture(stored.replace(init_from=str(folder)), tmp_path / "run").model.pooling == "mean"


def test_import_and_fill_from_the_command_line(trained, tmp_path, capsys):
    assert main(["import", "--from", str(trained), "--out", str(tmp_path / "ours")]) == 0
    assert "Written: " in capsys.readouterr().out
    text = "The [MASK] [MASK] of a class is it."
    assert main(["fill", "--model", str(tmp_path / "ours"), "--k", "2", "--json", text]) == 0
    filled, = json.loads(capsys.readouterr().out)
    assert filled["text"] == text and [run["length"] for run in filled["runs"]] == [2]
    assert len(filled["runs"][0]["both"]) == 2
    assert main(["fill", "--model", str(tmp_path / "ours"), "no masks"]) == 2
    assert "no [MASK] in the text" in capsys.readouterr().err
    assert main(["import", "--from", str(tmp_path / "nowhere"), "--out", str(tmp_path / "other")]) == 2
    assert "no such file or directory" in capsys.readouterr().err and not (tmp_path / "other").exists()
