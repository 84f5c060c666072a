"""Tokenizers are rebuilt: those of every kind are as before, and hostile ones are one-line errors."""
import base64
import copy
import json
import time

import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from spanbert_jax.common.errors import UserError
from spanbert_jax.text import load_tokenizer, special_ids, vocabulary_size
from spanbert_jax.text.targets import load_target_tokenizer
from spanbert_jax.text.tokenizer_components import build
from tests.text import kinds
from tests.text.test_charsmap import encoded, trie
from tests.text.test_patterns import PUBLISHED


def values(kind: str) -> dict:
    """The content of a tokenizer.json."""
    return json.loads(kinds.trained(kind).to_str())


def bert() -> dict:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"]
    made = values("modernbert")
    return made | {"added_tokens": [], "normalizer": {"type": "BertNormalizer", "clean_text": True, "lowercase": True,
                                                      "handle_chinese_chars": True, "strip_accents": None},
                   "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": None, "post_processor": {
                       "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
                   "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                             "max_input_chars_per_word": 100, "vocab": {word: n for n, word in enumerate(words)}}}


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_tokenizers_of_every_kind_are_as_before(kind):
    made = values(kind)
    made["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    built = build(made)
    assert built.to_str() == Tokenizer.from_str(kinds.trained(kind).to_str()).to_str()
    for text in kinds.TEXTS:
        assert built.encode(text).ids == kinds.trained(kind).encode(text).ids


def test_components_of_published_tokenizers_are_as_before():
    made = kinds.trained("xlmr")
    made = Tokenizer.from_str(made.to_str())
    made.normalizer = normalizers.Sequence([  # of T5, ALBERT and Llama
        normalizers.Precompiled(base64.b64decode(encoded(trie()))), normalizers.Strip(),
        normalizers.Replace(Regex(" {2,}"), "▁"), normalizers.Replace("``", '"'), normalizers.Prepend("▁"),
        normalizers.Replace(" ", "▁"), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Sequence([
        *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PUBLISHED.values()),
        pre_tokenizers.Digits(), pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(use_regex=False)])
    built = build(json.loads(made.to_str()))
    assert built.to_str() == Tokenizer.from_str(made.to_str()).to_str()
    assert all(built.encode(text).ids == made.encode(text).ids for text in kinds.TEXTS)


def test_older_files_have_other_fields():
    made = bert()
    del made["model"]["type"]
    assert build(made).encode("ab").tokens == ["[CLS]", "a", "##b", "[SEP]"]
    made = values("xlmr") | {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "str_rep": "▁",
                                               "add_prefix_space": True}}
    del made["model"]["type"]
    assert build(made).encode("The old").ids == kinds.trained("xlmr").encode("The old").ids


def replace(content: str, **pattern: str) -> dict:
    return {"type": "Replace", "pattern": pattern, "content": content}


def split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def template(special: dict, *pieces: dict) -> dict:
    return {"type": "TemplateProcessing", "single": list(pieces), "pair": [], "special_tokens": special}


TEXT, CLS = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
BPE = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
# Section and value that a file has instead, and the message.
HOSTILE: list[tuple[str, object, str]] = [
    ("normalizer", {"type": "Sequence", "normalizers": [replace("a" * 60, String="a")] * 5}, "64 times longer"),
    ("normalizer", replace("a" * 100, String="a"), "at most 64 characters"),
    ("normalizer", {"type": "Sequence", "normalizers": [replace("aa", Regex="a")] * 7}, "64 times longer"),
    ("normalizer", replace("a", Regex="x*"), "does not match the empty text"),
    ("normalizer", replace("a", String=""), "does not match the empty text"),
    ("normalizer", {"type": "Replace", "pattern": "a", "content": "b"}, "an object with one text"),
    ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 100}, "list of at most 64"),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "precompiled_charsmap is damaged"),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": None}, "a text in base64"),
    ("normalizer", {"type": "Shell", "command": "rm"}, "type of normalizer is 'Shell'"),
    ("normalizer", {"type": ["NFC"]}, "type of normalizer"),
    ("normalizer", [], r"normalizer is \[\]: an object"),
    ("pre_tokenizer", split("^(a+)+$"), "several ways is repeated"),
    ("pre_tokenizer", split("(("), "is not closed"),
    ("pre_tokenizer", {"type": "FixedLength", "length": 0}, "a positive number"),
    ("pre_tokenizer", {"type": "CharDelimiterSplit", "delimiter": "ab"}, "did not match"),
    ("post_processor", template({}, CLS, TEXT), "one of special_tokens"),
    ("post_processor", template({}, {"Sequence": {"id": "B", "type_id": 0}}), "a text A or one"),
    ("post_processor", template({}, {"Sequence": {"id": [], "type_id": 0}}), "a text A or one"),
    ("post_processor", template({"[CLS]": {"id": "[CLS]", "ids": [2**31], "tokens": ["a"]}}, CLS, TEXT), "ids below"),
    ("post_processor", template({"[CLS]": {"id": "[CLS]", "ids": [], "tokens": []}}, CLS, TEXT), "ids below"),
    ("post_processor", template({}, *[TEXT] * 100), "list of at most 16"),
    ("post_processor", {"type": "RobertaProcessing", "sep": ["</s>", 2**31], "cls": ["<s>", 0]}, "its id, below"),
    ("model", BPE | {"vocab": {"a": 0, "b": 1, "ab": 2**31}}, "'ab' is 2147483648: an id below 2,000,000"),
    ("model", BPE | {"vocab": {"a": 0, "b": 1, "ab": -1}}, "an id below"),
    ("model", BPE | {"vocab": {"a": 0, "b": 1, "ab": True}}, "an id below"),
    ("model", BPE | {"continuing_subword_prefix": "####"}, "begins with '####'"),
    ("model", BPE | {"continuing_subword_prefix": "##", "merges": [5]}, "begins with '##'"),
    ("model", BPE | {"merges": ["a c"]}, "out of vocabulary"), ("model", BPE | {"merges": ["a"]}, "Merges"),
    ("model", BPE | {"unk_token": "zz"}, "an entry of the vocabulary"),
    ("model", BPE | {"unk_token": ["a"]}, "an entry of the vocabulary"),
    ("model", {"type": "BPE", "vocab": {}, "merges": []}, "vocabulary is empty"),
    ("model", {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": None}, "unk_id is None"),
    ("model", {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}, "UnkIdNotInVocabulary"),
    ("model", {"type": "Unigram", "vocab": ["a"], "unk_id": 0}, "pairs of a text and a number"),
    ("model", {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a", "continuing_subword_prefix": "##",
               "max_input_chars_per_word": 10**9}, "a number up to 10,000"),
    ("model", None, "model is None"), ("added_tokens", {"a": 1}, "added_tokens"), ("added_tokens", [5], "an object"),
    ("added_tokens", [{"id": 9, "content": "x" * 100_000}], "at most 1,000 characters"),
]


@pytest.mark.parametrize("section, value, message", HOSTILE, ids=[f"{one[0]}-{one[2]}" for one in HOSTILE])
def test_hostile_tokenizers_are_one_line_errors(section, value, message, tmp_path, capfd):
    made = copy.deepcopy(values("modernbert")) | {section: value}
    if isinstance(value, dict) and section == "model":
        made["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(made))
    begun = time.process_time()
    for load in (load_tokenizer, load_target_tokenizer):
        with pytest.raises(UserError, match=message) as caught:
            load(tmp_path / "tokenizer.json")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
        assert "tokenizer.json" in str(caught.value)
    assert time.process_time() - begun < 1 and not capfd.readouterr().err  # no panic


@pytest.mark.parametrize("name, value", [
    ("tokenizer_config", {"bos_token": "x" * 100_000}),
    ("special_tokens_map", {"pad_token": {"content": "x" * 10_000}}),
    ("added_tokens", {"x" * 100_000: 600}), ("tokenizer_config", {"added_tokens_decoder": {"600": "x" * 100_000}})])
def test_long_tokens_beside_a_tokenizer_are_refused(name, value, tmp_path):
    kinds.write("modernbert", tmp_path)
    (tmp_path / f"{name}.json").write_text(json.dumps(value))
    begun = time.process_time()
    with pytest.raises(UserError, match=f"{name}.json.*a token of at most 1,000 characters"):
        load_tokenizer(tmp_path)
    assert time.process_time() - begun < 1  # all of it takes a minute


def test_padding_of_a_file_is_left_out(tmp_path):
    made = values("modernbert") | {"padding": {
        "strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(made))
    assert len(load_tokenizer(tmp_path).encode("The old")) < 10


@pytest.mark.parametrize("content", [
    "[" * 100_000, "{" * 1000, "[]", "nan", '{"model": ' * 20_000, "\0" * 100, '"\ud800"'])
def test_other_files_are_one_line_errors(content, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"tokenizer\.json: not a JSON object"):
        load_tokenizer(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    for name in ("tokenizer.json", "vocab.txt"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(UserError, match=f"{name}: more than 128 MiB"):
            load_tokenizer(tmp_path / name)


def test_gpt2_files_are_read(tmp_path):
    made = values("roberta")["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(made["vocab"] | {"<|endoftext|>": len(made["vocab"])}))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, made["merges"]), ""]))
    loaded, text = load_target_tokenizer(tmp_path), "The old house, Élise 東京"
    assert loaded.encode(text).ids == kinds.trained("roberta").encode(text, add_special_tokens=False).ids
    (tmp_path / "vocab.json").write_text('{"a": 4294967295}')
    with pytest.raises(UserError, match="vocab.json and merges.txt are not a GPT-2 tokenizer .*an id below 2,000,000"):
        load_target_tokenizer(tmp_path)


def test_special_tokens_of_rebuilt_tokenizers(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(bert()))
    loaded = load_tokenizer(tmp_path)
    assert vars(special_ids(loaded)) == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert vocabulary_size(loaded) == 7 and loaded.encode("AB").ids == [2, 5, 6, 3]
