"""Damaged or unsupported inputs and failed exports give one-line errors; no partial export is left behind."""
import json
import os
import pathlib
import pickle
import shutil
import stat

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import spanbert_jax
from spanbert_jax.interop.exporting import export
from tests.disks import small_disk
from tests.interop.networks import save


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    save("masked_lm", folder)
    return folder


@pytest.fixture
def place(sound, tmp_path):
    """A copy to be damaged."""
    return pathlib.Path(shutil.copytree(sound, tmp_path / "place"))


def error_of(source, head="masked_lm") -> str:
    with pytest.raises(spanbert_jax.UserError) as caught:
        spanbert_jax.from_pretrained(source, head)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(place, **tensors) -> None:
    """Replaces tensors of a file; None removes one."""
    values = load_file(place / "model.safetensors") | {
        name.replace("__", "."): value for name, value in tensors.items()}
    save_file({name: value for name, value in values.items() if value is not None}, place / "model.safetensors")


def test_truncated_files_are_refused(place):
    whole = (place / "model.safetensors").read_bytes()
    for size in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        (place / "model.safetensors").write_bytes(whole[:size])
        assert f"{place}/model.safetensors: not a whole safetensors file" in error_of(place)


BIAS, KERNEL = "bert__encoder__layer__1__output__dense__bias", "bert__encoder__layer__1__output__dense__weight"


def test_layers_tensors_and_names_are_limited(place):
    change(place, bert__encoder__layer__999999999__output__dense__bias=np.zeros(32, np.float32))
    assert "model.safetensors: layer 2 is missing, and layer 999999999 is there" in error_of(place)
    change(place, bert__encoder__layer__999999999__output__dense__bias=None, **{
        f"bert__encoder__layer__{number}__output__dense__bias": np.zeros(32, np.float32) for number in range(1001)})
    assert "1,001 layers; 1,000 are the most" in error_of(place)
    change(place, **{"x" * 501: np.zeros(1, np.float32)})
    assert "a name of 501 characters; 500 are the most" in error_of(place)
    save_file({"bert.embeddings.word_embeddings.weight": np.zeros((10**12, 0), np.float32)},
              place / "model.safetensors")
    assert "is [1000000000000, 0], which the 120 bytes of the file cannot hold" in error_of(place)
    save_file({"encoder/layers/attention/query/kernel": np.zeros((1001, 1, 1), np.float32)},
              place / "params.safetensors")
    (place / "model.safetensors").unlink()
    assert "encoder/layers/attention/query/kernel has 1,001 layers; 1,000 are the most" in error_of(place)


def test_wrong_shapes_and_missing_tensors_are_refused(place, sound):
    change(place, **{KERNEL: np.zeros((32, 47), np.float32)})
    assert "model.safetensors: bert.encoder.layer.1.output.dense.weight is [32, 47]; the model needs [32, 48]" in (
        error_of(place))
    change(place, **{KERNEL: None})
    assert "bert.encoder.layer.1.output.dense.weight is missing" in error_of(place)
    shutil.copytree(sound, place, dirs_exist_ok=True)
    change(place, bert__embeddings__position_embeddings__weight=None)
    assert "bert.embeddings.position_embeddings.weight is missing" in error_of(place)
    shutil.copytree(sound, place, dirs_exist_ok=True)
    change(place, cls__predictions__transform__LayerNorm__weight=None)
    assert "cls.predictions.transform.LayerNorm.weight is missing" in error_of(place)
    shutil.copytree(sound, place, dirs_exist_ok=True)
    change(place, bert__embeddings__word_embeddings__weight=np.zeros((100, 32), np.float32))
    assert "vocab_size is 130, but the tensors" in error_of(place)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(place, bad):
    value = load_file(place / "model.safetensors")[KERNEL.replace("__", ".")]
    value[3, 5] = bad
    change(place, **{KERNEL: value})
    assert "bert.encoder.layer.1.output.dense.weight: 1 of its numbers are not finite" in error_of(place)
    change(place, **{KERNEL: np.zeros((32, 48), np.int64)})
    assert "bert.encoder.layer.1.output.dense.weight holds int64" in error_of(place)


