"""Coreference from files and texts: the same chains in every batch, given mentions and chains, odd texts."""
import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import spanbert_jax
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.manifest import MANIFEST_FILE
from spanbert_jax.inference import executors
from spanbert_jax.inference.files import predict_files, score_files
from spanbert_jax.inference.model_folder import load_model
from tests.tasks.small import stories, write

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def resolve(models):
    return spanbert_jax.pipeline("coreference-resolution", models["coreference"])


def spans(prediction):
    return [[tuple(mention["words"]) for mention in chain] for chain in prediction["chains"]]


def test_a_document_has_the_same_chains_alone_in_a_batch_and_in_other_rows(resolve, models, monkeypatch):
    documents = [{"sentences": story["sentences"] * (1 + number % 5)} for number, story in enumerate(stories(12))]
    alone = [spans(resolve(document)) for document in documents]
    assert sum(map(len, alone)) > 5 and max(len(chain) for chains in alone for chain in chains) > 1
    assert [spans(prediction) for prediction in resolve(documents)] == alone
    monkeypatch.setitem(executors._SIZES, "cpu", (256, 4))
    other = spanbert_jax.pipeline("coreference", models["coreference"], batch_size=3)
    assert [spans(prediction) for prediction in other(documents[::-1])] == alone[::-1]


def test_offsets_are_those_of_the_given_text(resolve):
    text = "  Ann's red house,\n\nold Bob is near!  The house of Bob\u2009was new. "
    prediction = resolve(text)
    assert prediction["chains"]
    for chain in prediction["chains"]:
        for mention in chain:
            assert text[mention["start"]:mention["end"]] == mention["text"]
            first, end = mention["words"]
            assert "".join(prediction["tokens"][first:end]) == "".join(mention["text"].split())


def test_given_mentions_are_the_only_ones_and_given_chains_stay_together(resolve):
    words = "Ann is old . Bob was near Ann . Eve is new .".split()
    given = [[0, 0], [4, 4], [7, 7], [9, 9]]
    chains = spans(resolve({"tokens": words, "mentions": given}))
    assert {span for chain in chains for span in chain} <= {(first, last + 1) for first, last in given}
    start = [[[0, 0], [9, 9]], [[4, 4], [7, 7]]]
    chains = spans(resolve({"tokens": words, "mentions": given, "given_chains": start}))
    assert sorted(chains) == [[(0, 1), (9, 10)], [(4, 5), (7, 8)]]
    chains = spans(resolve({"tokens": words, "given_chains": start}))
    for chain in start:
        assert any({(first, last + 1) for first, last in chain} <= set(found) for found in chains)


@pytest.mark.parametrize("text", [
    "", "   \n ", "Ann", ".", "Ann Ann Ann " * 300, "a " * 2000, "word" * 500, "Ann\x00Bob\r\nEve\ttree",
    "\u05d0\u05e0\u05d9 \u05d4\u05d5\u05dc\u05da", "\u6211\u7231\u5317\u4eac\u3002\u5979\u4e5f\u662f\u3002",
    "\U0001f600 \u200b\u200d !", "e\u0301 " * 40])
def test_odd_texts_have_sound_chains(resolve, text):
    prediction = resolve(text)
    seen = [span for chain in spans(prediction) for span in chain]
    assert len(seen) == len(set(seen)) and all(0 <= first < end <= len(prediction["tokens"]) for first, end in seen)
    for chain in prediction["chains"]:
        assert chain == sorted(chain, key=lambda mention: mention["words"])
        assert all(text[mention["start"]:mention["end"]] == mention["text"] for mention in chain)


