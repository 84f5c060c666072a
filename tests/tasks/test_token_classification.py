"""Token classification: metrics against their definition, features token by token, windows, loss, predictions."""
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import to_dict
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import add_rows
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.files.columns import Sentence
from spanbert_jax.tasks.protocol import fitted_values
from spanbert_jax.tasks.token_classification import tagging_metrics, windows
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer, special_ids
from tests.paths import DATA, needs_data

WORDS = ["Ann", "Lee", "sleep", "##s", "New", "York", ".", "[", "]", "SE", "##P", "un", "##believ", "##ably"]
TAGS = {"BIO": ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O"],
        "BIOES": ["B-PER", "E-PER", "O", "O", "S-LOC", "S-LOC", "O"]}
TEXT = ["Ann", "Lee", "sleeps", ".", "New", "York", "."]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    file.write_text("".join(f"{piece}\n" for piece in [*SPECIAL_TOKENS, *WORDS]))
    return load_tokenizer(file)


def sentence(words, tags=None, line=10, **fields):
    return Sentence(str(line), f"f:{line}", f"f:{line}", tuple(words), tags and tuple(tags), line, **fields)


def trained(tokenizer, scheme="BIO", length=32):
    task = make_task("token_classification", {"length": length})
    task = task.fit([sentence(TEXT, TAGS[scheme])], tokenizer)
    return task


def pieces(tokenizer, features, feature=0):
    return [tokenizer.id_to_token(int(token)) for token in features.tokens[features.token_slice(feature)]]


def lenient_entities(tags):
    """Entities by conlleval's definition, from pairs of neighbouring tags; also for BIOES."""
    found, start = set(), None
    for place, (before, tag) in enumerate(zip(["O", *tags], [*tags, "O"])):
        prefix, _, kind = tag.partition("-")
        last_prefix, _, last_kind = before.partition("-")
        apart = kind != last_kind or prefix in "BS" or last_prefix in "ES" or "O" in (prefix, last_prefix)
        if before != "O" and apart:
            found.add((last_kind, start, place - 1))
        if tag != "O" and apart:
            start = place
    return found


def f1(right, guessed, asked):
    return 200 * right / (guessed + asked) if guessed + asked else 0.0


@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_the_definition(prefixes, seed):
    random = np.random.default_rng(seed)
    names = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC", "work-of-art"))]
    answers = [random.choice(names, random.integers(1, 12)).tolist() for _ in range(60)]
    predicted = [np.where(random.random(len(tags)) < 0.7, tags, random.choice(names, len(tags))).tolist()
                 for tags in answers]
    asked, guessed = ({(number, *entity) for number, tags in enumerate(sentences) for entity in lenient_entities(tags)}
                      for sentences in (answers, predicted))
    right = asked & guessed
    assert 0 < len(right) < len(asked)
    # What a tag says of a word in any scheme: its entity's type, and whether the word begins it and ends it.
    words = [{(number, word): (kind, word == first, word == last and prefixes == "BIES")
              for number, kind, first, last in found for word in range(first, last + 1)} for found in (asked, guessed)]
    same = [words[0].get((number, word)) == words[1].get((number, word))
            for number, tags in enumerate(answers) for word in range(len(tags))]
    expected = {"precision": 100 * len(right) / len(guessed), "recall": 100 * len(right) / len(asked),
                "f1": f1(len(right), len(guessed), len(asked)), "accuracy": 100 * np.mean(same)}
    for kind in ("PER", "LOC", "work-of-art"):
        expected[f"f1/{kind}"] = f1(*(sum(entity[1] == kind for entity in found) for found in (right, guessed, asked)))
    scheme = {"BI": "BIO", "BIES": "BIOES"}[prefixes]
    assert tagging_metrics([tuple(tags) for tags in answers], predicted, scheme) == pytest.approx(expected)


@pytest.mark.parametrize("answer, guess, expected", [
    ("B-A I-A O B-B", "B-A I-A O B-B", 100),
    ("B-A I-A O B-B", "B-A O O B-B", 50),  # an end is wrong
    ("B-A I-A O B-B", "I-A I-A O I-B", 100),  # of I- an entity begins
    ("B-A B-A", "B-A I-A", 0),
    ("B-A I-A", "B-A I-B", 0),
    ("S-A B-B I-B E-B", "S-A B-B I-B E-B", 100),
    ("O O", "O O", 0),
    ("O O", "B-A O", 0),
    ("B-A", "O", 0),
])
def test_metrics_by_hand(answer, guess, expected):
    assert tagging_metrics([answer.split()], [guess.split()], "BIO")["f1"] == expected


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_tags_of_another_scheme_are_compared_by_what_they_say(scheme):
    found = tagging_metrics([["S-A", "O", "B-B", "E-B"]], [["B-A", "O", "B-B", "I-B"]], scheme)
    assert (found["f1"], found["accuracy"]) == (100, 100)