def test_large_weights_whose_sum_overflows_are_accepted(place):
    change(place, **{KERNEL: np.full((32, 48), 3e38, np.float32)})
    spanbert_jax.from_pretrained(place, "masked_lm")


@pytest.mark.parametrize("field, value, told", [
    ("model_type", "albert", "model_type is 'albert'; bert, modernbert, roberta, xlm-roberta can be read"),
    ("model_type", "gpt2", "model_type is 'gpt2'; bert, modernbert, roberta, xlm-roberta can be read"),
    ("hidden_act", "gelu_new", "hidden_act is 'gelu_new'; only 'gelu'"),
    ("position_embedding_type", "relative_key", "position_embedding_type is 'relative_key'"),
    ("is_decoder", True, "is_decoder is True"),
    ("num_hidden_layers", 3, "num_hidden_layers is 3, but the tensors"),
    ("num_attention_heads", 5, "num_attention_heads is 5, which does not divide"),
    ("hidden_size", "32", "hidden_size is '32'; a whole number above 0 and below 2^31 is needed"),
    ("vocab_size", 0, "vocab_size is 0; a whole number"),
    ("num_attention_heads", 2.0, "num_attention_heads is 2.0; a whole number"),
    ("num_attention_heads", True, "num_attention_heads is True; a whole number"),
    ("hidden_dropout_prob", 7, "hidden_dropout_prob is 7; a number from 0 to below 1"),
    ("layer_norm_eps", 0, "layer_norm_eps is 0; a number above 0"),
    ("layer_norm_eps", 10**19, "layer_norm_eps is 10000000000000000000; a number above 0 and below 1e9"),
    ("architectures", [["BertModel"]], "architectures[0] is ['BertModel']; a text is needed"),
    ("id2label", ["a"], "id2label is ['a']; an object is needed"),
])
def test_configs_of_other_models_are_refused(place, field, value, told):
    config = json.loads((place / "config.json").read_text()) | {field: value}
    (place / "config.json").write_text(json.dumps(config))
    message = error_of(place)
    assert f"{place}/config.json" in message and told in message


def test_a_single_missing_bias_is_refused(place):
    change(place, **{BIAS: None})
    assert "bert.encoder.layer.1.output.dense.bias is missing, and others like it are there" in error_of(place)
    change(place, **{BIAS: np.zeros(32, np.float32), "bert__embeddings__LayerNorm__bias": None})
    assert "bert.embeddings.LayerNorm.bias is missing, and others like it are there" in error_of(place)


def test_relatives_of_bert_are_refused(place):
    tensors = load_file(place / "model.safetensors")
    (place / "config.json").unlink()
    save_file({name.replace("bert.", "roberta.", 1): value for name, value in tensors.items()},
              place / "model.safetensors")
    assert "the weights of roberta; only BERT" in error_of(place, None)
    save_file(tensors | {"lm_head.bias": np.zeros(3, np.float32)}, place / "model.safetensors")
    assert "a relative of BERT, with an lm_head; only BERT" in error_of(place, None)


def test_unknown_tensors_are_logged(place, caplog):
    change(place, bert__embeddings__position_ids=np.arange(40)[None])
    spanbert_jax.from_pretrained(place, "masked_lm")
    assert not caplog.text
    change(place, my_head__weight=np.zeros((2, 2), np.float32))
    spanbert_jax.from_pretrained(place, "masked_lm")
    assert "ignored tensors that the model does not have: my_head.weight" in caplog.text


def test_other_files_are_refused(place):
    (place / "config.json").write_text("{")
    assert f"{place}/config.json: not JSON" in error_of(place)
    (place / "config.json").write_text("[]")
    assert f"{place}/config.json: not a JSON object" in error_of(place)
    save_file({"h.0.attn.c_attn.weight": np.zeros((2, 2), np.float32)}, place / "model.safetensors")
    (place / "config.json").unlink()
    assert "not the weights of one BERT encoder: no embeddings.word_embeddings.weight" in error_of(place)
    (place / "model.safetensors").unlink()
    assert "no weights in it; looked for model.safetensors" in error_of(place)
    assert "no such file or directory" in error_of(place / "nowhere")


