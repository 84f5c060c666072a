"""Embedding rows of a new vocabulary from those of an old one."""
import types

import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.pretrained import find_tokenizer
from spanbert_jax.interop.vocabulary import transplant
from spanbert_jax.text import (
    SPECIAL_TOKENS,
    keeps_spaces,
    load_tokenizer,
    special_tokens,
    spelling,
    vocabulary_size,
)
from tests.paths import DATA, needs_data
from tests.text import kinds


@pytest.fixture
def tokenizer(tmp_path):
    def make(name, *pieces, lowercase=None):
        (tmp_path / name).write_text("\n".join([*SPECIAL_TOKENS, *pieces]))
        return load_tokenizer(tmp_path / name, lowercase)
    return make


def test_rows_of_shared_and_new_wordpieces(tokenizer):
    old = tokenizer("old", "un", "##able", "##a", "##b", "walk", "##ing", "e")
    new = tokenizer("new", "walk", "unable", "##ab", "walking", "##ingable", "Ω", "##Ω", "É", "un", lowercase=False)
    plan = transplant(old, new)
    ids = old.get_vocab()
    sources = dict(zip(sorted(new.get_vocab(), key=new.get_vocab().get), plan.sources))
    expected = {"walk": ["walk"], "unable": ["un", "##able"], "##ab": ["##a", "##b"], "walking": ["walk", "##ing"],
                "##ingable": ["##ing", "##able"], "Ω": [], "##Ω": [], "É": ["e"], "un": ["un"],
                **{piece: [piece] for piece in SPECIAL_TOKENS}}
    assert sources == {piece: tuple(ids[part] for part in parts) for piece, parts in expected.items()}
    assert (plan.kept, plan.composed, plan.drawn) == (7, 5, 2)

    table = np.random.default_rng(0).normal(size=(len(ids), 3)).astype(np.float32)
    rows = plan.apply(table, 0.02, seed=1)
    np.testing.assert_array_equal(rows[new.token_to_id("walk")], table[ids["walk"]])
    mean = (table[ids["un"]] + table[ids["##able"]]) / 2
    np.testing.assert_allclose(rows[new.token_to_id("unable")], mean, rtol=1e-6)
    drawn = rows[[new.token_to_id("Ω"), new.token_to_id("##Ω")]]
    assert 0 < np.abs(drawn).max() < 0.1 and not np.array_equal(*drawn)
    np.testing.assert_array_equal(rows, plan.apply(table, 0.02, seed=1))
    bias = plan.apply(table[:, 0], 0.02, seed=1)
    assert bias[new.token_to_id("Ω")] == 0 and bias[new.token_to_id("walk")] == table[ids["walk"], 0]


def test_ids_without_an_entry_keep_the_rows_in_place(tokenizer):
    old = tokenizer("old", "a", "b", "c")
    new = tokenizer("new", "b", "c", "b")  # of the repeated entry the last line counts: id 5 has none
    sources = (), (old.token_to_id("c"),), (old.token_to_id("b"),)
    assert transplant(old, new).sources == tuple((i,) for i in range(5)) + sources


@pytest.mark.parametrize("name", kinds.KINDS)
def test_rows_for_vocabularies_of_another_kind(name, tokenizer):
    old = tokenizer("old", "the", "river", "##s", "h", "##o", "##u", "##se", ",", "é", lowercase=False)
    new = kinds.trained(name)
    plan, words, ids = transplant(old, new), spelling(new), old.get_vocab()
    sources = {(bool(begins), body.decode("utf-8", "replace")): plan.sources[i]
               for i, (begins, body) in enumerate(zip(words.begins, words.bodies))}
    roles, old_roles = special_tokens(new), special_tokens(old)
    for role, token in roles.items():
        assert plan.sources[new.token_to_id(token)] == (ids[old_roles[role]],)
    assert sources[False, ","] == (ids[","],)
    spelled = {(True, "the"): ["the"], (True, "house"): ["h", "##o", "##u", "##se"], (True, "ho"): ["h", "##o"],
               (False, "use"): ["##u", "##se"], (False, "s"): ["##s"], (False, "ous"): ["##o", "##u", "##s"]}
    found = {key: parts for key, parts in spelled.items() if key in sources}
    assert found
    for key, parts in found.items():
        assert sources[key] == tuple(ids[part] for part in parts), key
    # And back: a wordpiece is spelled by the tokens of its text, with a space before it if it begins a word.
    back, mark = transplant(new, old), " " * keeps_spaces(new)
    assert back.sources[ids["river"]] == tuple(new.encode(mark + "river", add_special_tokens=False).ids)
    inside = back.sources[ids["##se"]]
    assert inside and words.join(list(inside)) == "se" and not words.begins[list(inside)].any()
    same = transplant(new, kinds.trained(name))
    assert same.sources == tuple((i,) for i in range(vocabulary_size(new))) and same.drawn == 0


@needs_data
def test_real_vocabularies():
    cased, uncased, chinese = (load_tokenizer(DATA / "vocab" / f"bert-base-{name}-vocab.txt")
                               for name in ("cased", "uncased", "chinese"))
    plan = transplant(uncased, cased)
    # What the old tokenizer makes of a piece is what it makes of the word.
    for word in ("Massachusetts", "Élise", "quickly", "Wikipedia"):
        if word in cased.get_vocab():
            assert plan.sources[cased.token_to_id(word)] == tuple(uncased.encode(word, add_special_tokens=False).ids)
    assert plan.drawn < 100 and plan.kept > 15_000
    pieces = {i: piece for piece, i in uncased.get_vocab().items()}
    for piece, number in cased.get_vocab().items():
        if piece.startswith("##") and len(piece) > 2 and len(plan.sources[number]) > 1:
            assert "".join(pieces[i].removeprefix("##") for i in plan.sources[number]) == (
                uncased.normalizer.normalize_str(piece.removeprefix("##")).strip().replace(" ", ""))
    assert transplant(uncased, chinese).drawn > 10_000


def test_a_declared_special_token_without_a_row_is_refused(tokenizer, tmp_path):
    tokenizer("vocab.txt", "cat")
    model = types.SimpleNamespace(path=tmp_path, config=types.SimpleNamespace(vocab_size=6))
    assert find_tokenizer(model)[0].token_to_id("cat") == 5
    (tmp_path / "special_tokens_map.json").write_text('{"additional_special_tokens": ["[E1]"]}')
    with pytest.raises(UserError, match=r"has 7 entries, the last '\[E1\]', and the model 6; give the vocabulary"):
        find_tokenizer(model)
