"""Coreference: segments and rows against the documents they come from, antecedents in blocks, chains from links."""
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import BertConfig, ComputeConfig
from spanbert_jax.model.coreference import CoreferenceScorer, pair_scores
from spanbert_jax.model.coreference_categories import mention_words
from spanbert_jax.tasks import coreference_antecedents, make_task
from spanbert_jax.tasks.coreference import segments
from spanbert_jax.tasks.coreference_antecedents import MIN_FIRST_WORD_LOG_ODDS, NONE, AntecedentFinder, Antecedents
from spanbert_jax.tasks.coreference_rows import Words
from spanbert_jax.tasks.files.coreference import parse_coreference
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer
from tests.tasks.small import WORDS

ISSUES = DataIssues


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    file.write_text("".join(f"{piece}\n" for piece in [*SPECIAL_TOKENS, *WORDS, ":"]))
    return load_tokenizer(file, lowercase=False)


def document(sentences, clusters=None, **fields):
    """A document of words, with spans whose ends are included, as JSON has them."""
    record = {"sentences": sentences, **({} if clusters is None else {"clusters": clusters}), **fields}
    return parse_coreference(record, "file:1", DataIssues(), with_labels=clusters is not None)


def random_document(seed, sentences=6, longest=9):
    random = np.random.default_rng(seed)
    words = [random.choice(WORDS[:20], random.integers(1, longest)).tolist() for _ in range(sentences)]
    count = sum(map(len, words))
    starts = sorted(random.choice(count, min(8, count), replace=False).tolist())
    spans = [[start, min(count - 1, start + int(random.integers(0, 3)))] for start in starts]
    return document(words, [spans[::2], spans[1::2]])


def make(tokenizer, examples, with_labels=True, **settings):
    task = make_task("coreference", {"length": 16, "ffnn_size": 8, **settings})
    issues = DataIssues()
    return task, task.features(examples, tokenizer, issues, with_labels), issues


@pytest.mark.parametrize("seed", range(20))
def test_segments_end_at_the_last_sentence_or_word_that_fits(seed):
    random = np.random.default_rng(seed)
    sizes, room = random.integers(1, 5, 60), int(random.integers(5, 30))
    sentences = sorted({0, *random.integers(0, 60, 12).tolist()})
    found = segments(sizes, sentences, room)
    assert [word for first, end in found for word in range(first, end)] == list(range(60))
    for first, end in found[:-1]:
        fitting = [stop for stop in range(first + 1, 61) if sizes[first:stop].sum() <= room]
        ends = [stop for stop in fitting if stop in sentences]
        assert end == max(ends or fitting)
    assert segments(np.zeros(0, np.int64), (), 8) == []


def test_features_hold_each_word_once_with_the_mentions_that_begin_in_them(tokenizer):
    examples = [random_document(seed) for seed in range(5)]
    _, features, _ = make(tokenizer, examples)
    words = Words.of(features)
    for number, example in enumerate(examples):
        inside = features.example[words.feature] == number
        assert words.number[inside].tolist() == list(range(len(example.words)))
        ids = [tokenizer.token_to_id(example.word(word)) for word in range(len(example.words))]
        assert features.tokens[words.first[inside]].tolist() == ids
        mentions = [features.labels[feature].reshape(-1, 3)
                    for feature in np.flatnonzero(features.example == number).tolist()]
        found = {(first, end + 1, chain - 1) for first, end, chain in np.concatenate(mentions).tolist()}
        assert found == {(*span, chain) for chain, spans in enumerate(example.chains) for span in spans}
    assert features.lengths.max() <= 16
    assert {int(features.tokens[start]) for start in features.starts[:-1]} == {tokenizer.token_to_id("[CLS]")}


