"""Extractive summarization: features token by token, windows, loss, choice of sentences, and metrics."""
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy.special import log_softmax, softmax

from spanbert_jax.commands.config_files import load_config
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.finetuning.config import as_finetuning_config
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import add_rows
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.extractive_summarization import best_sentences, sentence_windows
from spanbert_jax.tasks.files.summaries import Document
from spanbert_jax.tasks.metrics.rouge import greedy_oracle
from spanbert_jax.tasks.protocol import fitted_values
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer, special_ids
from tests.paths import DATA, needs_data
from tests.runs import ROOT

TRUNCATED = "sentences longer than config.task.length, truncated at the end"
NO_TOKENS = "sentences that the tokenizer maps to no token, never chosen"
NO_WORD = "documents that share no word with their summary, trained with no sentence to choose"


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A tokenizer in whose vocabulary each letter is a word."""
    file = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    file.write_text("".join(f"{piece}\n" for piece in [*SPECIAL_TOKENS, *"abcdefghijklmnop.[]", "sep"]))
    return load_tokenizer(file)


def make(fitted=None, **settings):
    return make_task("extractive_summarization", {"length": 64, **settings}, fitted)


def document(sentences, *summaries, id="1"):
    """A document from sentences, or from a text."""
    given = None if isinstance(sentences, str) else tuple(sentences)
    return Document(id, f"f:{id}", f"f:{id}", given, sentences if given is None else " ".join(given), summaries)


def pieces(tokenizer, features, feature):
    return [tokenizer.id_to_token(int(token)) for token in features.tokens[features.token_slice(feature)]]


def test_features_token_by_token(letters):
    issues = DataIssues()
    examples = [document(["a b", "\x00", "c [SEP]", "d"], "d a b", "n"), document("e f. g\n\nh", "h", id="2"),
                document(["o"], "p", id="3")]
    features = make(sentences=2).features(examples, letters, issues)
    assert features.example.tolist() == [0, 1, 2]
    assert [pieces(letters, features, feature) for feature in range(3)] == [
        "[CLS] a b [SEP] [CLS] c [ sep ] [SEP] [CLS] d [SEP]".split(),
        "[CLS] e f . g [SEP] [CLS] h [SEP]".split(), "[CLS] o [SEP]".split()]
    # The second sentence has no pieces, but its number.
    assert features.token_columns["sentence"].tolist() == [0] * 4 + [2] * 6 + [3] * 3 + [0] * 6 + [1] * 3 + [0] * 3
    assert features.token_types.tolist() == [0] * 4 + [1] * 6 + [0] * 3 + [0] * 6 + [1] * 3 + [0] * 3
    assert features.token_columns["label"].tolist() == [1] * 4 + [0] * 6 + [1] * 3 + [0] * 6 + [1] * 3 + [0] * 3
    np.testing.assert_allclose(features.token_columns["label_weight"], np.repeat(1 / np.array([4, 6, 3, 6, 3, 3]),
                                                                          [4, 6, 3, 6, 3, 3]))
    assert {name: array.dtype for name, array in features.token_columns.items()} == {
        "sentence": "int32", "label": "int32", "label_weight": "float32"}
    assert issues.counts == {NO_TOKENS: 1, NO_WORD: 1} and issues.places[NO_TOKENS] == ["f:1 (id '1')"]
    unlabelled = make().features(examples, letters, DataIssues(), with_labels=False)
    assert list(unlabelled.token_columns) == ["sentence"]
    np.testing.assert_array_equal(unlabelled.token_columns["sentence"], features.token_columns["sentence"])


def test_long_documents_by_hand(letters):
    """Four sentences of four tokens, of which two fit into a feature; and one that is too long."""
    issues = DataIssues()
    examples = [document(["a b", "c d", "e f", "g h"]), document(["a b", "a b c d e f g h i j", "k"], id="2")]
    features = make(length=9).features(examples, letters, issues, with_labels=False)
    assert ["".join(piece for piece in pieces(letters, features, feature) if len(piece) == 1)
            for feature in range(len(features))] == ["abcd", "cdef", "efgh", "ab", "abcdefg", "k"]
    found = [features.token_columns["sentence"][features.token_slice(feature)] for feature in range(len(features))]
    # Each has a sentence before it or one after it, and never both: it counts where it comes first.
    assert [sorted(set(of_one[of_one >= 0].tolist())) for of_one in found] == [[0, 1], [2], [3], [0], [1], [2]]
    assert [np.count_nonzero(of_one >= 0) for of_one in found] == [8, 4, 4, 4, 9, 3]
    assert issues.counts == {TRUNCATED: 1} and issues.places == {TRUNCATED: ["f:2 (id '2')"]}
    assert features.lengths.max() == 9 and features.example.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("room, longest", [(64, 20), (64, 64), (30, 10), (512, 60), (3, 3)])
def test_windows_give_each_sentence_the_most_context(room, longest):
    random = np.random.default_rng(room + longest)
    for count in (1, 2, 3, 10, 100):
        sizes = random.integers(3, longest + 1, count)
        windows, chosen = sentence_windows(sizes, room)
        assert windows[0][0] == 0 and windows[-1][1] == count and len(chosen) == count
        for begin, end in windows:
            assert begin < end and sizes[begin:end].sum() <= room
        for (begin, end), (later, later_end) in itertools.pairwise(windows):
            assert begin < later <= end < later_end  # nothing is passed over, and something is new in each
            assert sizes[begin:end + 1].sum() > room  # no further sentence fits
            # At least half of the sentences come again, unless what is new leaves no room for them.
            halved = later <= (begin + end + 1) // 2
            assert halved or sizes[later - 1:later_end].sum() > room or later_end == count

        def context(sentence, window):
            begin, end = window
            return min(sizes[begin:sentence].sum(), sizes[sentence + 1:end].sum())
        for sentence, number in enumerate(chosen):
            around = [context(sentence, window) for window in windows if window[0] <= sentence < window[1]]
            begin, end = windows[number]
            assert begin <= sentence < end and context(sentence, windows[number]) == max(around)


@needs_data
def test_real_documents_longer_than_a_feature():
    """Each sentence counts once, with the oracle's label."""
    tokenizer = load_tokenizer(DATA / "vocab" / "bert-base-cased-vocab.txt")
    task = make(length=100, source="source", target="target", id="paper_id", sentences=2)
    examples = list(task.read(str(DATA / "scitldr" / "SciTLDR-A-dev.jsonl"), DataIssues()))[::8]
    issues = DataIssues()
    features = task.features(examples, tokenizer, issues)
    assert features.lengths.max() <= 100 and len(features) > 2 * len(examples)
    cut = 0
    for number, owned in enumerate(features.by_example(len(examples))):
        sentences = list(examples[number].sentences)
        at = np.concatenate([np.arange(len(features.tokens))[features.token_slice(feature)] for feature in owned])
        at = at[(features.token_columns["sentence"][at] >= 0) & (features.tokens[at] == special_ids(tokenizer).cls)]
        read = features.token_columns["sentence"][at]
        assert sorted(read) == list(range(len(sentences)))
        for sentence, start in zip(read, at):
            expected = tokenizer.encode(sentences[sentence], add_special_tokens=False).ids[:98]
            assert features.tokens[start + 1:start + 1 + len(expected)].tolist() == expected
        chosen = read[features.token_columns["label"][at] == 1]
        assert sorted(chosen) == greedy_oracle(sentences, examples[number].summaries, 2)
        cut += sum(len(tokenizer.encode(text, add_special_tokens=False).ids) > 98 for text in sentences)
    count = sum(len(example.sentences) for example in examples)
    assert features.token_columns["label_weight"].sum() == pytest.approx(count)
    assert issues.counts[TRUNCATED] == cut


