"""Exported tokenizers: equal ids in transformers and from vocab.txt alone, padding, and the self-check."""
import json

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from tokenizers import AddedToken

import spanbert_jax
from spanbert_jax.common.errors import RunFailed
from spanbert_jax.common.manifest import MANIFEST_FILE
from spanbert_jax.interop.exporting import export
from spanbert_jax.interop.formats import huggingface
from spanbert_jax.interop.formats.huggingface import special_values, write_config_and_tokenizer
from spanbert_jax.interop.tokenizer_check import check_tokenizer
from spanbert_jax.model import ARCHITECTURES
from spanbert_jax.text import special_tokens
from spanbert_jax.text.tokenizer import bert_normalizer, build_tokenizer
from tests.interop.networks import save
from tests.text import kinds

# [PAD] is not the first entry, and no entry has the id 7.
VOCAB = {"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "hello": 5, "##s": 6, "world": 8, "한국어": 9,
         "a": 10, "the": 11, "[E1]": 12}
TEXT = "hellos world [E1] 한국어 the THE"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    save(None, folder)
    return spanbert_jax.from_pretrained(folder)


@pytest.fixture
def tokenizer():
    made = build_tokenizer(VOCAB, bert_normalizer(lowercase=True, strip_accents=False))
    made.add_special_tokens([AddedToken("[E1]", special=True, normalized=False)])
    return made


@pytest.mark.parametrize("format", ["huggingface", "reference"])
def test_exports_keep_every_id(format, network, tokenizer, tmp_path):
    comparison = export(*network, tmp_path / "out", format, tokenizer)
    assert "tokenizer: equal ids of " in str(comparison)
    assert ("read by this package and transformers" in str(comparison)) == (format == "huggingface")
    expected = [2, 5, 6, 8, 12, 9, 11, 11, 3]
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(TEXT)["input_ids"] == expected
    (tmp_path / "out" / MANIFEST_FILE).unlink()
    (tmp_path / "out/tokenizer.json").unlink()  # vocab.txt and tokenizer_config.json remain
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(TEXT)["input_ids"] == expected and "[E1]" in theirs.all_special_tokens
    assert spanbert_jax.load_tokenizer(tmp_path / "out").encode(TEXT).ids == expected
    assert json.loads((tmp_path / "out/config.json").read_text())["pad_token_id"] == 1
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert model.embeddings.word_embeddings.padding_idx == 1


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_tokenizers_of_every_kind_are_exported(kind, network, tmp_path):
    tokenizer = spanbert_jax.load_tokenizer(kinds.write(kind, tmp_path / "tokenizer"))
    model, _ = network
    write_config_and_tokenizer(tmp_path, model, tokenizer)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), spanbert_jax.load_tokenizer(tmp_path)
    for text in (TEXT, " two  spaces\n東京", f"a{theirs.mask_token} b"):
        assert tokenizer.encode(text).ids == theirs(text)["input_ids"] == ours.encode(text).ids
        assert tokenizer.encode(text, "b").ids == theirs(text, "b")["input_ids"] == ours.encode(text, "b").ids
    assert {role: getattr(theirs, f"{role}_token") for role in special_tokens(tokenizer)} == special_tokens(tokenizer)
    assert special_tokens(ours) == special_tokens(tokenizer) and not (tmp_path / "vocab.txt").exists()
    assert json.loads((tmp_path / "config.json").read_text())["pad_token_id"] == theirs.pad_token_id
    assert "equal ids of" in check_tokenizer(tmp_path, tokenizer, tmp_path, with_transformers=True)


def test_configs_of_other_architectures_name_the_special_tokens(tmp_path, caplog):
    tokenizer = spanbert_jax.load_tokenizer(kinds.write("gemma", tmp_path))
    modern, roberta = (ARCHITECTURES.get(name)(vocab_size=600) for name in ("modernbert", "roberta"))
    assert special_values(tokenizer, modern) == {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
                                                 "cls_token_id": 2, "sep_token_id": 1}
    assert not caplog.text and special_values(tokenizer, roberta)["pad_token_id"] == 1
    assert "counts the positions of roberta from the tokens whose id is not 1, which is '<eos>' here" in caplog.text


def test_with_one_token_type_both_texts_of_a_pair_have_it(tokenizer, tmp_path):
    network = save(None, tmp_path / "theirs", type_vocab_size=1)
    model, params = spanbert_jax.from_pretrained(tmp_path / "theirs")
    pair = tokenizer.encode("hello", "world")
    assert pair.type_ids == [0, 0, 0, 1, 1]
    ids, types = np.array([pair.ids]), np.array([pair.type_ids])
    with torch.no_grad():
        expected = network(torch.from_numpy(ids)).last_hidden_state  # of type 0; type 1 is an IndexError there
    got = model.apply({"params": params}, ids, token_type_ids=types).last_hidden_state
    np.testing.assert_allclose(got, expected, atol=2e-5)

    export(model, params, tmp_path / "ours", "huggingface", tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")("hello", "world")
    assert theirs["input_ids"] == pair.ids and theirs["token_type_ids"] == [0] * 5
    export(model, params, tmp_path / "onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "onnx/model.onnx")
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
    np.testing.assert_allclose(session.run(["last_hidden_state"], inputs)[0], expected, atol=1e-4)


def test_exports_of_another_tokenizer_are_removed(network, tokenizer, tmp_path, monkeypatch):
    cased = build_tokenizer(VOCAB, bert_normalizer(lowercase=False))
    write = huggingface.write
    monkeypatch.setattr(huggingface, "write", lambda folder, model, params, _: write(folder, model, params, cased))
    with pytest.raises(RunFailed, match="the exported tokenizer, read by this package, differs: .The President"):
        export(*network, tmp_path / "out", "huggingface", tokenizer)
    assert not list(tmp_path.iterdir())


def test_another_reading_of_the_original_by_transformers_is_logged(network, tmp_path, caplog):
    original = tmp_path / "original"
    save(None, original)
    (original / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "The", "the"]))
    tokenizer = spanbert_jax.load_tokenizer(original)  # cased, while transformers lower-cases by default
    export(*network, tmp_path / "out", "huggingface", tokenizer, original=original)
    assert "original: transformers tokenizes in another way than this package:" in caplog.text