def test_speakers_stand_before_their_turns_and_long_or_unknown_words_are_counted(tokenizer):
    speakers = [["Ann"] * 3, ["Ann"] * 2, ["Bob"] * 2]
    example = document([["the", "old", "house"], ["is", "red"], ["was", "?"]], [[[0, 2], [5, 5]]], speakers=speakers)
    _, features, _ = make(tokenizer, [example])
    pieces = [tokenizer.id_to_token(int(token)) for token in features.tokens]
    assert pieces == "[CLS] Ann : the old house is red Bob : was ? [SEP]".split()
    assert features.token_columns["word"].tolist() == [-1, -1, -1, 0, 1, 2, 3, 4, -1, -1, 5, 6, -1]

    word = "house" + "s" * 40
    example = document([["the", word, "\u200b", "old"]], [[[0, 3], [3, 3]]])
    _, features, issues = make(tokenizer, [example], max_span_width=3)
    assert features.labels.tokens.tolist() == [3, 3, 1]
    assert [count for issue, count in issues.counts.items() if "max_span_width" in issue] == [1]


@pytest.mark.parametrize("most", [16, 48, 4096])
def test_rows_hold_whole_documents_or_equal_parts(tokenizer, most):
    examples = [random_document(seed, sentences) for seed, sentences in enumerate((2, 9, 1, 20, 5))]
    task, features, _ = make(tokenizer, examples, document_length=most)
    rows = task.pack({"train": features}, tokenizer.token_to_id("[PAD]"), seed=3)["train"]
    batch = rows.rows(np.array([*range(len(rows)), -1]))
    assert not batch["documents"][-1].any() and not batch["chains"][-1].any()
    seen = []
    for row in range(len(rows)):
        tokens = batch["tokens"][row].reshape(rows.texts, -1)
        segment_of = batch["segments"][row].reshape(rows.texts, -1)
        assert all(len(set(numbers) - {0}) <= 1 for numbers in segment_of.tolist())  # each in a slot of its own
        assert tokens.shape[1] == 32
        for number in range(1, batch["documents"][row].max(initial=0) + 1):
            inside = np.flatnonzero(batch["documents"][row] == number)
            ids = batch["tokens"][row][batch["word_first"][row, inside]]
            mentions = [(start - inside[0], end - inside[0] + 1, chain) for start, end, chain in zip(
                *(batch[name][row].tolist() for name in ("mention_start", "mention_end", "chains")))
                if chain and inside[0] <= start <= inside[-1]]
            seen.append((ids.tolist(), mentions))
    ids_of = [[tokenizer.token_to_id(example.word(word)) for word in range(len(example.words))] for example in examples]
    if most == 4096:
        expected = [(ids, sorted((*span, chain) for chain, spans in enumerate(example.chains, 1) for span in spans))
                    for ids, example in zip(ids_of, examples)]
        assert sorted(seen) == sorted(expected)
    else:
        assert sorted(word for ids, _ in seen for word in ids) == sorted(itertools.chain.from_iterable(ids_of))
        assert max(len(ids) for ids, _ in seen) <= most
        # A part has the chain of each of its mentions.
        assert {chain for _, mentions in seen for *_, chain in mentions} <= {1, 2}


CONFIG = BertConfig(vocab_size=20, num_layers=1, width=8, num_heads=2, feed_forward=16, max_positions=64)


def make_finder(width=3, ratio=0.5, categories=False):
    scorer = CoreferenceScorer(CONFIG, ComputeConfig(dtype="float32"), 6, categories)
    hidden = jnp.zeros((1, 4, 8))

    def init(module):
        return (module.mention_scores(hidden, hidden), module.pair_vectors(hidden, hidden))

    params = nn.unbox(scorer.init(jax.random.key(0), method=init))["params"]
    random = np.random.default_rng(4)
    params = jax.tree.map(lambda leaf: leaf + random.normal(size=leaf.shape).astype(np.float32) * 0.5, params)
    params["start"]["bias"] += 5  # as after training
    return AntecedentFinder(scorer, width, ratio), params


