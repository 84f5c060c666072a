"""Models that were fine-tuned with transformers, imported for a task: the results of its pipelines, both ways."""
import itertools
import json

import pytest
import torch
import transformers

import spanbert_jax
from spanbert_jax.commands.main import main
from spanbert_jax.inference.model_folder import load_model
from spanbert_jax.text import SPECIAL_TOKENS
from tests.interop.networks import save
from tests.tasks.small import WORDS

TEXTS = ["the red house .", "Ann is near the old tree", "a blue cat ? what"]
# Of text classification: the config of a model, and how its pipeline names its results.
PROBLEMS = {
    "regression": dict(num_labels=1, id2label={0: "grade"}, problem_type="regression"),
    "one class": dict(problem_type="single_label_classification"),
    "not stated": {},
    "several classes": dict(problem_type="multi_label_classification"),
    "one logit": dict(num_labels=1, id2label={0: "good"}),  # transformers gives its sigmoid
}


def published(folder, head, **fields):
    """A directory as transformers writes it."""
    vocab = folder / "vocab.txt"
    folder.mkdir()
    vocab.write_text("".join(f"{piece}\n" for piece in (*SPECIAL_TOKENS, *WORDS)))
    transformers.BertTokenizerFast(str(vocab), do_lower_case=False).save_pretrained(folder)
    save(head, folder, **fields)
    return folder


def imported(source, task, out, *words):
    assert main(["import", "--from", str(source), "--task", task, "--out", str(out), *words]) == 0
    return spanbert_jax.pipeline(task.replace("_", "-"), out)


def classes_there(folder, texts):
    """What the pipeline of transformers gives for each text: a score by label."""
    call = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    return [{entry["label"]: entry["score"] for entry in entries} for entries in call(texts)]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_text_classification_both_ways(problem, tmp_path):
    source = published(tmp_path / "theirs", "sequence_classification", **PROBLEMS[problem])
    call, expected = imported(source, "text_classification", tmp_path / "in"), classes_there(source, TEXTS)
    for found, scores in zip(call(TEXTS), expected, strict=True):
        if problem == "regression":
            assert found == {"value": pytest.approx(scores["grade"], abs=1e-5)}
            continue
        assert found["scores"] == pytest.approx(scores, abs=1e-5)
        if problem in ("several classes", "one logit"):
            assert found["labels"] == [label for label in found["scores"] if scores[label] > 0.5]
        else:
            assert found["label"] == max(scores, key=scores.get) and sum(scores.values()) == pytest.approx(1)
    exported = spanbert_jax.export(tmp_path / "in", "huggingface", tmp_path / "out")
    assert exported.out == tmp_path / "out" and exported.comparison.difference <= exported.comparison.allowed
    for scores, again in zip(expected, classes_there(tmp_path / "out", TEXTS), strict=True):
        assert again == pytest.approx(scores, abs=1e-5)
    # The export is a model of the task too.
    assert spanbert_jax.pipeline("text-classification", tmp_path / "out")(TEXTS) == call(TEXTS)


def test_pairs_by_a_setting(tmp_path):
    source = published(tmp_path / "theirs", "sequence_classification")
    call = imported(source, "text_classification", tmp_path / "in", "--set", "second=hypothesis")
    there = transformers.pipeline("text-classification", model=str(source), top_k=None)
    expected = there({"text": TEXTS[0], "text_pair": TEXTS[1]})
    assert call(text=TEXTS[0], hypothesis=TEXTS[1])["scores"] == pytest.approx(
        {entry["label"]: entry["score"] for entry in expected}, abs=1e-5)


def test_token_classification(tmp_path):
    tags = {0: "O", 1: "B-PER", 2: "I-PER"}
    source = published(tmp_path / "theirs", "token_classification", id2label=tags)
    call = imported(source, "token_classification", tmp_path / "in")
    there = transformers.pipeline("token-classification", model=str(source), ignore_labels=[])
    for text in TEXTS:
        found, expected = call(text), there(text)
        assert found["tags"] == [entry["entity"] for entry in expected]
        assert found["scores"] == pytest.approx([entry["score"] for entry in expected], abs=1e-5)
    assert load_model(tmp_path / "in").task.fitted.scheme == "BIO"


def test_question_answering(tmp_path):
    source = published(tmp_path / "theirs", "question_answering")
    spanbert_jax.import_(source, tmp_path / "in", task="question_answering")
    call = spanbert_jax.pipeline("question-answering", tmp_path / "in")
    there = transformers.pipeline("question-answering", model=str(source), max_answer_len=30)
    for question, context in itertools.pairwise(TEXTS):
        expected, found = there(question=question, context=context), call(question=question, context=context)
        assert (found["answer"], found["start"]) == (expected["answer"], expected["start"])


def test_what_cannot_be_imported(tmp_path, capsys):
    source = published(tmp_path / "theirs", "token_classification", id2label={0: "NOUN", 1: "VERB", 2: "O"})
    (tmp_path / "bare").mkdir()
    save("sequence_classification", tmp_path / "bare")
    for folder, words, message in (
            (source, ("--task", "token_classification"), "its label 'NOUN' is not a tag of entities"),
            (source, ("--task", "text_classification"), "the model has a token_classification head, not that of the"),
            (tmp_path / "bare", ("--task", "relation_extraction"), "only the run that trained a model of this task"),
            (tmp_path / "bare", ("--task", "text_classification"), "neither tokenizer.json nor vocab.txt in it"),
            (tmp_path / "bare", ("--task", "text_classification", "--set", "secnd=b"), "did you mean 'second'"),
            (tmp_path / "bare", ("--set", "second=b"), "--set: applies to the model's task; give --task too")):
        assert main(["import", "--from", str(folder), *words, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
    twice = published(tmp_path / "twice", "sequence_classification", id2label={0: "a", 1: "b", 2: "a"})
    assert main(["import", "--from", str(twice), "--task", "text_classification", "--out", str(tmp_path / "out")]) == 2
    assert "id2label gives several classes one name (a, b, a)" in capsys.readouterr().err
    config = json.loads((tmp_path / "bare" / "config.json").read_text())
    (tmp_path / "bare" / "config.json").write_text(json.dumps({**config, "problem_type": "guessing"}))
    assert main(["import", "--from", str(tmp_path / "bare"), "--out", str(tmp_path / "out")]) == 2
    assert "config.json: problem_type is 'guessing'; allowed are regression, single" in capsys.readouterr().err


def test_the_head_is_kept_when_a_model_is_fine_tuned_further(tmp_path):
    """Models of transformers mostly have no problem type; a task has one."""
    source = published(tmp_path / "theirs", "sequence_classification")
    fine_tuned = load_model(imported_to(source, tmp_path / "in"))
    params = fine_tuned.task.initial_params(fine_tuned.model, str(source), fine_tuned.tokenizer, seed=0)
    theirs = transformers.BertForSequenceClassification.from_pretrained(source).classifier.weight
    assert torch.equal(torch.from_numpy(params["classification_head"]["kernel"].copy()).T, theirs)


def imported_to(source, out):
    imported(source, "text_classification", out)
    return out