def test_loss_on_packed_rows_equals_numpy():
    random = np.random.default_rng(0)
    logits = random.normal(size=(3, 20, 2)).astype(np.float32) * 3
    weight = (random.random((3, 20)) * (random.random((3, 20)) < 0.3)).astype(np.float32)
    label = random.integers(0, 2, (3, 20)) * (weight > 0)
    batch = {"label": jnp.asarray(label, jnp.int32), "label_weight": jnp.asarray(weight)}
    term = jax.jit(lambda logits, batch: add_rows(make().loss(Outputs(None, logits=logits), batch)))(
        jnp.asarray(logits), batch)
    counted = [tuple(at) for at in np.argwhere(weight)]
    assert float(term.loss) == pytest.approx(sum(-log_softmax(logits[at].astype(np.float64))[label[at]] * weight[at]
                                                 for at in counted), rel=1e-5)
    assert float(term.correct) == pytest.approx(sum(weight[at] for at in counted if logits[at].argmax() == label[at]))
    assert float(term.count) == pytest.approx(weight.sum()) and {leaf.dtype for leaf in term} == {jnp.dtype("float32")}


def logits_of(features, odds, seed=0):
    """Logits [T, 2] with given mean log odds of each sentence, and random values elsewhere."""
    logits = np.random.default_rng(seed).normal(0, 5, (len(features.tokens), 2)).astype(np.float32)
    example = np.repeat(features.example, features.lengths)
    for number, of_one in enumerate(odds):
        for sentence, mean in enumerate(of_one):
            at = np.flatnonzero((example == number) & (features.token_columns["sentence"] == sentence))
            if len(at):
                around = logits[at, 1] - logits[at, 1].mean()
                logits[at, 1] = logits[at, 0] + around + mean
    return logits