def all_at_once(finder, params, first, last, classes, mentions=None):
    """Mentions and antecedents from the scores of all words and pairs."""
    apply = lambda *arrays, method: jax.tree.map(  # noqa: E731
        lambda value: np.asarray(value[0]), finder.scorer.apply({"params": params}, *arrays, method=method))
    if mentions is None:
        after = np.pad(last, ((0, finder.max_span_width - 1), (0, 0)))
        starts, scores = apply(first[None], after[None], method="mention_scores")
        ranked = sorted((-scores[word, width], (word, word + width + 1))
                        for word in range(len(first)) for width in range(finder.max_span_width)
                        if starts[word] > MIN_FIRST_WORD_LOG_ODDS and word + width < len(first))
        mentions = sorted(span for _, span in ranked[:int(np.ceil(finder.top_span_ratio * len(first)))])
    mentions = np.array(mentions, np.int64).reshape(-1, 2)
    vectors = apply(first[mentions[:, 0]][None], last[mentions[:, 1] - 1][None], method="pair_vectors")
    scores = apply(first[mentions[:, 0]][None], last[mentions[:, 1] - 1][None], method="scores_of")
    words = None if classes is None else mention_words(np.pad(classes, (0, 9))[mentions[:, :1] + np.arange(9)],
                                                       mentions[:, 1] - mentions[:, 0])
    values = np.array(pair_scores(vectors[1], vectors[2], scores, mentions[:, 0], words,
                                  vectors[0], scores, mentions[:, 0], words))
    values[np.triu_indices(len(mentions))] = -np.inf
    best = [int(row.argmax()) if row.max() > 0 else NONE for row in values]
    return mentions, scores, best


@pytest.mark.parametrize("count", [1, 5, 37, 150])
@pytest.mark.parametrize(("given", "categories"), [(False, False), (True, False), (False, True)])
def test_antecedents_in_blocks_are_those_of_all_pairs(count, given, categories, monkeypatch):
    monkeypatch.setattr(coreference_antecedents, "_WORDS", 16)
    monkeypatch.setattr(coreference_antecedents, "_ANTECEDENTS", (8, 32))
    finder, params = make_finder(categories=categories)
    random = np.random.default_rng(count)
    first, last = random.normal(size=(2, count, 8)).astype(np.float32)
    classes = random.choice([0, 1, 2, 40, 41], count) if categories else None
    mentions = np.array([(word, word + 1) for word in range(0, count, 2)]) if given else None
    found = finder(params, first, last, classes, mentions, given)
    spans, scores, best = all_at_once(finder, params, first, last, classes, mentions)
    assert found.mentions.tolist() == spans.tolist() and found.antecedents.tolist() == best
    np.testing.assert_allclose(found.mention_scores, scores, rtol=1e-4, atol=1e-4)
    assert count < 30 or (len(set(best)) > 3 and NONE in best)


def test_given_mentions_join_those_that_are_found():
    finder, params = make_finder()
    first, last = np.random.default_rng(0).normal(size=(2, 40, 8)).astype(np.float32)
    alone = finder(params, first, last).mentions.tolist()
    given = next([word, word + 2] for word in range(38) if [word, word + 2] not in alone)
    assert finder(params, first, last, given=np.array([given, alone[0]])).mentions.tolist() == sorted([*alone, given])


def test_no_words_have_no_mentions():
    finder, params = make_finder()
    found = finder(params, np.zeros((0, 8), np.float32), np.zeros((0, 8), np.float32))
    assert len(found.mentions) == len(found.antecedents) == 0


def chains(task, example, mentions, antecedents, scores=None):
    found = Antecedents(np.array(mentions).reshape(-1, 2), np.array(scores or [1.0] * len(mentions)),
                        np.array(antecedents), np.zeros(len(mentions)))
    prediction, = task.decode([example], None, {"documents": [found]})
    return [[tuple(mention["words"]) for mention in chain] for chain in prediction["chains"]], prediction


