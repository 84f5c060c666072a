"""Every export format: equal outputs on any batch, and exact round trips."""
import jax
import numpy as np
import onnxruntime
import pytest
from safetensors.flax import load_file

import spanbert_jax
from spanbert_jax.common.errors import RunFailed
from spanbert_jax.interop import formats
from spanbert_jax.interop.exporting import export
from spanbert_jax.interop.formats import huggingface, onnx, stablehlo
from spanbert_jax.interop.pretrained import load_params, open_pretrained
from tests.interop.networks import LENGTH, VOCABULARY, assert_same, ours, save

SHAPES = ((1, 7), (5, LENGTH))


@pytest.fixture(scope="module", params=["pretraining", "question_answering", "sequence_classification", None])
def network(request, tmp_path_factory):
    """A network with a head, and its parameters."""
    folder = tmp_path_factory.mktemp("network")
    save(request.param, folder)
    pretrained = open_pretrained(folder)
    model = pretrained.model(pretrained.head.name)
    assert model.head.name == request.param
    return model, load_params(pretrained, model)


def inputs_of(shape) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {"input_ids": random.integers(0, VOCABULARY, shape), "token_type_ids": random.integers(0, 2, shape),
            "attention_mask": (np.arange(shape[1]) < shape[1] - np.arange(shape[0])[:, None]).astype(np.int64)}


@pytest.mark.parametrize("format", ["huggingface", "reference", "stablehlo"])
def test_round_trips_are_exact(network, format, tmp_path):
    model, params = network
    comparison = export(model, params, tmp_path / "out", format)
    assert comparison.difference <= comparison.allowed
    again, same = spanbert_jax.from_pretrained(tmp_path / "out", model.head.name)
    assert again == model
    assert_same(params, same)


def test_onnx_takes_any_batch(network, tmp_path):
    model, params = network
    export(model, params, tmp_path / "out", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "out" / onnx.MODEL_FILE)
    for shape in SHAPES:
        expected = ours(model, params, inputs_of(shape))
        names = [output.name for output in session.get_outputs()]
        assert set(names) == expected.keys()
        for name, value in zip(names, session.run(names, inputs_of(shape))):
            np.testing.assert_allclose(value, expected[name], atol=1e-4, err_msg=f"{name} {shape}")


def test_stablehlo_takes_any_batch_without_this_package(network, tmp_path):
    model, params = network
    export(model, params, tmp_path / "out", "stablehlo")
    exported = jax.export.deserialize((tmp_path / "out" / stablehlo.MODEL_FILE).read_bytes())
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    weights = load_file(tmp_path / "out/params.safetensors")
    for shape in SHAPES:
        inputs = inputs_of(shape)
        outputs = exported.call(weights, *(inputs[name].astype(np.int32) for name in stablehlo.INPUTS))
        expected = ours(model, params, inputs)
        assert outputs.keys() == expected.keys()
        for name, value in outputs.items():
            np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=f"{name} {shape}")
    with pytest.raises(Exception, match="refining shapes"):
        exported.call(weights, *[np.ones((1, LENGTH + 1), np.int32)] * 3)


def test_exports_with_other_outputs_are_removed(network, tmp_path, monkeypatch):
    model, params = network
    wrong = jax.tree.map(lambda leaf: leaf, params)
    wrong["encoder"]["embeddings"]["norm"]["scale"] = wrong["encoder"]["embeddings"]["norm"]["scale"] + 0.01
    write = huggingface.write
    monkeypatch.setattr(huggingface, "write", lambda folder, model, _, tokenizer: write(folder, model, wrong, None))
    with pytest.raises(RunFailed, match="largest difference .* allowed 2e-05; the export is removed"):
        export(model, params, tmp_path / "out", "huggingface")
    assert not list(tmp_path.iterdir())


def test_skipped_comparisons_are_logged(network, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    comparison = export(*network, tmp_path / "out", "huggingface")
    assert str(comparison) == "not compared: transformers is not installed"
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(spanbert_jax.UserError, match="pip install torch"):
        export(*network, tmp_path / "other", "reference")
    assert not (tmp_path / "other").exists()


def test_formats_implement_the_protocol():
    for name in formats.FORMATS:
        module = formats.load_format(name)
        assert callable(module.write) and callable(module.run) and module.LIBRARY and module.TOLERANCE >= 0
