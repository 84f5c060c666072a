"""Weights of the reference: import of encoder and heads, equal outputs, and byte-equal export."""
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import spanbert_jax
from spanbert_jax.interop.exporting import export
from spanbert_jax.interop.pretrained import load_params, open_pretrained
from tests.interop.networks import assert_same
from tests.paths import CONFORMANCE, needs_conformance

pytestmark = needs_conformance
REFERENCE = CONFORMANCE / "reference_model"


@pytest.fixture(scope="module")
def reference():
    """The network and its parameters."""
    pretrained = open_pretrained(REFERENCE)
    assert pretrained.head == pretrained.stored.pretraining and not pretrained.head.next_sentence
    model = pretrained.model("pretraining")
    return model, load_params(pretrained, model)


def test_outputs_equal_those_of_the_reference(reference):
    model, params = reference
    vectors, given = np.load(REFERENCE / "vectors.npz"), json.loads((REFERENCE / "config.json").read_text())
    assert (model.config.clamp_attention, model.head.boundary_positions, model.head.boundary_features) == (
        given["clamp_attention"], given["max_pair_targets"], given["pair_position_embedding_size"])
    outputs, state = model.apply({"params": params}, vectors["input_ids"], vectors["attention_mask"],
                                 mutable=["intermediates"])
    np.testing.assert_allclose(state["intermediates"]["encoder"]["layers"]["hidden"][0], vectors["hidden"], atol=1e-5)
    np.testing.assert_allclose(outputs.logits, vectors["mlm_logits"], atol=1e-5)
    rows, pairs, places = vectors["pair_targets"].shape
    left, right = (np.repeat(vectors["pairs"][:, :, side], places, axis=1) for side in (0, 1))
    place = np.tile(np.arange(places), (rows, pairs))
    boundary = model.apply({"params": params}, outputs.last_hidden_state, left, right, place, method="boundary_logits")
    np.testing.assert_allclose(boundary.reshape(vectors["sbo_logits"].shape), vectors["sbo_logits"], atol=1e-5)


def test_export_is_byte_equal(reference, tmp_path):
    export(*reference, tmp_path / "out", "reference")
    expected = load_file(REFERENCE / "weights.safetensors")
    written = torch.load(tmp_path / "out/pytorch_model.bin", weights_only=True)
    assert written.keys() == expected.keys()
    for name, tensor in expected.items():
        assert written[name].dtype == tensor.dtype and torch.equal(written[name], tensor), name
    config, given = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "out", REFERENCE))
    assert {name: config[name] for name in given.keys() & config.keys()} == {
        name: given[name] for name in given.keys() & config.keys()}


def wrapped(tensors):
    """As the released model with heads is: without a config, under another prefix."""
    return {f"decoder.{name}": tensor for name, tensor in tensors.items()}


def test_fairseq_checkpoints_and_archives_are_imported(reference, tmp_path, monkeypatch):
    import argparse
    import tarfile
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tensors = wrapped(load_file(REFERENCE / "weights.safetensors"))
    (tmp_path / "config.json").write_text((REFERENCE / "config.json").read_text())
    torch.save({"args": argparse.Namespace(arch="cased_bert_pair"), "model": tensors, "optimizer_history": []},
               tmp_path / "checkpoint_best.pt")
    assert_same(spanbert_jax.from_pretrained(tmp_path / "checkpoint_best.pt", "pretraining")[1], reference[1])

    torch.save(tensors, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    with tarfile.open(tmp_path / "spanbert_with_head.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "model.pt", "spanbert/model.pt")
        archive.add(tmp_path / "config.json", "spanbert/config.json")
    model, params = spanbert_jax.from_pretrained(tmp_path / "spanbert_with_head.tar.gz", "pretraining")
    assert model == reference[0]
    assert_same(params, reference[1])
    with pytest.raises(spanbert_jax.UserError, match="neither tokenizer.json nor vocab.txt in it; put the vocabulary"):
        spanbert_jax.load_tokenizer(tmp_path / "spanbert_with_head.tar.gz")


def test_an_encoder_alone_is_imported(reference, tmp_path, caplog):
    tensors = {name: tensor for name, tensor in load_file(REFERENCE / "weights.safetensors").items()
               if name.startswith("bert.")}
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "config.json").write_text((REFERENCE / "config.json").read_text())
    model, params = spanbert_jax.from_pretrained(tmp_path)
    assert not model.head.inputs and not caplog.text
    assert_same(params["encoder"], reference[1]["encoder"])


def test_imports_without_config_and_vocabulary(tmp_path):
    torch.save(wrapped(load_file(REFERENCE / "weights.safetensors")), tmp_path / "model.pt")
    with pytest.raises(spanbert_jax.UserError, match="no config.json .* gives the number of attention heads"):
        spanbert_jax.from_pretrained(tmp_path / "model.pt")
    with pytest.raises(spanbert_jax.UserError, match=r"theirs is that of bert-base-cased, 28,996 entries, cased"):
        spanbert_jax.load_tokenizer(tmp_path / "model.pt")
