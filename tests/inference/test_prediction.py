"""Prediction: the same for any batch size and after interruptions, from files and from Python."""
import contextlib
import csv
import errno
import io
import json
import os
import pathlib
import re
import shutil
import sys

import jax
import pytest

import spanbert_jax
from spanbert_jax.commands.main import main
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.manifest import seal_folder
from spanbert_jax.inference import executors, files, outputs
from spanbert_jax.inference.files import predict_files, score_files
from spanbert_jax.inference.model_folder import load_model
from spanbert_jax.inference.outputs import InputFields, write_table
from spanbert_jax.interop import load_tokenizer
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.files.columns import Sentence
from spanbert_jax.tasks.text_classification import TextClassification
from tests.damage import flip_bit
from tests.inference.conftest import SETTINGS, save_random_model
from tests.runs import visible_devices
from tests.tasks.small import MAKERS, write

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.mark.parametrize("name", SETTINGS)
def test_the_batch_size_changes_no_result(name, models, tmp_path, small_groups):
    data = write(tmp_path / "data.jsonl", MAKERS[name](50, seed=7))
    for size in (1, 64):
        predict_files(models[name], data, tmp_path / f"{size}.jsonl", batch_size=size)
    results = [(tmp_path / f"{size}.jsonl").read_bytes() for size in (1, 64)]
    assert results[0] == results[1] and len(results[0].splitlines()) == 50
    assert not list(tmp_path.glob("*.partial*"))


def test_the_number_of_devices_changes_no_result(models, tmp_path, small_groups):
    data = write(tmp_path / "data.jsonl", MAKERS["token_classification"](50, seed=7))
    results = []
    for count, size in ((1, 2), (3, 2), (8, 64)):
        with visible_devices(count):
            predict_files(models["token_classification"], data, tmp_path / f"{count} {size}", batch_size=size)
        results.append((tmp_path / f"{count} {size}").read_bytes())
    assert results == results[:1] * 3


class Killed(BaseException):
    """Simulates the end of the process."""


@pytest.mark.parametrize("left", [b"", b'{"id": "half'])
def test_a_killed_prediction_continues_to_the_same_result(left, models, tmp_path, small_groups, monkeypatch):
    data, name = write(tmp_path / "data.jsonl", MAKERS["text_classification"](50, seed=7)), "text_classification"
    predict_files(models[name], data, tmp_path / "whole.jsonl")
    calls = []

    def kill(count):
        calls.append(count)
        if count == 32:
            raise Killed

    with pytest.raises(Killed):
        predict_files(models[name], data, tmp_path / "out.jsonl", on_examples=kill)
    assert calls == [0, 16, 32] and not (tmp_path / "out.jsonl").exists()
    with open(tmp_path / "out.jsonl.partial", "ab") as partial:
        partial.write(left)
    calls.clear()
    predict_files(models[name], data, tmp_path / "out.jsonl", batch_size=8, on_examples=calls.append)
    assert calls == [32, 48, 50]
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_groups_have_few_characters(monkeypatch, small_groups):
    monkeypatch.setattr(executors, "_CHARACTERS", 5)  # 80 in a group
    examples = [Sentence(str(number), "", "", (text,), None) for number, text in enumerate(
        ["a" * 60, "b" * 18, "c", "d" * 200, *"e" * 20, "f" * 70])]
    groups = list(executors.example_groups(iter(examples)))
    assert [[example.words[0][0] for example in group] for group in groups] == [
        ["a", "b"], ["c"], ["d"], ["e"] * 16, ["e"] * 4, ["f"]]


def interrupted(models, data, output, **options) -> None:
    """Predicts the first 16 examples of classes."""
    def kill(count):
        if count == 16:
            raise Killed

    with pytest.raises(Killed):
        predict_files(models["text_classification"], data, output, on_examples=kill, **options)