def test_predictions(letters):
    task = make(sentences=2, length=9)
    examples = [document(["a b", "c d", "\x00", "e f", "g h"]), document(" i j. K\nl", id="2"),
                document("", id="3"), document(["m"], id="4"), document(["\x00"], id="5")]
    features = task.features(examples, letters, DataIssues(), with_labels=False)
    odds = [[-1, 0.5, 99, -2, 3], [2, -700], [], [-1], [99]]
    logits = logits_of(features, odds)
    first, text, empty, one, unread = predictions = task.decode(examples, features, {"logits": logits})
    assert json.loads(json.dumps(predictions)) == predictions and [p["id"] for p in predictions] == list("12345")
    probabilities = [1 / (1 + np.exp(-odd)) for odd in odds[0]]
    probabilities[2] = 0
    assert first["scores"] == pytest.approx(probabilities, rel=1e-5)
    assert first["summary"] == "c d g h" and "note" not in first
    assert [(s["sentence"], s["start"], s["end"], s["text"]) for s in first["sentences"]] == [
        (1, 4, 7, "c d"), (4, 14, 17, "g h")]
    assert [s["score"] for s in first["sentences"]] == [first["scores"][1], first["scores"][4]]
    assert text["summary"] == "i j. K\nl" and text["sentences"][1]["start"] == 6
    assert one["summary"] == "m" and one["scores"] == pytest.approx([softmax([0, -1])[1]])
    for nothing, count in ((empty, 0), (unread, 1)):
        assert (nothing["summary"], nothing["sentences"], nothing["scores"]) == ("", [], [0.0] * count)
        assert nothing["note"] == "no sentence has a token"
    assert task.files(examples, predictions) == {"summaries.txt": "c d g h\ni j. K l\n\nm\n\n"}
    assert task.files([], []) == {"summaries.txt": ""}


def test_scores_that_are_not_finite_are_noted(letters):
    task, examples = make(), [document(["a", "b"]), document(["c"], id="2")]
    features = task.features(examples, letters, DataIssues(), with_labels=False)
    logits = logits_of(features, [[np.nan, 1], [np.inf]])
    broken, whole = task.decode(examples, features, {"logits": logits})
    assert broken["note"] == "the model's scores are not finite" and broken["summary"] == "b"
    assert whole["summary"] == "c" and "note" not in whole and whole["scores"] == [1.0]


def test_the_best_sentences():
    assert best_sentences([0.1, 0.9, 0.2, 0.9], 1) == [1] and best_sentences([0.1, 0.9, 0.2, 0.95], 3) == [1, 2, 3]
    assert best_sentences([0.0, 0.5, 0.0], 2) == [1] and best_sentences([], 2) == []


def predicted(scores):
    return {"scores": scores}


@pytest.mark.parametrize("summary, scores, best", [
    ("a b", [0.9, 0.4, 0.1], 1), ("a b c d", [0.9, 0.4, 0.1], 2), ("a b c d e f", [0.9, 0.4, 0.1], 3),
    ("c d e f", [0.1, 0.4, 0.5], 2), ("p", [0.1, 0.4, 0.5], 1)])
def test_the_number_of_sentences_is_tuned(summary, scores, best, letters):
    task, examples = make(sentences=3), [document(["a b", "c d", "e f"], summary)]
    task = task.tune(examples, [predicted(scores)])
    assert fitted_values(task) == {"sentences": best} == fitted_values(task)
    again = make(fitted_values(task), sentences=3)
    features = again.features(examples, letters, DataIssues(), with_labels=False)
    (prediction,) = again.decode(examples, features, {"logits": logits_of(features, [np.array(scores)])})
    assert len(prediction["sentences"]) == best


def test_metrics_and_those_of_the_lead():
    sentences = [["one two", "three four five", "six"], ["seven eight", "nine ten", "a b"], ["c"]]
    examples = [document(of_one, *summaries) for of_one, summaries in zip(
        sentences, (("four five six", "x"), ("eight nine",), ("c", "d c")))]
    summaries = ["three four five six", "seven eight", "c"]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for fitted, lead in ((None, 2), ({"sentences": 1}, 1)):
        found = make(fitted, sentences=2).score(examples, [{"summary": summary} for summary in summaries])
        expected = {}
        for prefix, texts in (("", summaries), ("lead/", [" ".join(of_one[:lead]) for of_one in sentences])):
            scores = [scorer.score_multi(example.summaries, text) for example, text in zip(examples, texts)]
            expected |= {f"{prefix}rouge_{kind.lower()}": 100 * np.mean([score[f"rouge{kind}"].fmeasure
                                                                         for score in scores]) for kind in "12L"}
        assert found == pytest.approx(expected) and make().metric in found
    assert found["rouge_1"] != found["lead/rouge_1"]


@pytest.mark.parametrize("settings, message", [
    ({"source": ""}, "source='': give the name"), ({"target": ""}, "target='': give the name"),
    ({"sentences": 0}, "sentences=0: must be at least 1"), ({"length": 2}, "length=2: must be at least 3")])
def test_wrong_settings_are_rejected(settings, message):
    with pytest.raises(UserError, match=f"config.task.{message}"):
        make(**settings)


def test_the_config(monkeypatch):
    monkeypatch.setenv("SPANBERT_DATA", str(DATA))
    file = str(ROOT / "configs" / "summarization_extractive.py")
    config = load_config(file, ["--config.task.train=files"])
    as_finetuning_config(config).validate("config")
    assert (config.task.length, config.task.sentences, config.train.duration) == (512, 3, "3 epochs")
    small = load_config(f"{file}:small=true", [])
    as_finetuning_config(small).validate("config")
    assert (small.task.source, small.task.target) == ("source", "target")
    assert small.task.train == str(DATA / "scitldr" / "SciTLDR-A-train.jsonl")