@pytest.mark.parametrize("scheme, prefixes", [("BIO", "BI"), ("BIOES", "BIES")])
def test_schemes_and_tags_are_learned(tokenizer, scheme, prefixes):
    task = trained(tokenizer, scheme)
    assert task.fitted.scheme == scheme
    # In BIOES there are two places and one person, in BIO one each.
    kinds = ("LOC", "PER")
    assert list(task.labels) == ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in prefixes)]


def test_unusable_training_examples_are_rejected(tokenizer):
    task = make_task("token_classification", {"length": 32})
    mixed = [sentence(TEXT, TAGS["BIOES"]), sentence(TEXT, TAGS["BIO"], line=20)]
    with pytest.raises(UserError, match="f:21: .* in BIO, with I-PER, but another one in BIOES .f:11: E-PER.;"):
        task = task.fit(mixed, tokenizer)
    with pytest.raises(UserError, match="data .1 example. contains no entity.*tag_column=-1"):
        task = task.fit([sentence(TEXT, ["O"] * 7)], tokenizer)


@pytest.mark.parametrize("settings, message",
                         [({"word_column": -1}, "tag_column=-1: must differ from config.task.word_column"),
                                            ({"length": 2}, "length=2: must be at least 3")])
def test_wrong_settings_are_rejected(settings, message):
    with pytest.raises(UserError, match=f"config.task.{message}"):
        make_task("token_classification", {"length": 32, **settings})


def test_features_token_by_token(tokenizer):
    task, issues = trained(tokenizer), DataIssues()
    example = sentence(["Lee", "sleeps", "[SEP]", "\x00", "unbelievably"], ["B-PER", "O", "B-LOC", "I-LOC", "O"])
    features = task.features([example], tokenizer, issues)
    assert pieces(tokenizer, features) == [
        "[CLS]", "Lee", "sleep", "##s", "[", "SE", "##P", "]", "[UNK]", "un", "##believ", "##ably", "[SEP]"]
    words = [-1, 0, 1, -1, 2, -1, -1, -1, 3, 4, -1, -1, -1]
    assert features.token_columns["word"].tolist() == words
    assert features.token_columns["tag_weight"].tolist() == [float(word >= 0) for word in words]
    tags = [task.labels[tag] for tag, word in zip(features.token_columns["tag"], words) if word >= 0]
    assert tags == ["B-PER", "O", "B-LOC", "I-LOC", "O"]
    assert {name: array.dtype for name, array in features.token_columns.items()} == {
        "word": "int32", "tag": "int32", "tag_weight": "float32"}
    assert not features.token_types.any()
    assert np.count_nonzero(features.tokens == special_ids(tokenizer).sep) == 1
    assert issues.counts == {"words that the tokenizer maps to no token, read as [UNK]": 1}
    unlabelled = task.features([sentence(example.words)], tokenizer, DataIssues(), with_labels=False)
    assert list(unlabelled.token_columns) == ["word"] and unlabelled.token_columns["word"].tolist() == words


@pytest.mark.parametrize("scheme, tags, read_as", [
    ("BIO", "O I-PER I-PER O I-LOC O O", "O B-PER I-PER O B-LOC O O"),
    ("BIO", "B-PER I-LOC I-LOC I-PER O O O", "B-PER B-LOC I-LOC B-PER O O O"),
    ("BIO", "B-PER E-PER O S-LOC O O O", "B-PER I-PER O B-LOC O O O"),
    ("BIOES", "I-PER E-PER O B-LOC O E-LOC O", "B-PER E-PER O S-LOC O S-LOC O"),
    ("BIOES", "B-PER I-PER B-LOC I-LOC I-LOC O O", "B-PER E-PER B-LOC I-LOC E-LOC O O"),
])
def test_tags_that_violate_the_scheme_are_read_leniently_and_counted(tokenizer, scheme, tags, read_as):
    task, issues = trained(tokenizer, scheme), DataIssues()
    features = task.features([sentence(TEXT, tags.split(), line=40)], tokenizer, issues)
    targets = features.token_columns["tag"][features.token_columns["word"] >= 0]
    assert [task.labels[tag] for tag in targets] == read_as.split()
    changed = [word for word, (one, other) in enumerate(zip(tags.split(), read_as.split())) if one != other]
    (issue,) = issues.counts
    assert scheme in issue and issues.counts[issue] == len(changed)
    assert [int(re.match(r"f:(\d+) ", place)[1]) - 40 for place in issues.places[issue]] == changed


