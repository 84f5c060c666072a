"""Relation extraction: fitted state, features token by token, loss against NumPy, predictions, metrics."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import to_dict
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import add_rows
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.files.relations import Relation
from spanbert_jax.tasks.protocol import fitted_values
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer, special_ids
from tests.paths import DATA, needs_data

WORDS = ["Ann", "Lee", "was", "born", "in", "York", "New", "[", "]", "SE", "##P", "."]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    unused = [f"[unused{number}]" for number in range(1, 12)]
    file.write_text("".join(f"{piece}\n" for piece in [*SPECIAL_TOKENS, *WORDS, *unused]))
    return load_tokenizer(file)


def example(id, relation, types=("PER", "CITY"), tokens=("Ann", "was", "born", "in", "New", "York", "."), spans=None):
    subject, object = spans or ((0, 0), (4, 5))
    return Relation(str(id), f"f:{id}", "d", tokens, subject, object, *types, relation)


def trained(tokenizer, relations=("born_in", "no_relation", "died_in", "born_in"), **settings):
    task = make_task("relation_extraction", {"length": 32, **settings})
    task = task.fit([example(number, relation) for number, relation in enumerate(relations)], tokenizer)
    return task


def pieces(tokenizer, features, feature):
    return " ".join(tokenizer.id_to_token(int(token)) for token in features.tokens[features.token_slice(feature)])


@pytest.mark.parametrize("relations, setting, labels, negative", [
    ("b c b no_relation c a b", "auto", "no_relation b c a", "no_relation"),
    ("b c b NA c", "auto", "NA b c", "NA"),
    ("Other b b", "auto", "Other b", "Other"),
    ("Other b b Other NA", "auto", "NA Other b", "NA"),
    ("b a b c c", "auto", "b c a", ""),
    ("Other b b", "", "b Other", ""),
    ("c b b a", "c", "c b a", "c"),
])
def test_relations_are_ordered_by_frequency_and_the_negative_one_comes_first(
        tokenizer, relations, setting, labels, negative):
    task = trained(tokenizer, relations.split(), negative=setting)
    assert task.labels == tuple(labels.split())
    assert task.fitted.negative == negative


def test_unusable_training_examples_are_rejected(tokenizer):
    with pytest.raises(UserError, match="negative='none': no training example has this relation; there are a, b;"):
        trained(tokenizer, ["a", "b"], negative="none")
    with pytest.raises(UserError, match=r"two relations.* data .2 examples. has 1 \(a\)"):
        trained(tokenizer, ["a", "a"])
    untyped = [example(1, "a"), example(2, "b", types=("", ""))]
    for marking in ("ner", "text_ner", "ner_text"):
        task = make_task("relation_extraction", {"length": 32, "marking": marking})
        with pytest.raises(UserError, match="f:2: id '2' has entities without types.*set it to 'text'"):
            task = task.fit(untyped, tokenizer)
    many = [example(number, "ab"[number % 2], types=(f"T{number}", "X")) for number in range(9)]
    with pytest.raises(UserError, match="16 entity markers.* has 11 entries"):
        make_task("relation_extraction", {"length": 32}).fit(many, tokenizer)
    make_task("relation_extraction", {"length": 32, "marking": "text"}).fit(untyped, tokenizer)


@pytest.mark.parametrize("field", ["format", "marking", "markers", "scoring"])
def test_wrong_settings_are_rejected(field):
    with pytest.raises(UserError, match=f"config.task.{field}='x': allowed are "):
        make_task("relation_extraction", {"length": 32, field: "x"})


def test_features_token_by_token(tokenizer):
    task, issues = trained(tokenizer), DataIssues()
    examples = [example(1, "died_in"),
                example(2, "no_relation", tokens=("Lee", "Ann", "[SEP]"), spans=((1, 1), (0, 0)))]
    features = task.features(examples, tokenizer, issues)
    assert pieces(tokenizer, features, 0) == "[CLS] [unused5] was born in [unused6] . [SEP]"
    assert pieces(tokenizer, features, 1) == "[CLS] [unused6] [unused5] [ SE ##P ] [SEP]"
    special = special_ids(tokenizer)
    assert np.count_nonzero(features.tokens == special.sep) == np.count_nonzero(features.tokens == special.cls) == 2
    assert features.columns["label"].tolist() == [task.labels.index("died_in"), 0]
    assert features.columns["weight"].tolist() == [1, 1]
    assert {name: column.dtype for name, column in features.columns.items()} == {"label": "int32", "weight": "float32"}
    assert features.example.tolist() == [0, 1] and not features.token_types.any()
    assert not issues.counts
    unlabelled = task.features([example(1, None)], tokenizer, issues, with_labels=False)
    assert unlabelled.columns == {} and pieces(tokenizer, unlabelled, 0) == pieces(tokenizer, features, 0)


def test_the_given_tokenizer_is_not_changed(tokenizer):
    given = Tokenizer.from_str(tokenizer.to_str())
    trained(given).features([example(1, "born_in")], given, DataIssues())
    assert given.encode("[MASK]", add_special_tokens=False).tokens == ["[MASK]"]


def test_unknown_relations_and_types_are_counted(tokenizer):
    task, issues = trained(tokenizer), DataIssues()
    examples = [example(1, "unheard_of"), example(2, "born_in", types=("ORG", "CITY")), example(3, "born_in")]
    features = task.features(examples, tokenizer, issues)
    assert features.columns["weight"].tolist() == [0, 1, 1]
    assert task.fitted.markers["SUBJ=UNKNOWN"] == "[unused7]"
    assert pieces(tokenizer, features, 1) == "[CLS] [unused7] was born in [unused6] . [SEP]"
    assert issues.counts == {"relations without training examples, left out of the loss and counted as wrong": 1,
                             "entity types without training examples, marked as unknown": 1}
    assert sorted(place for places in issues.places.values() for place in places) == [
        "f:1 (id 1, unheard_of)", "f:2 (id 2, SUBJ=ORG)"]


def test_truncations_are_counted_with_location(tokenizer):
    task, issues = trained(tokenizer, length=9, marking="text"), DataIssues()
    features = task.features([example(7, "born_in")], tokenizer, issues)
    assert pieces(tokenizer, features, 0) == "[CLS] [unused1] Ann [unused2] [unused3] New York [unused4] [SEP]"
    assert list(issues.places.values()) == [["f:7 (id '7')"]]


@pytest.mark.parametrize("marking", ["ner", "text", "text_ner", "ner_text"])
def test_fitted_state_survives_json(tokenizer, marking):
    task = trained(tokenizer, marking=marking)
    again = make_task("relation_extraction", to_dict(task.settings), fitted_values(task))
    examples = [example(1, "died_in"), example(2, "born_in", types=("CITY", "PER"))]
    first, second = (one.features(examples, tokenizer, DataIssues()) for one in (task, again))
    np.testing.assert_array_equal(first.tokens, second.tokens)
    np.testing.assert_array_equal(first.columns["label"], second.columns["label"])


def test_loss_on_packed_rows_equals_numpy(tokenizer):
    task, random = trained(tokenizer), np.random.default_rng(0)
    logits = random.normal(size=(3, 4, 3)).astype(np.float32) * 3
    label = random.integers(0, 3, (3, 4))
    texts = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.float32)
    weight = texts * (random.random((3, 4)) < 0.7)
    batch = {"label": jnp.asarray(label * texts, jnp.int32), "weight": jnp.asarray(weight, jnp.float32),
             "weights": jnp.asarray(texts)}
    term = jax.jit(lambda logits, batch: add_rows(task.loss(Outputs(None, logits=logits), batch)))(
        jnp.asarray(logits), batch)
    counted = [(row, text) for row in range(3) for text in range(4) if weight[row, text]]
    assert 3 < len(counted) < texts.sum()
    losses = [-log_softmax(logits[at].astype(np.float64))[label[at]] for at in counted]
    assert float(term.loss) == pytest.approx(sum(losses), rel=1e-5)
    assert float(term.correct) == sum(logits[at].argmax() == label[at] for at in counted)
    assert float(term.count) == len(counted)
    assert term.loss.dtype == term.correct.dtype == term.count.dtype == jnp.float32


def test_predictions(tokenizer):
    task = trained(tokenizer, [*"aaaaaaabbbbbbcccccddddeeeffg"])
    examples = [example(number, "a") for number in range(3)]
    features = task.features(examples, tokenizer, DataIssues())
    logits = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    predictions = task.decode(examples, features, {"logits": logits})
    assert [prediction["id"] for prediction in predictions] == ["0", "1", "2"]
    for prediction, row in zip(json.loads(json.dumps(predictions)), softmax(logits.astype(np.float64), axis=-1)):
        best = np.argsort(-row)[:5]
        assert list(prediction["scores"]) == ["abcdefg"[index] for index in best]
        assert list(prediction["scores"].values()) == pytest.approx(row[best].tolist())
        assert prediction["relation"] == "abcdefg"[best[0]] and prediction["score"] == pytest.approx(row[best[0]])
    assert task.files(examples, predictions) == {
        "predictions.txt": "".join(f"{one['id']}\t{one['relation']}\n" for one in predictions)}


def predicted(*relations):
    return [{"id": str(number), "relation": relation} for number, relation in enumerate(relations)]


def test_scoring_follows_the_setting(tokenizer):
    names = ["A-B(e1,e2)", "A-B(e2,e1)", "C-D(e1,e2)", "Other"]
    answers = [example(number, relation) for number, relation in enumerate([*names, "C-D(e2,e1)"])]
    guesses = predicted("A-B(e1,e2)", "A-B(e1,e2)", "C-D(e1,e2)", "A-B(e2,e1)", "C-D(e1,e2)")
    # Directed: 2 of 5 guesses and 2 of 4 answers. A-B: 1 of 3 and 1 of 2, F1 2/5. C-D, one of it not trained on: 1 of 2
    # and 1 of 2, F1 1/2.
    micro, semeval = (trained(tokenizer, names, scoring=scoring) for scoring in ("micro", "semeval"))
    assert micro.score(answers, guesses) == pytest.approx(
        {"precision": 40, "recall": 50, "f1": 100 * 4 / 9, "accuracy": 40})
    assert semeval.score(answers, guesses) == pytest.approx(
        {"precision": 100 * (1 / 3 + 1 / 2) / 2, "recall": 50, "f1": 45, "micro_f1": 100 * 4 / 9, "accuracy": 40})


@needs_data
def test_a_whole_real_file_of_tacred_with_both_entities_in_every_feature():
    tokenizer = load_tokenizer(DATA / "vocab" / "bert-base-cased-vocab.txt")
    task = make_task("relation_extraction", {"length": 96, "marking": "text_ner"})
    examples = list(task.read(str(DATA / "re" / "redocred-tacred-style-train.json.gz"), DataIssues()))
    task = task.fit(examples, tokenizer)
    issues = DataIssues()
    features = task.features(examples, tokenizer, issues)
    assert len(features) == len(examples) and features.lengths.max() == 96
    assert list(issues.counts) == ["sentences truncated to config.task.length, both entities kept"]
    for name in ("SUBJ_START", "SUBJ_END", "OBJ_START", "OBJ_END"):
        piece = tokenizer.token_to_id(task.fitted.markers[name])
        owners = np.searchsorted(features.starts, np.flatnonzero(features.tokens == piece), side="right") - 1
        np.testing.assert_array_equal(owners, np.arange(len(features)))
    start, end = (tokenizer.token_to_id(task.fitted.markers[name]) for name in ("OBJ_START", "OBJ_END"))
    for number in range(0, len(examples), 40):
        example, tokens = examples[number], features.tokens[features.token_slice(number)].tolist()
        inside = tokens[tokens.index(start) + 1:tokens.index(end)]
        words = example.tokens[example.object[0]:example.object[1] + 1]
        expected = tokenizer.encode(" ".join(words), add_special_tokens=False).ids
        outside = {tokenizer.token_to_id(task.fitted.markers[f"SUBJ_{edge}"]) for edge in ("START", "END")}
        assert [token for token in inside if token not in outside] == expected


@needs_data
@pytest.mark.parametrize("markers", ["unused", "words"])
def test_a_whole_real_file_of_semeval(markers):
    tokenizer = load_tokenizer(DATA / "vocab" / "bert-base-uncased-vocab.txt")
    task = make_task("relation_extraction",
                     {"length": 160, "marking": "text", "markers": markers, "scoring": "semeval"})
    examples, issues = list(task.read(str(DATA / "re" / "semeval2010-task8-TRAIN_FILE.TXT"),
                                      DataIssues())), DataIssues()
    task = task.fit(examples, tokenizer)
    features = task.features(examples, tokenizer, issues)
    assert len(features) == 8000 and len(task.labels) == 19 and task.labels[0] == task.fitted.negative == "Other"
    assert not issues.counts and (features.columns["weight"] == 1).all()
    perfect = task.decode(examples, features, {"logits": np.eye(19)[features.columns["label"]]})
    metrics = task.score(examples, perfect)
    assert set(metrics.values()) == {100.0} and "micro_f1" in metrics
