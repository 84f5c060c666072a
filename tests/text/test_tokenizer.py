"""Tokenizers: ids equal to Hugging Face's, lower-casing, reproducible training, one-line errors."""
import json
import subprocess
import sys

import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.text import (
    SPECIAL_TOKENS,
    load_tokenizer,
    special_ids,
    special_tokens_as_text,
    train_tokenizer,
    vocabulary_size,
    word_starts,
)
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


def write(folder, pieces, **files):
    """A vocab.txt with JSON files beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *pieces]))
    for name, values in {"config": {"model_type": "bert"}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def test_marks_are_kept_if_the_vocabulary_has_them(tmp_path):
    words = "한국어 서울은 が か हिन्दी tiếng ё й"
    unstated = write(tmp_path / "unstated", words.split())
    assert load_tokenizer(unstated).encode(words.upper(), add_special_tokens=False).tokens == words.split()
    stated = write(tmp_path / "stated", words.split(), tokenizer_config={"do_lower_case": True})
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = transformers.AutoTokenizer.from_pretrained(stated)(words)["input_ids"]
    assert load_tokenizer(stated).encode(words).ids == theirs and 1 in theirs  # a config is followed


MARKER = {"content": "[E1]", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
          "special": True}


@pytest.mark.parametrize("files", [
    {"added_tokens": {"[E1]": 11}},
    {"special_tokens_map": {"additional_special_tokens": ["[E1]"]}},
    {"special_tokens_map": {"bos_token": MARKER}, "added_tokens": {"[E1]": 11}},
    {"tokenizer_config": {"extra_special_tokens": {"marker_token": "[E1]"}, "do_lower_case": True}},
    {"tokenizer_config": {"added_tokens_decoder": {"11": MARKER}, "do_lower_case": True}},
])
def test_added_tokens_are_those_of_transformers(files, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = write(tmp_path, ["e", "##1", "[", "]", "a", "b"], **files)
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text in ("a [E1] b", "a[E1]b", "a[e1]b [SEP] a"):
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
    assert theirs.convert_tokens_to_ids("[E1]") == 11 and vocabulary_size(ours) == 12
    # Only BERT's own special tokens are ordinary text in a text.
    (tmp_path / "json").mkdir()
    ours.save(str(tmp_path / "json/tokenizer.json"))
    for tokenizer in (ours, load_tokenizer(tmp_path / "json")):
        plain = special_tokens_as_text(tokenizer).encode("a [E1] [SEP]", add_special_tokens=False)
        assert plain.ids == [9, 11, 7, 1, 8]  # a [E1] [ [UNK] ]


def test_added_tokens_of_another_vocabulary_are_an_error(tmp_path):
    with pytest.raises(UserError, match=r"id 5 is 'e' there and '\[E1\]' among the added tokens"):
        load_tokenizer(write(tmp_path, ["e"], added_tokens={"[E1]": 5}))


@pytest.mark.parametrize("name, values, message", [
    ("added_tokens", {"[E1]": "x"}, r"added_tokens.json: '\[E1\]' is 'x'; an id below 2,000,000 is needed"),
    ("added_tokens", {"[E1]": -1}, r"added_tokens.json: '\[E1\]' is -1; an id"),
    ("added_tokens", {"[E1]": 6.5}, r"added_tokens.json: '\[E1\]' is 6.5; an id"),
    ("added_tokens", {"[E1]": 2**32}, r"added_tokens.json: '\[E1\]' is 4294967296; an id"),
    ("tokenizer_config", {"added_tokens_decoder": {"-1": MARKER}}, "config.json: added_tokens_decoder is '-1'"),
    ("tokenizer_config", {"added_tokens_decoder": {"6": {}}}, r"added_tokens_decoder\['6'\] is {}; a token"),
    ("tokenizer_config", {"added_tokens_decoder": [MARKER]}, "added_tokens_decoder is .*; an object"),
    ("tokenizer_config", {"extra_special_tokens": {"x": 3}}, "config.json: extra_special_tokens is 3; a token"),
    ("special_tokens_map", {"additional_special_tokens": 5}, "map.json: additional_special_tokens is 5; a list"),
    ("special_tokens_map", {"additional_special_tokens": "[E1]"}, r"additional_special_tokens is '\[E1\]'; a list"),
    ("special_tokens_map", {"additional_special_tokens": [["a"]]}, r"additional_special_tokens is \['a'\]; a token"),
    ("special_tokens_map", {"bos_token": 5}, "special_tokens_map.json: bos_token is 5; a token"),
    ("special_tokens_map", {"mask_token": "<mask>"}, r"mask_token is '<mask>'; \[MASK\], with the id"),
    ("tokenizer_config", {"mask_token": MARKER}, r"tokenizer_config.json: mask_token is '\[E1\]'; \[MASK\], with"),
])
def test_wrong_added_and_special_tokens_are_errors(name, values, message, tmp_path):
    folder = write(tmp_path, ["e", "<mask>"], **{name: values})
    with pytest.raises(UserError, match=message):
        load_tokenizer(folder)


def test_another_mask_token_beside_tokenizer_json_is_that_of_transformers(vocab, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    load_tokenizer(vocab).save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, ["e", "<mask>"], tokenizer_config={"mask_token": "<mask>", "add_bos_token": False})
    ours, theirs = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert special_ids(ours).mask == theirs.mask_token_id == len(VOCABULARY)
    ours.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").unlink()
    assert special_ids(load_tokenizer(tmp_path)).mask == len(VOCABULARY)  # the file alone says so
    write(tmp_path, ["e"], tokenizer_config={"mask_token": "[MASK]", "pad_token": None, "add_bos_token": False})
    assert special_ids(load_tokenizer(tmp_path)).mask == 4


def test_the_config_takes_precedence_over_tokenizer_json(tmp_path, caplog):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    load_tokenizer(write(tmp_path, ["el", "él", "中", "##国", "国", "ab"])).save(str(tmp_path / "tokenizer.json"))
    for stated in ({"do_lower_case": False}, {"do_lower_case": True, "strip_accents": True},
                   {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": False}):
        write(tmp_path, [], tokenizer_config={"tokenizer_class": "BertTokenizer", **stated})
        ours, theirs = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
        for text in ("Él él el AB", "中国"):
            assert ours.encode(text).ids == theirs(text)["input_ids"], (stated, text)
    assert "handle_chinese_chars is True in it and False in tokenizer_config.json" in caplog.text
    write(tmp_path, [], tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False})
    assert load_tokenizer(tmp_path).encode("AB").tokens[1] == "ab"


@pytest.mark.parametrize("name", ["tokenizer_config", "config"])
def test_other_classes_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="its tokenizer_class is BertJapaneseTokenizer, which splits"):
        load_tokenizer(write(tmp_path, ["東", "京"], **{name: {"tokenizer_class": "BertJapaneseTokenizer"}}))
    load_tokenizer(write(tmp_path, ["東", "京"], **{name: {"tokenizer_class": "BertTokenizerFast"}}))


def test_wrong_values_in_the_config_are_errors(tmp_path):
    with pytest.raises(UserError, match="tokenizer_config.json: strip_accents is 'no'; true, false or null is needed"):
        load_tokenizer(write(tmp_path, ["a"], tokenizer_config={"strip_accents": "no"}))


@pytest.mark.parametrize("pieces, note", [
    (["hello", "a", "hello", "world"], "1 line with an entry of a later one, such as 'hello' in lines 6 and 8"),
    (["hello", "", "", "world", ""], "2 lines with an entry of a later one, such as '' in lines 7 and 10"),
])
def test_of_a_repeated_entry_the_last_line_counts(pieces, note, tmp_path, caplog):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = write(tmp_path, [*pieces, ""])
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.encode("hello world").ids == theirs("hello world")["input_ids"]
    assert vocabulary_size(ours) == len(word_starts(ours).table) == len(SPECIAL_TOKENS) + len(pieces)
    assert note in caplog.text


def test_a_byte_order_mark_is_no_part_of_the_vocabulary(vocab, caplog):
    expected = load_tokenizer(vocab).get_vocab()
    vocab.write_bytes(b"\xef\xbb\xbf" + vocab.read_bytes())
    assert load_tokenizer(vocab).get_vocab() == expected and "byte-order mark" in caplog.text


def test_word_starts(vocab):
    tokenizer = load_tokenizer(vocab)
    expected = [0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]  # PAD UNK CLS SEP MASK the un ##able ##s cat # A ##a
    np.testing.assert_array_equal(word_starts(tokenizer).table, expected)
    ids = special_ids(tokenizer)
    assert (ids.pad, ids.unk, ids.cls, ids.sep, ids.mask) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("content, message", [
    ("[PAD]\n[UNK]\n[CLS]\nx\n", r"special tokens missing: \[SEP\], \[MASK\]"),
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
    for size, share, message in ((10, 1.0, "vocab_size=10: must be at least 64 and at most 2000000"),
                                 (10**9, 1.0, "vocab_size=1000000000: must be at least 64"),
                                 (100, 2, "character_coverage=2: must be above 0 and at most 1")):
        with pytest.raises(UserError, match=message):
            train_tokenizer(texts, size, character_coverage=share)
    with pytest.raises(UserError, match="no text"):
        train_tokenizer([" \n"], 100)


def test_every_ideograph_has_one_entry():
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 2000)))
    tokenizer = train_tokenizer([text] * 3, 21_128)
    assert tokenizer.get_vocab_size() == 2005
    assert tokenizer.encode(text, add_special_tokens=False).tokens == list(text)
    assert train_tokenizer([text] * 3, 1_000).get_vocab_size() == 1_000  # also beyond half of the vocabulary


def test_character_coverage_limits_the_alphabet():
    characters = [chr(0xAC00 + i) for i in range(1_500)]
    texts = [" ".join(characters[:1_200])] * 9 + [" ".join(characters)]  # the last 300 are 300 of 12,300
    half, full = (train_tokenizer(texts, 30_000, character_coverage=share).get_vocab() for share in (0.9, 1.0))
    assert set(characters[:1_200]) == half.keys() & set(characters) and set(characters) <= full.keys()
    assert "##" + characters[0] in half


def test_accents_are_kept_or_stripped_as_asked():
    texts = ["Élan der Bären"] * 5
    characters = {strip: set("".join(train_tokenizer(texts, 100, True, strip_accents=strip).get_vocab()))
                  for strip in (None, True, False)}
    assert "é" in characters[False] and "É" not in characters[False]
    assert "é" not in characters[None] and characters[None] == characters[True]