def test_files_pages_and_columns(models, tmp_path):
    data = write(tmp_path / "data.jsonl", stories(6, seed=3))
    predict_files(models["coreference"], data, tmp_path / "out.jsonl", html=tmp_path / "page.html")
    predictions = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    page = (tmp_path / "page.html").read_text()
    assert len(predictions) == 6 and page.count("</article>") == 6 and "http" not in page.replace("http-equiv", "")
    # Predictions are labels and given chains of the next call.
    for line, prediction in zip(stories(6, seed=3), predictions, strict=True):
        assert prediction["id"] == line["doc_key"]
    lines = [{"tokens": prediction["tokens"], "chains": prediction["chains"]} for prediction in predictions]
    metrics, _ = score_files(models["coreference"], write(tmp_path / "same.jsonl", lines))
    assert metrics["without_singletons/conll_f1"] == pytest.approx(100)


@pytest.mark.parametrize("html, official, message", [
    ("o.jsonl", None, "--html .*: is the output too"),
    ("here/o.jsonl", None, "--html .*: is the output too"),
    ("o.jsonl.partial", None, "--html .*: is the output while it is incomplete"),
    ("o.jsonl.partial.of", None, "--html .*: is the manifest of the incomplete output"),
    ("a.txt/page.html", None, "--html .*: cannot be written there"),
    ("-", None, "--html -: only --output may be standard output"),
    (None, "o.jsonl", "--official .*: is the output too"), ("page", "page", "--official .*: is the page too"),
    (None, ".", "--official .*: contains the output")])
def test_paths_in_each_others_way_are_refused_before_the_work(html, official, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").symlink_to(".")
    (tmp_path / "a.txt").write_text("Ann is old.")
    with pytest.raises(UserError, match=message):
        predict_files("no model", "a.txt", "o.jsonl", html=html, official=official)
    assert sorted(os.listdir()) == ["a.txt", "here"]


def test_names_that_are_not_utf8_are_written_as_escapes(models, tmp_path):
    files = [tmp_path / os.fsdecode(name) for name in (b"caf\xe9.txt", b"th\xe9.txt")]
    for file in files:
        file.write_text("Ann is old. Bob saw Ann.")
    for ending in ("jsonl", "csv"):
        predict_files(models["coreference"], ",".join(map(str, files)), tmp_path / f"out.{ending}",
                      html=tmp_path / f"{ending}.html", official=tmp_path / f"{ending}.official")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(line["file"], line["id"]) for line in lines] == [(str(file), file.stem) for file in files]
    assert "caf\\udce9" in (tmp_path / "out.csv").read_text() and "caf\\udce9" in (tmp_path / "csv.html").read_text()


def change_weights(change):
    """A change of the tensors of a file."""
    def apply(folder):
        tensors = load_file(folder / "task_head.safetensors")
        change(tensors)
        save_file(tensors, folder / "task_head.safetensors")

    return apply


def change_settings(**settings):
    """A change of the settings in task.json."""
    def apply(folder):
        stored = json.loads((folder / "task.json").read_text())
        (folder / "task.json").write_text(json.dumps({**stored, "settings": {**stored["settings"], **settings}}))

    return apply


def make_pipe(folder):
    (folder / "task_head.safetensors").unlink()
    os.mkfifo(folder / "task_head.safetensors")


@pytest.mark.parametrize("change, message", [
    (lambda folder: (folder / "task_head.safetensors").unlink(), "cannot be read"),
    (make_pipe, "cannot be read"),
    (lambda folder: (folder / "task_head.safetensors").write_bytes(b"\x10" + bytes(30)), "not a whole safetensors"),
    (change_weights(lambda tensors: tensors.pop("scorer/pair/kernel")),
     r"scorer/pair/kernel: shape None where the task in task.json has \(16, 16\)"),
    (change_weights(lambda tensors: tensors.update({"scorer/pair": np.zeros(2, np.float32)})), "scorer/pair: shape"),
    (change_settings(ffnn_size=10**6), r"shape \(8,\) where the task in task.json has \(1000000,\)"),
    (change_settings(max_span_width=10**9), "max_span_width")])
def test_weights_and_settings_that_do_not_belong_together_are_refused(change, message, models, tmp_path):
    folder = shutil.copytree(models["coreference"] / "model", tmp_path / "model")
    (folder / MANIFEST_FILE).unlink()
    change(folder)
    with pytest.raises(UserError, match=message):
        load_model(folder)
