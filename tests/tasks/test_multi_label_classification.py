"""Text classification with any number of classes per text: labels in files, loss, thresholds, scores."""
import dataclasses
import json

import numpy as np
import pytest
import torch

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.inference.files import class_metrics
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.protocol import fitted_values
from tests.tasks.classification import UNKNOWN, json_lines, letter_tokenizer, make, packed, read, term, text


def test_several_labels_in_files(tmp_path):
    lines = json_lines({"text": "a b", "label": ["b", "a"]}, {"text": "a", "label": []})
    examples = read(tmp_path / "a.jsonl", lines, multi_label=True)[0]
    assert [example.label for example in examples] == [("b", "a"), ()]
    cells = 'text,label\na,a\nb,"c, a"\nc,\nd,"[""a, b"", 2]"\ne,"a,a"\n'
    examples = read(tmp_path / "a.csv", cells, multi_label=True)[0]
    assert [example.label for example in examples] == [("a",), ("c", "a"), (), ("a, b", "2"), ("a",)]
    task = make(multi_label=True).fit(examples, None)
    assert task.labels == ("2", "a", "a, b", "c")
    examples[1] = dataclasses.replace(examples[1], label=("c", "new"))
    issues = DataIssues()
    features = task.features(examples, letter_tokenizer(tmp_path), issues)
    assert features.columns["label"].tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0]]
    assert features.columns["weight"].tolist() == [1, 0, 1, 1, 1] and issues.counts == {UNKNOWN: 1}
    rows = task.pack({"train": features}, 0, 0)["train"]
    labels = rows.rows(np.arange(len(rows)))["label"]
    assert labels.ndim == 3 and labels.sum(axis=(0, 1)).tolist() == [1, 2, 1, 1]
    assert read(tmp_path / "a.csv", 'text,label\na," [""x""]"\n', multi_label=True)[0][0].label == ("x",)
    for label, message in ((None, "has no label"), ([0, 1, 1], "has a 0 or 1 for each class"),
                           ([True, False, True], "has a 0 or 1 for each class"), ("[a", "is not a list as in JSON"),
                           ([[1]], "is not the name or"), ([2, -1], "has -1, which stands for no label")):
        with pytest.raises(UserError, match=f"b.jsonl:1: id '1'.*{message}"):
            read(tmp_path / "b.jsonl", json_lines({"text": "a", "label": label}), multi_label=True)


def test_names_with_spaces_in_lists(tmp_path):
    """As in cells with commas, white space around a name is no part of it."""
    lines = json_lines({"text": "a", "label": [" New York", "b "]}, {"text": "b", "label": ["New York", " "]})
    cells = 'text,label\na,"[""New York "", ""b""]"\nb,New York \n'
    for name, content in (("a.jsonl", lines), ("a.csv", cells)):
        examples = read(tmp_path / name, content, multi_label=True)[0]
        assert [example.label for example in examples] == [("New York", "b"), ("New York",)]


@pytest.mark.parametrize("labels", [[[0, 1], [-1], [1]], ["0,1", "-1", "1"], ["[0, 1]", "[-1.0, -1]", "[1]"]])
def test_the_label_minus_one_is_no_class(labels, tmp_path):
    lines = json_lines(*({"text": "a", "label": label} for label in labels))
    examples, issues = read(tmp_path / "a.jsonl", lines, multi_label=True)
    assert [example.label for example in examples] == [("0", "1"), ("1",)]
    assert issues.counts == {"examples without a label (config.task.unlabelled='-1'), left out": 1}


@pytest.mark.parametrize("both", [("0", "1"), ("false", "true")])
def test_two_numbers_for_two_classes_are_no_names(both):
    """Whether each of two classes holds: without this check, every text would have both classes."""
    with pytest.raises(UserError, match="all 2 training examples have both classes, .*list the names"):
        make(multi_label=True).fit([text("1", both), text("2", both[::-1])], None)
    assert make(multi_label=True).fit([text("1", both), text("2", both[1:])], None).labels == both


def test_cross_entropy_of_several_labels():
    logits, _, weights, known = packed(3)
    labels = (np.random.default_rng(1).random((3, 4, 3)) < 0.4).astype(np.float32)
    found = term(make({"labels": list("abc")}, multi_label=True), logits, labels, weights, known)
    there = (weights * known) > 0
    loss = torch.nn.BCEWithLogitsLoss()(torch.from_numpy(logits[there]), torch.from_numpy(labels[there]))
    assert float(found.loss) == pytest.approx(6 * float(loss), rel=1e-5) and float(found.count) == 6
    assert float(found.correct) == sum(((logits > 0) == (labels > 0)).all(axis=-1)[there])


def test_predictions_of_several_labels():
    task = make({"labels": ["x", "y"]}, multi_label=True, metric="macro_f1")
    examples = [text("1", ("x",)), text("2", ("x", "y")), text("3", ())]
    logits = np.log(np.array([[0.4, 0.6], [0.3, 0.7], [0.2, 0.1]]) / np.array([[0.6, 0.4], [0.7, 0.3], [0.8, 0.9]]))
    predictions = task.decode(examples, None, {"logits": logits})
    assert json.loads(json.dumps(predictions)) == predictions
    assert [found["labels"] for found in predictions] == [["y"], ["y"], []]
    assert predictions[0]["scores"] == pytest.approx({"x": 0.4, "y": 0.6})
    tuned = task.tune(examples, predictions)
    assert tuned.fitted.thresholds == pytest.approx((0.25, 0.65))
    again = tuned.decode(examples, None, {"logits": logits})
    assert [found["labels"] for found in again] == [["x"], ["x", "y"], []]
    assert tuned.score(examples, again) == pytest.approx(dict.fromkeys(
        ("accuracy", "micro_f1", "macro_f1", "f1/x", "f1/y"), 100))
    assert class_metrics(task, examples, predictions) == {"classes": {"unit": "example", "scores": {  # no confusion
        "x": {"count": 2, "precision": 0, "recall": 0, "f1": 0},
        "y": {"count": 1, "precision": 50, "recall": 100, "f1": pytest.approx(200 / 3)}}}}
    assert make_task("text_classification", {"multi_label": True}, fitted_values(tuned)).fitted == tuned.fitted
