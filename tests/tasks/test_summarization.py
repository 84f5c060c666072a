"""Abstractive summarization: documents, targets, and metrics."""
import json

import pytest
from rouge_score.rouge_scorer import RougeScorer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks import make_task
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer

SENTENCES = ["The cat sat on the mat.", "A dog ran by."]


def summarize(**settings):
    return make_task("summarization", {"length": 32, "target_length": 8, **settings})


@pytest.fixture
def documents(tmp_path):
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (
        {"key": "x", "text": SENTENCES, "short": ["a cat sat", "a dog ran"]},
        {"key": "y", "text": "One dog. Two cats.", "short": "two cats"})))
    task, issues = summarize(source="text", target="short", id="key"), DataIssues()
    found = list(task.read(str(tmp_path / "d.jsonl"), issues))
    assert not issues.counts
    return task, found


def test_the_first_summary_is_the_target(documents, tmp_path):
    task, found = documents
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in (
        *SPECIAL_TOKENS, *"the cat cats sat on mat a dog ran by one two .".split())))
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    features = task.features(found, tokenizer, DataIssues())
    text = [tokenizer.id_to_token(piece) for piece in features.tokens[features.token_slice(0)].tolist()]
    assert text == ["[CLS]", *"the cat sat on the mat . a dog ran by .".split(), "[SEP]"]
    labels = [[tokenizer.id_to_token(piece) for piece in features.labels[number].tolist()] for number in (0, 1)]
    assert labels == [["[CLS]", "a", "cat", "sat", "[SEP]"], ["[CLS]", "two", "cats", "[SEP]"]]
    assert [example.id for example in found] == ["x", "y"]


def test_metrics_are_the_best_over_the_summaries_and_the_first_sentence_is_the_baseline(documents):
    task, found = documents
    metrics = task.score(found, [{"id": "x", "summary": "the dog ran"}, {"id": "y", "summary": "two cats"}])
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)

    def expected(kind, guesses):
        return 50 * sum(max(scorer.score(summary, guess)[kind].fmeasure for summary in example.summaries)
                        for example, guess in zip(found, guesses, strict=True))

    for name, kind in (("rouge_1", "rouge1"), ("rouge_l", "rougeL")):
        assert metrics[name] == pytest.approx(expected(kind, ["the dog ran", "two cats"]))
        assert metrics[f"lead/{name}"] == pytest.approx(expected(kind, [SENTENCES[0], "One dog."]))


def test_inputs_are_texts_or_lists_of_sentences():
    task, issues = summarize(), DataIssues()
    assert task.example("A text.", "input 1", issues).source == "A text."
    assert task.example({"document": SENTENCES}, "input 1", issues).source == " ".join(SENTENCES)
    with pytest.raises(UserError, match="config.task.source='': give"):
        summarize(source="")


def test_without_summaries_the_principal_sentence_is_the_target(tmp_path):
    texts = ["A dog came. The cat saw a dog. The cat sat.",
             f"One bird. {'It ' * 10}sat. {'Two cats ran. ' * 3}", "", "One two three four five six."]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"document": text}) + "\n" for text in texts))
    task, issues = summarize(target="", length=24, target_length=8), DataIssues()  # 16 words are read, 5 written
    found = list(task.read(str(tmp_path / "d.jsonl"), issues))
    assert [example.source for example in found] == texts[:2]
    assert [example.targets for example in found] == [("The cat saw a dog.",), ("One bird.",)]
    assert issues.places == {
        "documents without text, left out": [f"{tmp_path / 'd.jsonl'}:3 (id '3')"],
        "documents without a sentence that fits config.task.length and target_length, left out":
            [f"{tmp_path / 'd.jsonl'}:4 (id '4')"]}
    unlabelled = list(task.read(str(tmp_path / "d.jsonl"), DataIssues(), with_labels=False))
    assert [example.source for example in unlabelled] == texts and not any(example.targets for example in unlabelled)
