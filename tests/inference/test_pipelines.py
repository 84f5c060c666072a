"""Pipelines: equal to predictions of files; what they and stored models refuse."""
import json
import re

import jax
import numpy as np
import pytest

import spanbert_jax
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.manifest import MANIFEST_FILE, folder_digest
from spanbert_jax.inference.files import predict_files
from spanbert_jax.inference.model_folder import load_model, save_model
from tests.tasks.small import write

pytestmark = pytest.mark.usefixtures("one_device")


def test_words_and_the_probabilities_of_all_classes(models, tmp_path):
    call = spanbert_jax.pipeline("token-classification", models["token_classification"], probabilities=True)
    found = call("Ann is, near.")
    assert found["words"] == ["Ann", "is", ",", "near", "."]
    for tag, score, row in zip(found["tags"], found["scores"], found["probabilities"], strict=True):
        assert list(row) == ["O", "B-PER", "I-PER"] and sum(row.values()) == pytest.approx(1)
        assert row[tag] == score == max(row.values())
    scores = spanbert_jax.pipeline("relation-extraction", models["relation_extraction"], probabilities=True)(
        INPUTS["relation-extraction"])["scores"]
    assert len(scores) == 3 and sum(scores.values()) == pytest.approx(1)


def test_a_pipeline_warns_about_truncated_inputs(models):
    call = spanbert_jax.pipeline("text-classification", models["text_classification"])
    with pytest.warns(UserWarning, match=r"texts longer than config.task.length, truncated at the end \(1\): input 2"):
        call(["red", "the " * 100])
    with pytest.raises(UserError, match="input 1: 5 is neither a text nor fields by name"):
        call([5])
    with pytest.raises(UserError, match="batch_size=0: must be at least 1"):
        spanbert_jax.pipeline("text-classification", models["text_classification"], batch_size=0)
    with pytest.raises(UserError, match="dtype='int8': allowed are"):
        spanbert_jax.pipeline("text-classification", models["text_classification"], dtype="int8")


INPUTS = {
    "question-answering": {"question": "what is the colour ?", "context": "the red house ."},
    "text-classification": "the red house .", "token-classification": "Ann is near the red house .",
    "relation-extraction": "<e1>Ann</e1> is near the <e2>red</e2> house .",
    "extractive-summarization": "Ann is near . Eve is by the old tree . Bob is new ."}


@pytest.mark.parametrize("name", INPUTS)
def test_pipelines_equal_predictions_of_files(name, models, tmp_path):
    call, inputs = spanbert_jax.pipeline(name, models[name.replace("-", "_")]), INPUTS[name]
    one = call(**inputs) if isinstance(inputs, dict) else call(inputs)
    many = call([inputs, inputs])
    assert len(many) == 2 and many[0].keys() == one.keys() and "id" not in one
    if name == "question-answering":
        context = inputs["context"]
        data = write(tmp_path / "data.jsonl", [inputs])
        assert one["answer"] == context[one["start"]:one["end"]]
        three = call(**inputs, n_best=3)
        assert len(three["n_best"]) == 3 and three["n_best"][:1] == one["n_best"]
        assert call(inputs) == one
        assert three == spanbert_jax.pipeline(name, models["question_answering"], n_best=3)(inputs)
    elif name == "token-classification":
        data = write(tmp_path / "data.jsonl", [{"text": inputs}])
        assert len(one["tags"]) == 7 and all(inputs[e["start"]:e["end"]] == e["text"] for e in one["entities"])
    elif name == "text-classification":
        data = write(tmp_path / "data.jsonl", [{"text": inputs, "id": 1}])
        assert sum(one["scores"].values()) == pytest.approx(1)
        with pytest.raises(UserError, match="setting 'n_best': unknown"):
            call(inputs, n_best=3)
    elif name == "extractive-summarization":
        data = write(tmp_path / "data.jsonl", [{"document": inputs}])
        assert len(one["scores"]) == 3 and all(inputs[s["start"]:s["end"]] == s["text"] for s in one["sentences"])
        assert call({"document": re.split(r"(?<=\.) ", inputs)}) == one
    else:
        words = ["Ann", "is", "near", "the", "red", "house", "."]
        record = {"id": 1, "token": words, "subj_start": 0, "subj_end": 0, "obj_start": 4, "obj_end": 4,
                  "subj_type": "", "obj_type": ""}
        data = write(tmp_path / "data.jsonl", [record])
        text = " ".join(words)
        at = text.index("red")
        assert one["subject"] == {"text": "Ann", "start": 0, "end": 3}
        assert one["object"] == {"text": "red", "start": at, "end": at + 3}
        for same in (record, {"text": text, "subject": [0, 3], "object": [at, at + 3]},
                     {"text": text, "h": {"name": "Ann", "pos": [0, 3]}, "t": {"name": "red", "pos": [at, at + 3]}}):
            assert call(same)["scores"] == pytest.approx(one["scores"], abs=1e-6)
    predict_files(models[name.replace("-", "_")], data, tmp_path / "out.jsonl")
    stored = json.loads((tmp_path / "out.jsonl").read_text())
    del stored["id"]
    assert json.dumps(stored) == json.dumps(one)