def test_unknown_tags_are_counted_and_have_no_weight(tokenizer):
    task, issues = trained(tokenizer), DataIssues()
    features = task.features([sentence(["Ann", "York", "Lee"], ["B-ORG", "I-ORG", "B-PER"])], tokenizer, issues)
    assert features.token_columns["tag_weight"].tolist() == [0, 0, 0, 1, 0]
    assert list(issues.counts.items()) == [("tags without training examples, left out of the loss and counted as wrong",
                                            2)]
    assert list(issues.places.values()) == [["f:10 (B-ORG)", "f:11 (I-ORG)"]]


@pytest.mark.parametrize("count, size, stride", [(5, 8, 5), (8, 8, 5), (9, 8, 5), (50, 8, 5), (51, 8, 4), (40, 1, 1),
                                                 (97, 30, 16), (12, 10, 6)])
def test_windows_give_each_position_the_most_context(count, size, stride):
    starts, chosen = windows(count, np.arange(count), size, stride)
    assert starts[0] == 0 and starts[-1] + size == max(count, size)
    assert all(0 < later - start <= stride for start, later in itertools.pairwise(starts))

    def context(start, position):
        return min(position - start, start + size - 1 - position)
    for position in range(count):
        assert context(starts[chosen[position]], position) == max(context(start, position) for start in starts) >= 0
    assert (np.diff(chosen) >= 0).all()


def test_each_word_of_a_long_sentence_counts_in_one_window(tokenizer):
    task, random = trained(tokenizer, length=12), np.random.default_rng(0)
    examples = [sentence(random.choice([*TEXT, "unbelievably"], count), ["O"] * count) for count in (40, 3, 25)]
    features = task.features(examples, tokenizer, DataIssues())
    assert features.lengths.max() == 12 and len(features) > 8
    for number, owned in enumerate(features.by_example(3)):
        assert owned
        tokens, words = [], []
        for feature in owned:
            names = pieces(tokenizer, features, feature)
            assert (names[0], names[-1]) == ("[CLS]", "[SEP]")
            at = features.token_columns["word"][features.token_slice(feature)]
            words += at[at >= 0].tolist()
            tokens += [name for name, word in zip(names, at) if word >= 0]
        assert words == list(range(len(examples[number].words)))
        assert tokens == [word if word not in ("sleeps", "unbelievably") else word[:5 if word[0] == "s" else 2]
                          for word in examples[number].words]
    assert features.token_columns["tag_weight"].sum() == 40 + 3 + 25
    np.testing.assert_array_equal(features.token_columns["tag_weight"] == 1, features.token_columns["word"] >= 0)


def test_loss_on_packed_rows_equals_numpy(tokenizer):
    task, random = trained(tokenizer), np.random.default_rng(0)
    labels = len(task.labels)
    logits = random.normal(size=(2, 20, labels)).astype(np.float32) * 3
    tag, weight = random.integers(0, labels, (2, 20)), (random.random((2, 20)) < 0.5).astype(np.float32)
    batch = {"tag": jnp.asarray(tag * (weight > 0), jnp.int32), "tag_weight": jnp.asarray(weight)}
    term = jax.jit(lambda logits, batch: add_rows(task.loss(Outputs(None, logits=logits), batch)))(
        jnp.asarray(logits), batch)
    counted = [(row, place) for row in range(2) for place in range(20) if weight[row, place]]
    losses = [-log_softmax(logits[at].astype(np.float64))[tag[at]] for at in counted]
    assert float(term.loss) == pytest.approx(sum(losses), rel=1e-5)
    assert float(term.correct) == sum(logits[at].argmax() == tag[at] for at in counted)
    assert float(term.count) == len(counted) > 0
    assert term.loss.dtype == term.correct.dtype == term.count.dtype == jnp.float32


def favouring(task, features, tags, random):
    """Logits that favour given tags at counted words, and random values elsewhere."""
    logits = random.normal(size=(len(features.tokens), len(task.labels))).astype(np.float32)
    at = np.flatnonzero(features.token_columns["word"] >= 0)
    logits[at, [task.labels.index(tag) for tag in tags]] += 20
    return logits, at