@pytest.mark.parametrize("change", ["labels", "weights", "settings", "flags", "nothing"])
def test_a_partial_output_is_continued_only_with_the_same_content(change, models, tmp_path, small_groups, monkeypatch,
                                                                  caplog):
    data = write(tmp_path / "data.jsonl", MAKERS["text_classification"](40))
    model, keep = tmp_path / "model", ""
    shutil.copytree(models["text_classification"] / "model", model)
    interrupted({"text_classification": model}, data, tmp_path / "out.jsonl")
    weights, status = model / "model.safetensors", {}
    for file in (pathlib.Path(data), weights):
        status[file] = file.stat()
    if change == "labels":
        pathlib.Path(data).write_text(pathlib.Path(data).read_text().replace('"a"', '"b"', 1).replace("old", "new", 1))
    elif change == "weights":
        flip_bit(weights, 8 * weights.stat().st_size - 100)
        seal_folder(model)
    elif change == "settings":
        keep = "text"
    elif change == "flags":
        monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"] + " --xla_cpu_enable_fast_math=true")
    else:
        (model / "README.md").write_text("mine")
        (model / "notes.txt").write_text("mine")
        for file in model.iterdir():
            os.utime(file)
        os.utime(data, (1, 1))
    if change != "nothing":
        for file, before in status.items():
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert file.stat().st_size == before.st_size
    counts = []
    predict_files(model, data, tmp_path / "out.jsonl", keep=keep, on_examples=counts.append)
    assert counts[0] == (16 if change == "nothing" else 0)
    assert (tmp_path / "out.jsonl.partial-1").exists() == (change != "nothing")
    named = {"labels": "input", "weights": "model", "flags": "compiler"}.get(change, change)
    assert (f"made with another {named}; it is now out.jsonl.partial-1" in caplog.text) == (change != "nothing")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 40
    with pytest.raises(UserError, match="exists already and is not overwritten"):
        predict_files(model, data, tmp_path / "out.jsonl")


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_an_output_that_appears_meanwhile_is_not_replaced(name, models, tmp_path):
    data = write(tmp_path / "data.jsonl", MAKERS["text_classification"](3))
    with pytest.raises(UserError, match=f"{name}: another program has made it meanwhile, and it is not overwritten"):
        predict_files(models["text_classification"], data, tmp_path / name,
                      on_examples=lambda count: (tmp_path / name).write_text("mine"))
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    predict_files(models["text_classification"], data, tmp_path / name)
    assert len((tmp_path / name).read_text().splitlines()) == 3 + (name == "out.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"data.jsonl", name}


def test_a_damaged_line_stops_prediction_and_keeps_what_was_done(models, tmp_path, small_groups):
    records = MAKERS["text_classification"](40)
    data = write(tmp_path / "data.jsonl", records)
    with open(data, "a") as file:
        file.write("{\n")
    with pytest.raises(UserError, match="data.jsonl:41: not a JSON line"):
        predict_files(models["text_classification"], data, tmp_path / "out.jsonl")
    assert len((tmp_path / "out.jsonl.partial").read_text().splitlines()) == 32


def test_scores_of_files_and_official_formats(models, tmp_path):
    data = write(tmp_path / "data.jsonl", MAKERS["question_answering"](30, seed=3))
    metrics, issues = score_files(models["question_answering"], data, tmp_path / "out")
    assert metrics["total"] == 30 and 0 <= metrics["f1"] <= 100 and not issues.counts
    answers = json.loads((tmp_path / "out" / "predictions.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    assert answers == {line["id"]: line["answer"] for line in lines} and len(answers) == 30


def test_the_evaluate_command_shows_the_classes(models, tmp_path, capsys):
    data = write(tmp_path / "data.jsonl", MAKERS["text_classification"](20))
    assert main(["evaluate", "--workdir", str(models["text_classification"]), "--input", data]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^examples +20$", shown, re.MULTILINE)
    assert re.search(r"^macro_f1 +[0-9.]+%$", shown, re.MULTILINE) and "Scores by class in percent" in shown
    assert "Confusion of examples" in shown and "answer / prediction" in shown


def test_glue_submissions_of_test_files(start, tmp_path):
    task = make_task("text_classification", {"glue": "mnli", "length": 32})
    save_random_model(tmp_path / "model", start, "text_classification", task.fit([], load_tokenizer(start)))
    files = tmp_path / "test_matched.tsv", tmp_path / "test_mismatched.tsv"
    for file, index in zip(files, (0, 40)):  # without labels
        file.write_text(f"index\tsentence1\tsentence2\n{index}\tred cat\told tree\n{index + 1}\tred\tblue\n")
    predict_files(tmp_path / "model", ",".join(map(str, files)), tmp_path / "out.jsonl", official=tmp_path / "sub")
    labels = [json.loads(line)["label"] for line in (tmp_path / "out.jsonl").open()]
    assert {path.name: path.read_text() for path in (tmp_path / "sub").iterdir()} == {
        "MNLI-m.tsv": f"index\tprediction\n0\t{labels[0]}\n1\t{labels[1]}\n",
        "MNLI-mm.tsv": f"index\tprediction\n40\t{labels[2]}\n41\t{labels[3]}\n"}


def test_the_commands(models, tmp_path, capsys):
    model, data = str(models["question_answering"]), write(tmp_path / "data.jsonl", MAKERS["question_answering"](20))
    command = ["predict", "--model", model, "--input", data, "--output", str(tmp_path / "out.jsonl")]
    assert main([*command, "--official", str(tmp_path / "official")]) == 0
    assert "20 predictions in " in capsys.readouterr().out
    assert {"predictions.json", "nbest_predictions.json"} == {path.name for path in (tmp_path / "official").iterdir()}
    assert main(["evaluate", "--workdir", model, "--input", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 20
    assert main([*command[:-1], str(tmp_path / "other.jsonl"), "--batch-size", "0"]) == 2 and main(command) == 2
    assert "batch_size=0: must be at least 1" in capsys.readouterr().err


def test_standard_input_and_output(models, tmp_path, capsys, monkeypatch):
    name = "question_answering"
    data = write(tmp_path / "data.jsonl", MAKERS[name](3))
    predict_files(models[name], data, tmp_path / "out.jsonl")
    for arguments in (["--input", "-", "--output", "-"], ["--input", "-", "--output", str(tmp_path / "other.jsonl")]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pathlib.Path(data).read_bytes())))
        assert main(["predict", "--model", str(models[name]), *arguments]) == 0
        printed = capsys.readouterr()
        found, count = printed.out, printed.err
        if arguments[-1] != "-":
            found, count = (tmp_path / "other.jsonl").read_text(), printed.out
        assert found == (tmp_path / "out.jsonl").read_text() and "3 predictions in " in count
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pathlib.Path(data).read_bytes())))
    assert main(["evaluate", "--workdir", str(models[name]), "--input", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 3


def test_unknown_labels_are_counted(models, tmp_path, capsys, caplog):
    records = MAKERS["text_classification"](10)
    records[3]["label"] = "pink"
    data = write(tmp_path / "data.jsonl", records)
    assert main(["evaluate", "--workdir", str(models["text_classification"]), "--input", data]) == 0
    assert "examples of classes without training examples" in caplog.text and "data.jsonl:4" in caplog.text
    printed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    metrics = spanbert_jax.evaluate(models["text_classification"], inputs=data)
    assert "accuracy" in printed and metrics.keys() - {"classes"} <= printed
    assert metrics["classes"]["scores"]["pink"] == {"count": 1, "precision": 0, "recall": 0, "f1": 0}


def test_predictions_join_the_rows_of_a_table(models, tmp_path, small_groups):
    rows = [{"id": f"r{number}", "text": record["text"] + ", \tor so", "note": 'say "so"\n' * (number % 2),
             "label": record["label"]} for number, record in enumerate(MAKERS["text_classification"](20, seed=7))]
    data = write(tmp_path / "data.jsonl", rows)
    plain, kept = tmp_path / "plain.jsonl", tmp_path / "kept.jsonl"
    predict_files(models["text_classification"], data, plain)
    expected = [json.loads(line) for line in plain.open()]
    assert [found["id"] for found in expected] == [row["id"] for row in rows]
    predict_files(models["text_classification"], data, kept, keep="all")
    assert [json.loads(line) for line in kept.open()] == [
        {**found, "input": row} for found, row in zip(expected, rows, strict=True)]
    with open(tmp_path / "data.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "id", "note", "label"])
        writer.writeheader()
        writer.writerows(rows)
    for name, dialect in (("out.csv", {}), ("out.tsv", {"delimiter": "\t", "quoting": csv.QUOTE_NONE})):
        assert main(["predict", "--model", str(models["text_classification"]), "--input", str(tmp_path / "data.csv"),
                     "--output", str(tmp_path / name), "--keep", "note, label"]) == 0
        with open(tmp_path / name, newline="") as file:
            found = list(csv.DictReader(file, **dialect))
        assert list(found[0]) == ["id", "label", "score", "scores.blue", "scores.green", "scores.red", "input.note",
                                  "input.label"]
        for cells, prediction, row in zip(found, expected, rows, strict=True):
            assert [cells["id"], cells["label"], cells["input.label"]] == [row["id"], prediction["label"], row["label"]]
            assert float(cells["scores.red"]) == pytest.approx(prediction["scores"]["red"])
            assert cells["input.note"] == (row["note"] if name == "out.csv" else row["note"].strip())
    assert {path.name for path in tmp_path.iterdir()} == {
        "data.jsonl", "data.csv", "plain.jsonl", "kept.jsonl", "out.csv", "out.tsv"}


def test_predictions_of_several_files_name_their_file(models, tmp_path):
    records = MAKERS["text_classification"](3)
    files = [write(tmp_path / name, [{"text": record["text"], "label": record["label"]} for record in records])
             for name in ("a.jsonl", "b.jsonl")]
    model, inputs = models["text_classification"], ",".join(files)
    predict_files(model, files[0], tmp_path / "one.jsonl")
    predict_files(model, inputs, tmp_path / "both.jsonl")
    score_files(model, inputs, tmp_path / "scored")
    one = [json.loads(line) for line in (tmp_path / "one.jsonl").open()]
    assert [found["id"] for found in one] == ["1", "2", "3"] and "file" not in one[0]
    for output in (tmp_path / "both.jsonl", tmp_path / "scored" / "predictions.jsonl"):
        assert [json.loads(line) for line in output.open()] == [
            {**found, "file": file} for file in files for found in one]


def test_a_field_is_left_out_where_a_record_lacks_it(tmp_path):
    records = [{"text": "a"}, {"text": "b", "note": "n"}, {"text": "c", "note": None}]
    file = write(tmp_path / "data.jsonl", records)
    fields = InputFields([file], (), "text,note")
    examples = make_task("text_classification", {}).read(file, DataIssues(), with_labels=False)
    assert [fields(example) for example in examples] == records


def labels_page(self, examples, predictions):
    """A page of texts and labels, in parts."""
    yield "<p>"
    for example, prediction in zip(examples, predictions, strict=True):
        yield f"{example.text} {prediction['label']}<br>"


def test_a_page_shows_all_predictions_after_an_interruption_too(models, tmp_path, small_groups, monkeypatch):
    monkeypatch.setattr(TextClassification, "html", labels_page)
    records = MAKERS["text_classification"](20)
    files = [write(tmp_path / name, part) for name, part in (("a.jsonl", records[:15]), ("b.jsonl", records[15:]))]

    def kill(count):
        if count == 16:
            raise Killed

    for on_examples in (kill, lambda count: None):
        with pytest.raises(Killed) if on_examples is kill else contextlib.nullcontext():
            predict_files(models["text_classification"], ",".join(files), tmp_path / "out.jsonl",
                          html=tmp_path / "pages" / "out.html", on_examples=on_examples)
        assert (tmp_path / "pages").exists() == (on_examples is not kill)
    labels = [json.loads(line)["label"] for line in (tmp_path / "out.jsonl").open()]
    assert (tmp_path / "pages" / "out.html").read_text() == "<p>" + "".join(
        f"{record['text']} {label}<br>" for record, label in zip(records, labels, strict=True))
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["out.html"]


def test_a_page_replaces_nothing(models, tmp_path, monkeypatch):
    monkeypatch.setattr(TextClassification, "html", labels_page)
    model, page = models["text_classification"], tmp_path / "out.html"
    data = write(tmp_path / "data.jsonl", MAKERS["text_classification"](3))
    for error, arguments in (("out.html: another program has made it meanwhile, and it is not overwritten",
                              {"on_examples": lambda count: page.write_text("mine")}),
                             ("out.html: exists already and is not overwritten", {})):
        with pytest.raises(UserError, match=error):
            predict_files(model, data, tmp_path / "out.jsonl", html=page, **arguments)
        assert page.read_text() == "mine"
    with pytest.raises(UserError, match="--html .*: is the output too"):
        predict_files(model, data, tmp_path / "other.html", html=tmp_path / "other.html")
    page.unlink()
    page.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="exists already"):
        predict_files(model, data, tmp_path / "out.jsonl", html=page)
    page.unlink()
    predict_files(model, data, tmp_path / "out.jsonl", html=page)
    assert {path.name for path in tmp_path.iterdir()} == {"data.jsonl", "out.jsonl", "out.html"}


def test_fields_that_cannot_be_kept(models, tmp_path):
    data = write(tmp_path / "data.jsonl", MAKERS["text_classification"](3))
    with pytest.raises(UserError, match="data.jsonl:1: no field 'date' to keep; there are 'id', 'text', 'label'"):
        predict_files(models["text_classification"], data, tmp_path / "out.jsonl", keep="text,date")
    words = tmp_path / "words.conll"
    words.write_text("Ann O\nis O\n\nred O\n")
    with pytest.raises(UserError, match="keep='all': only rows of tables and JSON lines have fields, and .*conll:1 is"):
        predict_files(models["token_classification"], str(words), tmp_path / "out.jsonl", keep="all")


def test_fields_of_records_in_an_array_are_kept(tmp_path):
    records = MAKERS["relation_extraction"](3)
    (tmp_path / "data.json").write_text(json.dumps(records))
    fields = InputFields([str(tmp_path / "data.json")], (), "all")
    examples = make_task("relation_extraction", {}).read(str(tmp_path / "data.json"), DataIssues())
    assert [fields(example) for example in examples] == records


def test_meaningless_flags_are_rejected(models, tmp_path, capsys):
    model, data = models["text_classification"], write(tmp_path / "data.jsonl", MAKERS["text_classification"](3))
    empty = write(tmp_path / "empty.jsonl", [])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "task.json").write_text("{}")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.json").write_text('{"train": {}, "task": {}}')
    (tmp_path / "damaged").mkdir()
    for name in ("task", "results"):
        (tmp_path / "damaged" / f"{name}.json").write_text("{")
    for command, message in (
            (["evaluate", "--workdir", model, "--input", data, "--step", "3"], "step=3: a fine-tuned model"),
            (["evaluate", "--workdir", model, "--out", tmp_path / "out"],
             "out='.*': applies to the predictions for labelled files"),
            (["evaluate", "--workdir", tmp_path / "run"], "this fine-tuning run has not finished"),
            (["evaluate", "--workdir", tmp_path / "begun"], "this fine-tuning run has not finished"),
            (["evaluate", "--workdir", tmp_path / "damaged"], "results.json: not JSON .*start the command of the run"),
            (["evaluate", "--workdir", model / "model"], "holds a model, .*give the workdir of the run, or labelled"),
            (["evaluate", "--workdir", model, "--input", empty], "contains no example"),
            (["predict", "--model", model, "--input", data, "--output", tmp_path / "o", "--official", tmp_path / "f"],
             "text_classification has no official format"),
            (["predict", "--model", model, "--input", data, "--output", tmp_path / "o", "--html", tmp_path / "f"],
             "--html .*: text_classification has no page to show its predictions")):
        assert main([str(word) for word in command]) == 2
        error = capsys.readouterr().err
        assert re.search(message, error) and error.count("\n") == 1


def test_a_prediction_without_enough_memory_names_the_batch_size(models, tmp_path, capsys, monkeypatch):
    def call(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(executors.ChunkedExecutor, "__call__", call)
    model, data = models["text_classification"], write(tmp_path / "data.jsonl", MAKERS["text_classification"](3))
    assert main(["evaluate", "--workdir", str(model), "--input", data, "--batch-size", "5"]) == 2
    error = capsys.readouterr().err
    assert "batch_size=5: the device ran out of memory" in error and error.count("\n") == 1


def test_a_continued_call_writes_the_official_files(models, tmp_path, small_groups):
    data, name = write(tmp_path / "data.jsonl", MAKERS["question_answering"](20)), "question_answering"

    def kill(count):
        if count == 16:
            raise Killed

    for on_examples in (kill, lambda count: None):
        with pytest.raises(Killed) if on_examples is kill else contextlib.nullcontext():
            predict_files(models[name], data, tmp_path / "out.jsonl", official=tmp_path / "official",
                          on_examples=on_examples)
    assert len(json.loads((tmp_path / "official" / "predictions.json").read_text())) == 20


def test_a_tokenizer_with_ids_beyond_the_network_is_refused(models, tmp_path):
    model = shutil.copytree(models["text_classification"] / "model", tmp_path / "model")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["strange"] = 100_000
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    seal_folder(model)
    with pytest.raises(UserError, match="its tokenizer has 100,001 entries, the last 'strange', and the model"):
        load_model(model)


def test_a_call_whose_output_cannot_be_completed_leaves_no_page(models, tmp_path, monkeypatch):
    monkeypatch.setattr(TextClassification, "html", labels_page)
    data = write(tmp_path / "data.jsonl", MAKERS["text_classification"](3))

    def fail(lines, output):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for full in (True, False):
        with monkeypatch.context() as patch, pytest.raises(UserError) if full else contextlib.nullcontext():
            if full:
                patch.setattr(files, "write_table", fail)
            predict_files(models["text_classification"], data, tmp_path / "out.csv", html=tmp_path / "page.html")
    assert {path.name for path in tmp_path.iterdir()} == {"data.jsonl", "out.csv", "page.html"}


def test_official_files_of_others_are_no_result_of_an_interrupted_call(models, tmp_path, small_groups):
    data, official = write(tmp_path / "data.jsonl", MAKERS["question_answering"](8)), tmp_path / "official"

    def kill(count):
        if count:
            raise Killed

    with pytest.raises(Killed):
        predict_files(models["question_answering"], data, tmp_path / "out.jsonl", on_examples=kill)
    official.mkdir()
    (official / "notes").write_text("mine")
    with pytest.raises(UserError, match="official: exists already and is not overwritten"):
        predict_files(models["question_answering"], data, tmp_path / "out.jsonl", official=official)
    assert [path.name for path in official.iterdir()] == ["notes"] and (tmp_path / "out.jsonl.partial").exists()


@pytest.mark.parametrize("name", ["out.csv", "out.tsv"])
def test_tables_of_odd_fields(name, tmp_path, monkeypatch):
    rows = [{"id": "1", "a\tb": 1, 'c"\nd': [1], "e\r": None, "": "x\ty\udce9"}, {"id": "2", "f,g": "\0"}]
    (tmp_path / "lines").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_table(tmp_path / "lines", tmp_path / name)
    with open(tmp_path / name, encoding="utf-8", newline="") as file:
        found = list(csv.reader(file) if name.endswith("csv") else (line.rstrip("\n").split("\t") for line in file))
    assert len(found) == 3 and {len(row) for row in found} == {6} and found[2][0] == "2"
    monkeypatch.setattr(outputs, "_FREE_CELLS", 1000)
    (tmp_path / "lines").write_text("".join(f'{{"id": {number}, "x{number}": 1}}\n' for number in range(300)))
    with pytest.raises(UserError, match="a table of 301 columns, almost all of them empty"):
        write_table(tmp_path / "lines", tmp_path / f"wide-{name}")
    assert sorted(os.listdir(tmp_path)) == ["lines", name]