def test_chains_follow_the_links_and_singletons_the_training_data():
    example = document([["Ann", "is", "old", "."], ["Bob", "was", "near", "Ann", "."]])
    mentions, antecedents = [(0, 1), (4, 5), (4, 8), (7, 8)], [NONE, NONE, NONE, 0]
    task = make_task("coreference", {})
    found, prediction = chains(task, example, mentions, antecedents)
    assert found == [[(0, 1), (7, 8)]]
    assert prediction["chains"][0][1] == {"start": 26, "end": 29, "text": "Ann", "words": [7, 8]}
    assert prediction["tokens"] == "Ann is old . Bob was near Ann .".split()
    task = task.with_fitted(singletons=True)
    found, _ = chains(task, example, mentions, antecedents, [-1.0, 0.5, -0.5, 1.0])
    assert found == [[(0, 1), (7, 8)], [(4, 5)]]
    # Given chains are kept, and others join them.
    start = document([["Ann", "is", "old", "."], ["Bob", "was", "near", "Ann", "."]], given_chains=[
        [{"start": 0, "end": 3}, {"start": 13, "end": 16}]])
    assert start.given_chains == (((0, 1), (4, 5)),)
    found, _ = chains(task, start, mentions, antecedents)
    assert found == [[(0, 1), (4, 5), (7, 8)], [(4, 8)]]


def test_training_goes_on_from_the_scorer_of_a_stored_model(tokenizer, start, tmp_path):
    task = make_task("coreference", {"length": 16, "ffnn_size": 8})
    model = task.build_model(open_pretrained(start).config, ComputeConfig(dtype="float32"), tokenizer)
    params = task.initial_params(model, start, load_tokenizer(start), seed=0)
    params["scorer"] = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, params["scorer"])
    task.save_weights(make_folder(tmp_path / "model"), model, params, load_tokenizer(start))
    again = task.initial_params(model, str(tmp_path / "model"), load_tokenizer(start), seed=1)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    other = make_task("coreference", {"length": 16, "ffnn_size": 4})
    model = other.build_model(model.config, model.compute, tokenizer)
    fresh = other.initial_params(model, str(tmp_path / "model"), load_tokenizer(start), seed=1)
    assert fresh["scorer"]["pair"]["kernel"].shape == (8, 8)


def test_examples_of_gap_are_scored_by_whether_pronoun_and_name_share_a_chain(tmp_path):
    file, text = tmp_path / "gap.tsv", "Ann saw Eve when she left ."
    rows = [f"d{number}\t{text}\tshe\t17\tAnn\t0\t{a}\tEve\t8\t{b}\turl{number}"
            for number, (a, b) in enumerate((("TRUE", "FALSE"), ("FALSE", "TRUE"), ("FALSE", "FALSE")))]
    header = "ID\tText\tPronoun\tPronoun-offset\tA\tA-offset\tA-coref\tB\tB-offset\tB-coref\tURL"
    file.write_text("\n".join([header, *rows, ""]))
    task = make_task("coreference", {}).with_fitted(singletons=True)
    examples = list(task.read(str(file), DataIssues()))
    assert [example.mentions for example in examples] == [((0, 1), (2, 3), (4, 5))] * 3
    # The links: she to Ann; she to Eve, and Eve to Ann; none.
    predictions = [chains(task, example, example.mentions, antecedents)[1] for example, antecedents in zip(
        examples, ([NONE, NONE, 0], [NONE, 0, 1], [NONE, NONE, NONE]))]
    metrics = task.score(examples, predictions)
    # Of two true links both are found, with a third.
    assert metrics["gap_precision"] == pytest.approx(200 / 3) and metrics["gap_recall"] == 100
    assert metrics["gap_f1"] == metrics["gap_feminine_f1"] == pytest.approx(80) and metrics["gap_masculine_f1"] == 0
    assert metrics["mention_recall"] == 100 and metrics["mention_precision"] == pytest.approx(80)  # no chains of one


def make_folder(path):
    path.mkdir()
    return path