@pytest.mark.parametrize("inputs,message", [
    ({"subject": [0, 3], "object": [5, 9], "text": "short"}, "object is .5, 9.: give .start, end."),
    ({"subject": [0, 3], "text": "a text"}, "no field 'object'"), ("no tags", "needs <e1>words</e1>"),
    ({"subject": [0, 1], "object": [1, 2], "text": "a b"}, "object .1, 2. contains only white space")])
def test_wrong_inputs_are_rejected(inputs, message, models):
    with pytest.raises(UserError, match=f"^input 2: .*{message}"):
        spanbert_jax.pipeline("relation-extraction", models["relation_extraction"])(
            [INPUTS["relation-extraction"], inputs])


def test_another_task_and_a_missing_model_are_rejected(models, tmp_path):
    with pytest.raises(UserError, match="was trained for 'text-classification'"):
        spanbert_jax.pipeline("question-answering", models["text_classification"])
    with pytest.raises(UserError, match="contains no fine-tuned model .task.json is missing."):
        spanbert_jax.pipeline("question-answering", tmp_path)
    with pytest.raises(UserError, match="none: no such directory"):
        spanbert_jax.pipeline("question-answering", tmp_path / "none")


@pytest.mark.parametrize("damage,message", [
    (lambda stored: {**stored, "task": "guessing"}, "task.json: unknown task 'guessing'; allowed: "),
    (lambda stored: {**stored, "settings": {"length": 0}}, "task.json: config.task.length=0: must be at least 3"),
    (lambda stored: {**stored, "settings": None}, "task.json: settings is None; an object is needed; fetch it again"),
    (lambda stored: [stored], "task.json: not a JSON object"),
    (lambda stored: {**stored, "fitted": {"labels": ["a", "b"]}}, "the weights do not belong to the task"),
    (lambda stored: {"task": "text_classification"}, "task.json: settings is missing; fetch it again")])
def test_a_damaged_task_file_is_rejected(damage, message, models, tmp_path):
    fine_tuned = load_model(models["text_classification"])
    save_model(tmp_path / "model", fine_tuned)
    (tmp_path / "model" / MANIFEST_FILE).unlink()
    file = tmp_path / "model" / "task.json"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    with pytest.raises(UserError, match=message):
        load_model(tmp_path)


def test_a_stored_model_loads_and_is_replaced_atomically(models, tmp_path):
    fine_tuned = load_model(models["token_classification"])
    digests = set()
    for _ in range(2):
        save_model(tmp_path / "model", fine_tuned)
        digests.add(folder_digest(tmp_path / "model"))
    (tmp_path / "model" / "README.md").write_text("mine")
    assert digests == {folder_digest(tmp_path / "model")}  # the same model
    again = load_model(tmp_path / "model")
    assert again.task.fitted == fine_tuned.task.fitted and again.task.settings == fine_tuned.task.settings
    for ours, theirs in zip(jax.tree.leaves(again.params), jax.tree.leaves(fine_tuned.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_task_files_of_older_versions_load(models, tmp_path):
    fine_tuned = load_model(models["relation_extraction"])
    save_model(tmp_path / "model", fine_tuned)
    (tmp_path / "model" / MANIFEST_FILE).unlink()
    file = tmp_path / "model" / "task.json"
    stored = json.loads(file.read_text())
    stored["facts"] = stored.pop("fitted")
    file.write_text(json.dumps(stored))
    assert load_model(tmp_path).task == fine_tuned.task


def test_a_context_of_a_million_characters(models):
    context = "the old house . " * 62_500 + "red"
    answer = spanbert_jax.pipeline("question-answering", models["question_answering"])(
        question="what is the colour ?", context=context)
    assert answer["answer"] == context[answer["start"]:answer["end"]] and len(context) > 1_000_000
