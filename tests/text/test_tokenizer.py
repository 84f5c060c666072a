"""Tokenizers: ids equal to Hugging Face's, lower-casing, reproducible training, one-line errors."""
import json
import subprocess
import sys

import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer, special_ids, train_tokenizer, word_start_table
from tests.paths import DATA, needs_data

VOCABULARY = [*SPECIAL_TOKENS, "the", "un", "##able", "##s", "cat", "#", "A", "##a"]


@pytest.fixture
def vocab(tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(VOCABULARY) + "\n")
    return file


@needs_data
@pytest.mark.parametrize("name, lowercase", [("cased", False), ("uncased", True), ("chinese", True)])
def test_ids_equal_those_of_hugging_face(name, lowercase, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    file = DATA / "vocab" / f"bert-base-{name}-vocab.txt"
    (tmp_path / "vocab.txt").write_bytes(file.read_bytes())
    theirs = transformers.BertTokenizerFast.from_pretrained(str(tmp_path), do_lower_case=lowercase)
    ours = load_tokenizer(file)
    assert ours.normalizer.lowercase == lowercase
    texts = [path.read_text() for path in sorted((DATA / "sotu").glob("*.txt"))[::40]]
    texts += [q["question"] for language in ("de", "zh") for article in json.loads(
        (DATA / f"xquad.{language}.json").read_text())["data"] for p in article["paragraphs"] for q in p["qas"]]
    texts += ["", "a [MASK] b[SEP]", "Élan \x00naïve\u200b\ufffd x" + "y" * 101, "##ing", "日本語テキスト"]
    for text in texts:
        assert ours.encode(text).ids == theirs(text)["input_ids"]
    assert ours.encode("one", "two").type_ids == theirs("one", "two")["token_type_ids"]


def test_lowercasing_follows_config_then_vocabulary(vocab):
    assert load_tokenizer(vocab).encode("The").tokens[1] == "[UNK]"  # "A" in the vocabulary: cased
    uncased = [token for token in VOCABULARY if token != "A"]
    vocab.write_text("\n".join([*uncased, *(f"p{i}" for i in range(100)), "Added"]))
    vocab.with_name("tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert load_tokenizer(vocab).encode("The").tokens[1] == "the"
    assert load_tokenizer(vocab, lowercase=False).encode("The").tokens[1] == "[UNK]"
    vocab.with_name("tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_tokenizer(vocab).encode("The").tokens[1] == "[UNK]"
    vocab.with_name("tokenizer_config.json").unlink()
    vocab.write_text("\n".join([*SPECIAL_TOKENS, "[unused1]", "<S>", "the", "ℝ"]))  # ℝ has no lower-case form
    assert load_tokenizer(vocab).encode("The").tokens[1] == "the"


@needs_data
def test_lowercasing_is_ignored_for_a_cased_vocabulary(tmp_path, caplog):
    file = tmp_path / "vocab.txt"
    file.write_bytes((DATA / "vocab" / "bert-base-cased-vocab.txt").read_bytes())
    expected = load_tokenizer(file).encode("The President of France").ids
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')  # as in models derived from SpanBERT
    assert load_tokenizer(file).encode("The President of France").ids == expected
    assert "lower-cases, but" in caplog.text and "case is kept" in caplog.text
    wrong = load_tokenizer(file, lowercase=True)
    assert wrong.encode("The President of France").ids != expected
    wrong.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode("The President of France").ids == expected


def test_json_and_directory_load_the_same(vocab, tmp_path):
    tokenizer = load_tokenizer(vocab)
    (tmp_path / "saved").mkdir()
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "saved" / "tokenizer.json"))
    again = load_tokenizer(tmp_path / "saved")
    assert again.encode("the unables cat").tokens == ["[CLS]", "the", "un", "##able", "##s", "cat", "[SEP]"]
    with pytest.raises(UserError, match="lowercase is False in the file but True was asked"):
        load_tokenizer(tmp_path / "saved", lowercase=True)


def test_word_starts(vocab):
    tokenizer = load_tokenizer(vocab)
    expected = [0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]  # PAD UNK CLS SEP MASK the un ##able ##s cat # A ##a
    np.testing.assert_array_equal(word_start_table(tokenizer), expected)
    ids = special_ids(tokenizer)
    assert (ids.pad, ids.unk, ids.cls, ids.sep, ids.mask) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("content, message", [
    ("[PAD]\n[UNK]\n[CLS]\nx\n", r"special tokens missing: \[SEP\], \[MASK\]"),
    ("\n".join([*SPECIAL_TOKENS, "x", "y", "x"]), "line 8 repeats token 'x' of line 6"),
    ("\xff", "not UTF-8"),
])
def test_bad_vocabularies_are_one_line_errors(content, message, tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(file)
    assert "\n" not in str(caught.value)


def test_missing_files_and_other_json(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_tokenizer(tmp_path / "none.txt")
    with pytest.raises(UserError, match="neither tokenizer.json nor vocab.txt"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer.json"):
        load_tokenizer(tmp_path)


TRAIN = """
from spanbert_jax.text import train_tokenizer
import inspect, tokenizers, pathlib
text = inspect.getdoc(tokenizers.Tokenizer) + pathlib.Path(__import__("argparse").__file__).read_text()
vocab = train_tokenizer(text.split("\\n\\n"), 600).get_vocab()
print(sorted(vocab, key=vocab.get))
"""


def test_training_is_reproducible_across_processes():
    outputs = {subprocess.run([sys.executable, "-c", TRAIN], check=True, capture_output=True, text=True).stdout
               for _ in range(3)}
    assert len(outputs) == 1


def test_trained_vocabulary():
    texts = ["the cat sat on the mat; the Cat's hat", "Élan of the cats"] * 20
    tokenizer = train_tokenizer(iter(texts), 100)
    vocab = tokenizer.get_vocab()
    assert [vocab[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert sorted(vocab.values()) == list(range(len(vocab))) and len(vocab) <= 100
    assert tokenizer.encode("the cat", add_special_tokens=False).tokens == ["the", "cat"]
    assert "É" in vocab and "e" in train_tokenizer(texts, 100, lowercase=True).get_vocab()
    assert "É" not in train_tokenizer(texts, 100, lowercase=True).get_vocab()
    with pytest.raises(UserError, match="at least 64"):
        train_tokenizer(texts, 10)
    with pytest.raises(UserError, match="no text"):
        train_tokenizer([" \n"], 100)
