"""Rows of a chunk: no token lost, special tokens and flags, packing, annotations, pairs, statistics."""
from itertools import pairwise

import numpy as np
import pytest

from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.rows import Chunk, RowBuilder, RowSettings
from spanbert_jax.corpus.settings import CorpusSettings
from spanbert_jax.text import (
    load_tokenizer,
    pair_layout,
    sentence_spans,
    special_ids,
    special_tokens_as_text,
    spelling,
    word_starts,
)
from tests.text import kinds

LENGTH = 64


def make(vocabulary, documents, **changes):
    seed, settings = changes.pop("seed", 0), CorpusSettings(**{"length": LENGTH, **changes})
    return RowBuilder(RowSettings(load_tokenizer(vocabulary).to_str(), settings, seed))(Chunk((0, 0), documents))


def blocks_of(rows, special):
    """Yields the ids between [CLS] and [SEP] of every segment, and checks special tokens and padding."""
    for tokens, segments in zip(rows["tokens"], rows["segments"]):
        filled = int((segments > 0).sum())
        assert (segments[:filled] > 0).all() and (tokens[filled:] == special.pad).all()
        assert (np.diff(segments[:filled].astype(int)) >= 0).all()
        assert set(segments[:filled]) == set(range(1, segments.max() + 1))
        for segment in range(1, segments.max() + 1):
            inside = tokens[segments == segment]
            assert inside[0] == special.cls and inside[-1] == special.sep
            yield inside[1:-1].tolist()


@pytest.mark.parametrize("blocks", ["sentences", "contiguous"])
@pytest.mark.parametrize("pack", [False, True])
def test_no_token_is_lost_or_changed(blocks, pack, prose, vocabulary):
    tokenizer = load_tokenizer(vocabulary)
    special, table = special_ids(tokenizer), word_starts(tokenizer).table
    documents = [Document(text, f"{i}", 1) for i, text in enumerate(prose[:8])]
    rows, stats = make(vocabulary, documents, blocks=blocks, pack=pack)
    found = sorted(blocks_of(rows, special))
    expected = [tokenizer.encode(document.text, add_special_tokens=False).ids for document in documents]
    assert stats.counts["tokens"] == sum(map(len, expected)) == sum(map(len, found))
    if not pack:
        joined = [token for block in blocks_of(rows, special) for token in block]
        assert joined == [token for ids in expected for token in ids]
    if blocks == "contiguous":
        windows = [ids[i:i + LENGTH - 2] for ids in expected for i in range(0, len(ids), LENGTH - 2)]
        assert found == sorted(windows)
    starts, tokens = rows["word_starts"], rows["tokens"]
    first_in_block = np.roll(tokens == special.cls, 1, axis=1)
    np.testing.assert_array_equal(starts, np.where(first_in_block & (rows["segments"] > 0), 1, table[tokens]))
    assert (rows["next_sentence"] == -1).all() and not rows["token_types"].any() and not rows["annotations"].any()
    assert stats.counts["filled positions"] == sum(map(len, found)) + 2 * len(found)
    if pack:
        filled = np.sort((rows["segments"] > 0).sum(1))
        assert rows["segments"].max() > 1 and filled[0] + filled[1] > LENGTH  # no two rows fit into one