def test_damaged_shard_indices_are_refused(place):
    (place / "model.safetensors").rename(place / "model-00001-of-00002.safetensors")
    index = place / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors",
                                                "b": "model-00002-of-00002.safetensors"}}))
    assert f"{index}: model-00002-of-00002.safetensors is missing (1 of 2 shards)" in error_of(place)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    assert "passwd is missing" in error_of(place)
    index.write_text("{}")
    assert f"{index}: weight_map is missing; fetch it again" in error_of(place)


class _RunsCode:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_pickles_that_would_run_code_are_refused(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "model.safetensors").unlink()
    (place / "pytorch_model.bin").write_bytes(pickle.dumps(_RunsCode()))
    assert f"{place}/pytorch_model.bin" in error_of(place)
    assert not (place / "owned").exists()


def test_weights_that_are_not_finite_are_not_exported(sound, tmp_path):
    model, params = spanbert_jax.from_pretrained(sound)
    norm = params["encoder"]["embeddings"]["norm"]
    norm["scale"] = norm["scale"].at[3].set(np.inf)
    with pytest.raises(spanbert_jax.UserError, match="encoder/embeddings/norm/scale has numbers that are not finite"):
        spanbert_jax.save_pretrained(model, params, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_parameters_that_a_model_does_not_have_are_named(sound, tmp_path, caplog):
    model, params = spanbert_jax.from_pretrained(sound)
    spanbert_jax.save_pretrained(model, params, tmp_path / "as it is")
    assert not caplog.messages
    more = {**params, "boundary_head": params["encoder"], "encoder": {**params["encoder"], "own": {"bias": np.ones(3)}}}
    spanbert_jax.save_pretrained(model, more, tmp_path / "out")
    assert caplog.messages == ["not written, because the model does not have these parameters: boundary_head, "
                               "encoder/own/bias; give a model with their heads to keep them"]
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "as it is" / file).read_bytes()


@pytest.mark.parametrize("umask", [0o002, 0o077])
@pytest.mark.parametrize("format", ["huggingface", "stablehlo"])
def test_exported_files_have_the_modes_of_the_umask(format, umask, sound, tmp_path):
    before = os.umask(umask)
    try:
        export(*spanbert_jax.from_pretrained(sound), tmp_path / "out", format, compare=False)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o666 & ~umask}


def test_nothing_is_overwritten(sound, tmp_path, monkeypatch):
    model, params = spanbert_jax.from_pretrained(sound, "masked_lm")
    for there in ("directory", "file"):
        out = tmp_path / there
        if there == "file":
            out.write_text("mine")
        else:
            out.mkdir()
            (out / "config.json").write_text("mine")
        with pytest.raises(spanbert_jax.UserError, match=f"{out}: exists already and is not overwritten"):
            spanbert_jax.save_pretrained(model, params, out)
        assert (out if there == "file" else out / "config.json").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    before = (tmp_path / "empty").stat().st_ino
    monkeypatch.setenv("HOME", str(tmp_path))
    spanbert_jax.save_pretrained(model, params, "~/empty")
    assert (tmp_path / "empty/model.safetensors").exists() and (tmp_path / "empty").stat().st_ino == before
    assert not [path for path in (tmp_path / "empty").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("format", ["huggingface", "reference", "onnx", "stablehlo"])
def test_a_full_disk_is_reported(sound, tmp_path, format):
    model, params = spanbert_jax.from_pretrained(sound, "masked_lm")
    with small_disk(tmp_path / "disk", "64k") as disk:
        with pytest.raises(spanbert_jax.UserError, match="cannot be written .*nothing is left of it"):
            export(model, params, disk / "new" / "out", format)
        assert not list(disk.iterdir())


def test_read_only_directories_are_reported(sound, tmp_path):
    model, params = spanbert_jax.from_pretrained(sound, "masked_lm")
    (tmp_path / "file").write_text("")
    with pytest.raises(spanbert_jax.UserError, match="cannot be written .File exists.; nothing is left of it"):
        spanbert_jax.save_pretrained(model, params, tmp_path / "file" / "out")
