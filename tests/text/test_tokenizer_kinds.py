"""Tokenizers of every kind: ids equal to transformers', special tokens by role, words, and where tokens stand."""
import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from spanbert_jax.common.errors import UserError
from spanbert_jax.text import (
    keeps_spaces,
    load_tokenizer,
    pair_layout,
    pretoken_numbers,
    special_ids,
    special_tokens,
    special_tokens_as_text,
    spelling,
    token_offsets,
    train_tokenizer,
    vocabulary_size,
    with_one_token_type,
    word_starts,
)
from tests.text import kinds

TEXTS = ["The president of France lives in Paris.", " two  spaces\n and a line", "Élise: über Äpfel", "東京は大きい。",
         "한국어", "a<mask> b [MASK] c", "</s> <eos> [SEP]", "", "x😀y", "\u00a0x\u3000y"]


@pytest.fixture(scope="module", params=kinds.KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return kinds.write(kind, tmp_path_factory.mktemp(kind))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return kinds.load_by_transformers(folder)


def test_ids_equal_those_of_transformers(tokenizer, theirs):
    for text in TEXTS:
        assert tokenizer.encode(text).ids == theirs(text)["input_ids"], text
        pair = tokenizer.encode(text, "in Paris")
        expected = theirs(text, "in Paris", return_token_type_ids=True)
        assert (pair.ids, pair.type_ids) == (expected["input_ids"], expected["token_type_ids"]), text
        first, second = (tokenizer.encode(one, add_special_tokens=False).ids for one in (text, "in Paris"))
        layout = pair_layout(tokenizer)
        assert (layout.tokens(first, second), layout.types(len(first), len(second))) == (pair.ids, pair.type_ids)
    roles = {role: getattr(theirs, f"{role}_token_id") for role in ("pad", "unk", "cls", "sep", "mask")}
    assert vars(special_ids(tokenizer)) == roles


def test_special_tokens_are_text_in_a_text(tokenizer):
    plain, special = special_tokens_as_text(tokenizer), special_tokens(tokenizer)
    ids = {tokenizer.token_to_id(token) for role, token in special.items() if role != "unk"}
    for text in [*TEXTS, *special.values(), *(f"a {token}b" for token in special.values())]:
        found = plain.encode(text, add_special_tokens=False)
        assert not ids & set(found.ids), text
        if not any(token in text for token in special.values()):
            assert found.ids == tokenizer.encode(text, add_special_tokens=False).ids


def starts(tokenizer, *texts):
    """The words that texts are divided into."""
    encodings = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    tokens = np.concatenate([np.array(encoding.ids, np.int32) for encoding in encodings])
    begins = np.flatnonzero(word_starts(tokenizer)(tokens, pretoken_numbers(encodings, 0)))
    return [spelling(tokenizer).join(tokens[a:b].tolist()) for a, b in zip(begins, [*begins[1:], len(tokens)])]


def test_words_are_runs_of_whole_tokens(tokenizer, kind):
    words = ["The", "president", ",", "of", "(", "old", ")", "France", "."]
    assert starts(tokenizer, "The president, of (old) France.") == words
    assert starts(tokenizer, "The river", "near", "the") == ["The", "river", "near", "the"]
    assert starts(tokenizer, "Élise über") == ["Élise", "über"]  # bytes of a character are not divided
    if kind != "xlmr":  # to which the character is unknown
        assert starts(tokenizer, "大x") == ["大", "x"]
    assert len(starts(tokenizer, "大住京東にいる")) > 3


def test_byte_level_words_are_those_of_the_pre_tokenizer():
    tokenizer, text = kinds.trained("modernbert"), "The old man's house, near Paris: \"don't go (now)!\" he said 3x"
    encoding = tokenizer.encode(text, add_special_tokens=False)
    ids, word_ids = np.array(encoding.ids), np.array(encoding.word_ids)
    expected = np.diff(word_ids, prepend=-1) != 0
    found = word_starts(tokenizer)(ids, pretoken_numbers([encoding], 0)).astype(bool)
    assert (found >= expected).all()  # and after the apostrophe of "'s", as in BERT
    divided = [encoding.tokens[i] for i in np.flatnonzero(found & ~expected)]
    assert set(divided) <= {"s", "t"}


def test_offsets_leave_out_spaces_and_span_whole_characters(tokenizer):
    text = "  The old\n house, Élise 😀 東京"
    encoding = tokenizer.encode(text, add_special_tokens=False)
    offsets = token_offsets(text, encoding)
    assert (np.diff(offsets, axis=0) >= 0).all()
    covered = [text[a:b] for a, b in offsets]
    assert all(part == part.strip() for part in covered)
    marks = np.zeros(len(text), bool)
    for a, b in offsets:
        marks[a:b] = True
    assert "".join(c for c, mark in zip(text, marks) if mark) == "".join(text.split())
    smiley = text.index("😀")
    assert (offsets[(offsets[:, 0] <= smiley) & (offsets[:, 1] > smiley)] == [smiley, smiley + 1]).all()


def test_with_one_token_type_only_the_types_change(tokenizer):
    one = with_one_token_type(tokenizer)
    pair = one.encode("The old", "house")
    assert pair.ids == tokenizer.encode("The old", "house").ids and not any(pair.type_ids)
    assert special_ids(one) == special_ids(tokenizer)


def test_spaces_matter_where_no_mark_is_added_at_the_start(tokenizer, kind):
    assert keeps_spaces(tokenizer) == (kind != "xlmr")


def test_a_mark_that_the_normalizer_puts_at_the_start_is_enough(tmp_path):
    made = Tokenizer.from_str(kinds.trained("gemma").to_str())
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.save(str(tmp_path / "tokenizer.json"))
    assert not keeps_spaces(load_tokenizer(tmp_path))


def test_the_config_decides_on_the_prefix_space(tmp_path):
    folder = kinds.write("modernbert", tmp_path)
    for value in (True, False):
        (folder / "tokenizer_config.json").write_text(json.dumps(
            {**kinds.CONFIGS["modernbert"], "add_prefix_space": value}))
        ours, theirs = load_tokenizer(folder), kinds.load_by_transformers(folder)
        assert ours.encode("The old").ids == theirs("The old")["input_ids"]
        assert ours.pre_tokenizer.add_prefix_space == value


def test_stated_tokens_have_their_role_in_the_file_alone(tmp_path):
    folder = kinds.write("modernbert", tmp_path)
    config = {**kinds.CONFIGS["modernbert"], "mask_token": "<blank>", "pad_token": "!"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = load_tokenizer(folder), kinds.load_by_transformers(folder)
    assert special_ids(ours).mask == theirs.mask_token_id == vocabulary_size(ours) - 1
    again = Tokenizer.from_str(ours.to_str())
    assert special_tokens(again) == special_tokens(ours) and special_tokens(ours)["pad"] == "!"
    assert again.encode("The old", "house").ids == theirs("The old", "house")["input_ids"]


@pytest.mark.parametrize("role, message", [
    ("mask", r'no mask token: tokenizer_config.json has no mask_token, and the vocabulary no \[MASK\] or <mask>; '
             'add "mask_token" to tokenizer_config.json'),
    ("cls", 'no cls token: .* add "cls_token" to'), ("sep", 'no sep token: .* add "sep_token" to')])
def test_a_missing_role_is_an_error_that_says_what_to_add(role, message, tmp_path):
    made = Tokenizer(models.WordLevel({name: number for number, name in enumerate(
        [f"[{one.upper()}]" for one in ("pad", "unk", "cls", "sep", "mask") if one != role] + ["a", "b"])}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({f"{role}_token": "<new>"}))
    added = load_tokenizer(tmp_path)
    assert added.encode("a b").ids == [added.token_to_id(special_tokens(added)["cls"]), 4, 5,
                                       added.token_to_id(special_tokens(added)["sep"])]
    assert special_tokens(added)[role] == "<new>" and vocabulary_size(added) == 7


def test_words_without_marks_are_those_of_the_pre_tokenizer(tmp_path):
    made = Tokenizer(models.BPE(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(kinds.TEXTS, trainers.BpeTrainer(vocab_size=120, show_progress=False, special_tokens=[
        "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]))
    made.save(str(tmp_path / "tokenizer.json"))
    encoding = load_tokenizer(tmp_path).encode("the river house", add_special_tokens=False)
    tokens = np.array(encoding.ids)
    found = word_starts(made)(tokens, pretoken_numbers([encoding], 0))
    assert len(tokens) > 3 and found.sum() == 3 and not word_starts(made).table[tokens].any()


@pytest.mark.parametrize("model", ["bpe", "unigram"])
def test_trained_vocabularies_of_other_models(model, tmp_path):
    tokenizer = train_tokenizer(iter(kinds.TEXTS), 400, model=model)
    assert vars(special_ids(tokenizer)) == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert 100 < vocabulary_size(tokenizer) <= 400 and tokenizer.to_str() == train_tokenizer(
        kinds.TEXTS, 400, model=model).to_str()
    encoding = tokenizer.encode("The old house", "near Paris")
    assert encoding.ids[0] == 2 and encoding.ids.count(3) == 2 and encoding.type_ids[-1] == 1
    assert tokenizer.decode(encoding.ids).split() == ["The", "old", "housenear" if model == "bpe" else "house",
                                                      *(["Paris"] if model == "bpe" else ["near", "Paris"])]
    lower = train_tokenizer(kinds.TEXTS, 400, lowercase=True, model=model)
    assert lower.encode("ÉLISE The").ids == lower.encode("elise the").ids  # accents are stripped, as in BERT
    kept = train_tokenizer(kinds.TEXTS, 400, lowercase=True, strip_accents=False, model=model)
    assert kept.encode("É").ids == kept.encode("é").ids != kept.encode("e").ids
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).to_str() == tokenizer.to_str()
    with pytest.raises(UserError, match="no text"):
        train_tokenizer([" \n"], 400, model=model)


def test_sizes_and_names_of_models_are_checked():
    with pytest.raises(UserError, match="vocab_size=300: must be at least 320"):
        train_tokenizer(kinds.TEXTS, 300, model="bpe")
    with pytest.raises(UserError, match="model='bert': allowed are wordpiece, bpe, unigram"):
        train_tokenizer(kinds.TEXTS, 300, model="bert")
    assert vocabulary_size(train_tokenizer(["ab"], 64, model="unigram")) <= 64