def test_blocks_are_whole_sentences(prose, vocabulary):
    tokenizer = load_tokenizer(vocabulary)
    text = prose[3]
    lengths = [len(tokenizer.encode(text[a:b], add_special_tokens=False).ids) for a, b in sentence_spans(text)]
    rows, stats = make(vocabulary, [Document(text, "f", 1)])
    ends = set(np.cumsum(lengths).tolist())
    cuts = np.cumsum([len(block) for block in blocks_of(rows, special_ids(tokenizer))]).tolist()
    long = sum(length > LENGTH - 2 for length in lengths)
    assert stats.counts["sentences"] == len(lengths)
    assert stats.issues.counts["sentences longer than a row cut"] == long
    assert len(set(cuts) - ends) <= sum(length // (LENGTH - 2) for length in lengths if length > LENGTH - 2)


def test_pairs(prose, vocabulary):
    special = special_ids(load_tokenizer(vocabulary))
    documents = [Document(text, f"{i}", 1) for i, text in enumerate(prose[:8])]
    rows, _ = make(vocabulary, documents, blocks="pairs", short_sequence_probability=0.1)
    assert set(rows["next_sentence"]) == {0, 1}
    for tokens, types, segments in zip(rows["tokens"], rows["token_types"], rows["segments"]):
        filled = int((segments == 1).sum())
        assert tokens[0] == special.cls and tokens[filled - 1] == special.sep and (tokens[filled:] == special.pad).all()
        first, second = tokens[1:filled][types[1:filled] == 0], tokens[:filled][types[:filled] == 1]
        assert (tokens[:filled] == special.sep).sum() == 2 and first[-1] == second[-1] == special.sep
        assert len(first) > 1 and len(second) > 1 and not types[filled:].any()
    again, _ = make(vocabulary, documents, blocks="pairs", short_sequence_probability=0.1)
    other, _ = make(vocabulary, documents, blocks="pairs", short_sequence_probability=0.1, seed=1)
    np.testing.assert_array_equal(rows["tokens"], again["tokens"])
    assert rows["tokens"].shape != other["tokens"].shape or (rows["tokens"] != other["tokens"]).any()


def test_annotations_mark_the_tokens_of_units(vocabulary):
    tokenizer = load_tokenizer(vocabulary)
    text = "The statement raises an exception.  Here is another one, unannotated. In a new   sentence it ends"
    words = ["statement", "an exception", "new   sentence", "ends"]
    units = tuple((text.index(word), text.index(word) + len(word)) for word in words)
    rows, _ = make(vocabulary, [Document("Nothing here.", "g", 1, ()), Document(text, "f", 1, units)])
    tokens, marks = rows["tokens"][1], rows["annotations"][1]
    expected = []
    for start, end in tokenizer.encode(text, add_special_tokens=False).offsets:
        inside = [unit for unit in units if unit[0] <= start and end <= unit[1]]
        expected.append(0 if not inside else 1 if start == inside[0][0] else 2)
    assert 2 in expected and marks[1:len(expected) + 1].tolist() == expected and tokens[0] != 0
    assert not rows["annotations"][0].any() and not marks[len(expected) + 1:].any()
    rows, _ = make(vocabulary, [Document(text, "f", 1, units)], blocks="contiguous", length=8)
    assert (rows["annotations"][:, 1] < 2).all()  # a unit that a window cuts begins again


def test_special_tokens_in_a_text_are_tokenized_as_text(vocabulary):
    special = special_ids(load_tokenizer(vocabulary))
    rows, _ = make(vocabulary, [Document("Put [SEP] and [MASK] between.", "f", 1)])
    assert (rows["tokens"] == special.sep).sum() == 1 and special.mask not in rows["tokens"]


def test_further_special_tokens_in_a_text_are_tokens(vocabulary, tmp_path):
    tokenizer = load_tokenizer(vocabulary)
    tokenizer.add_special_tokens(["[E1]"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows, _ = make(tmp_path, [Document("Put [E1] before [SEP].", "f", 1)])
    marker = tokenizer.token_to_id("[E1]")
    assert (rows["tokens"] == marker).sum() == 1 and rows["word_starts"][rows["tokens"] == marker].all()


def test_unknown_words_control_characters_and_long_texts_are_counted(vocabulary, monkeypatch):
    text = "A line.\nThe \u4e2d and \u6587 and \u4e2d.\x07\x00 Then " + "x" * 120 + " ends."
    _, stats = make(vocabulary, [Document("Nothing.", "g", 1), Document(text, "f.txt", 10)])
    assert stats.unknown_words == {"\u4e2d": 2, "\u6587": 1, "x" * 40: 1}
    assert stats.first_places["\u4e2d"] == "f.txt:11" and stats.counts["unknown tokens"] == 4
    assert stats.issues.counts == {"control characters removed": 2}
    from spanbert_jax.corpus import tokenization
    whole, _ = make(vocabulary, [Document("some words " * 50, "f", 1)], blocks="contiguous")
    monkeypatch.setattr(tokenization, "MAX_TEXT_CHARACTERS", 70)
    cut, stats = make(vocabulary, [Document("some words " * 50, "f", 1)], blocks="contiguous")
    np.testing.assert_array_equal(whole["tokens"], cut["tokens"])
    assert stats.issues.counts["very long sentences or lines cut"] == 1


def test_sentence_lines(vocabulary):
    rows, stats = make(vocabulary, [Document("one. two\nthree", "f", 1, sentence_lines=True)])
    assert stats.counts["sentences"] == 2 and len(rows["tokens"]) == 1


def test_a_chunk_without_tokens(vocabulary):
    rows, stats = make(vocabulary, [Document("\x00 \ufffd", "f", 1)], pack=True)
    assert rows["tokens"].shape == (0, LENGTH) and stats.counts["rows"] == 0
    rows, _ = make(vocabulary, [Document("\x00", "f", 1)], blocks="pairs")
    assert rows["next_sentence"].shape == (0,)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_rows_of_other_tokenizers_hold_the_tokens_of_their_documents(kind, tmp_path):
    folder = kinds.write(kind, tmp_path)
    tokenizer, special = load_tokenizer(folder), special_ids(load_tokenizer(folder))
    text = "The old house. The river is near Paris! He lives in France, and says </s> to it."
    rows, _ = make(folder, [Document(text, "f", 1)])
    (found,) = blocks_of(rows, special)
    # Sentences are tokenized one by one, but as they are in the text. Only "</s>" is not a special token here.
    expected = special_tokens_as_text(tokenizer).encode(text, add_special_tokens=False).ids
    assert found == expected and not {special.cls, special.sep} & set(found)
    words = spelling(tokenizer)
    begins = np.flatnonzero(rows["word_starts"][0])
    spelled = [words.join(rows["tokens"][0, a:b].tolist()) for a, b in zip(begins, [*begins[1:], len(found) + 1])]
    assert spelled[:9] == ["The", "old", "house", ".", "The", "river", "is", "near", "Paris"] and len(spelled) > 18

    pairs, _ = make(folder, [Document(text * 3, f"{i}", 1) for i in range(4)], blocks="pairs")
    layout, (tokens, types, segments) = pair_layout(tokenizer), (
        pairs[name][0] for name in ("tokens", "token_types", "segments"))
    inside = tokens[segments > 0].tolist()
    middle = [place for place, token in enumerate(inside[:-1]) if token == special.sep]
    assert len(inside) > 20 and inside[0] == special.cls and inside[-1] == special.sep
    assert [inside[place] for place in middle] == list(layout.between)
    assert types[:middle[0] + 1].tolist() == [0] * (middle[0] + 1) and types[len(inside) - 1] == 1


def test_annotations_of_a_byte_level_tokenizer_begin_at_their_word(tmp_path):
    folder = kinds.write("modernbert", tmp_path)
    text = "The old. The house near Paris is old"
    units = [(text.index(name), text.index(name) + len(name)) for name in ("house", "Paris")]
    rows, _ = make(folder, [Document(text, "f", 1, tuple(units))])
    words, tokens, annotations = spelling(load_tokenizer(folder)), rows["tokens"][0], rows["annotations"][0]
    begins = [*np.flatnonzero(annotations == 1), None]
    assert [words.join(tokens[a:b][annotations[a:b] > 0].tolist()) for a, b in pairwise(begins)] == [
        "house", "Paris"]