def test_predictions_of_words_and_of_text(tokenizer):
    task = trained(tokenizer, length=8)
    text = "Ann Lee\nsleeps. New York."
    offsets = tuple(match.span() for match in re.finditer(r"\w+|\.", text))
    examples = [sentence(TEXT, TAGS["BIO"]), sentence(TEXT, text=text, offsets=offsets)]
    features = task.features(examples, tokenizer, DataIssues(), with_labels=False)
    assert len(features) > 2
    logits, at = favouring(task, features, TAGS["BIO"] + ["I-LOC"] + TAGS["BIO"][1:], np.random.default_rng(0))
    words, of_text = json.loads(json.dumps(task.decode(examples, features, {"logits": logits})))
    probabilities = softmax(logits[at].astype(np.float64), axis=-1).max(axis=-1)
    assert words["tags"] == TAGS["BIO"] and words["scores"] == pytest.approx(probabilities[:7])
    assert [(one["type"], one["start"], one["end"], one["text"]) for one in words["entities"]] == [
        ("PER", 0, 7, "Ann Lee"), ("LOC", 17, 25, "New York")]
    assert words["entities"][1]["score"] == pytest.approx(probabilities[4:6].mean())
    assert of_text["tags"] == ["I-LOC", *TAGS["BIO"][1:]]
    assert [(one["type"], one["start"], one["end"]) for one in of_text["entities"]] == [
        ("LOC", 0, 3), ("PER", 4, 7), ("LOC", 16, 24)]
    assert all(text[one["start"]:one["end"]] == one["text"] for one in of_text["entities"])


def test_the_window_with_most_context_is_the_one_that_counts(tokenizer):
    task = trained(tokenizer, length=8)
    example = sentence(["Ann"] * 15)
    features = task.features([example], tokenizer, DataIssues(), with_labels=False)
    # A piece is given the tag of its window: the first I-PER, the second B-PER and so on.
    window = np.repeat(np.arange(len(features)), features.lengths)
    logits = np.eye(len(task.labels))[window % len(task.labels)]
    (prediction,) = task.decode([example], features, {"logits": logits})
    # Six words a window, four words apart, and the last six: 0-5, 4-9, 8-13 and 9-14.
    nearest = [0] * 5 + [1] * 4 + [2] * 3 + [3] * 3
    assert prediction["tags"] == [task.labels[number] for number in nearest]


def test_scores_and_files(tokenizer):
    task = trained(tokenizer)
    examples = [sentence(["Ann", "Lee"], ["B-PER", "I-PER"]), sentence(["York"], ["B-ORG"]), sentence(["\n", "a b"])]
    predictions = [{"id": "1", "tags": ["I-PER", "I-PER"]}, {"id": "2", "tags": ["B-LOC"]},
                   {"id": "3", "tags": ["O", "O"]}]
    metrics = task.score(examples[:2], predictions[:2])
    assert metrics == pytest.approx({"precision": 50, "recall": 50, "f1": 50, "accuracy": 200 / 3, "f1/PER": 100,
                                     "f1/LOC": 0, "f1/ORG": 0})
    assert task.files(examples, predictions) == {"predictions.conll": (
        "Ann\tB-PER\tI-PER\nLee\tI-PER\tI-PER\n\nYork\tB-ORG\tB-LOC\n\n_\t-\tO\na b\t-\tO\n\n")}


@needs_data
@pytest.mark.parametrize("vocabulary, name, length, settings, repaired", [
    ("cased", "wnut17-{}", 32, {}, 0), ("chinese", "weibo-zh-{}", 48, {"strip_word_index": True}, 10)])
def test_whole_real_files(vocabulary, name, length, settings, repaired):
    tokenizer = load_tokenizer(DATA / "vocab" / f"bert-base-{vocabulary}-vocab.txt")
    task, issues = make_task("token_classification", {"length": length, **settings}), DataIssues()
    paths = [DATA / "ner" / f"{name.format(part)}.conll" for part in ("train", "dev")]
    train, dev = (list(task.read(str(path), issues)) for path in paths)
    assert not issues.counts
    task = task.fit(train, tokenizer)
    task = make_task("token_classification", to_dict(task.settings), fitted_values(task))
    features = task.features(train, tokenizer, issues)
    assert len(features) > len(train)
    assert issues.counts["tags that violate the BIO scheme, read as the CoNLL script reads them"] == repaired
    assert set(issues.counts) <= {"tags that violate the BIO scheme, read as the CoNLL script reads them",
                                  "words that the tokenizer maps to no token, read as [UNK]"}
    assert features.token_columns["tag_weight"].sum() == sum(len(one.words) for one in train)

    features = task.features(dev, tokenizer, DataIssues())
    assert (features.token_columns["tag_weight"] == (features.token_columns["word"] >= 0)).all()  # no new tag
    predictions = task.decode(dev, features, {"logits": np.eye(len(task.labels))[features.token_columns["tag"]]})
    assert task.score(dev, predictions)["f1"] == 100
    found = [(entity["type"], entity["text"]) for one in predictions for entity in one["entities"]]
    expected = [(kind, " ".join(one.words[first:last + 1])) for one in dev
                for kind, first, last in sorted(lenient_entities(one.tags), key=lambda entity: entity[1])]
    assert found == expected
