"""`prepare` end to end: what it writes, when it does nothing or raises, and that it never leaves half a corpus."""
import gzip
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus import RowSource, open_corpus, preparation, prepare


def run(sources, out, vocabulary, **changes):
    return prepare(sources if isinstance(sources, list) else str(sources), out,
                   **{"tokenizer": vocabulary, "length": 64, "validation_fraction": 0.2, "progress": False, **changes})


def all_rows(corpus, split):
    source = RowSource(corpus, split)
    return source.rows(np.arange(len(source)))


def snapshot(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_every_token_is_in_exactly_one_row(books, tmp_path, vocabulary):
    corpus = run(books, tmp_path / "out", vocabulary)
    assert set(corpus.num_rows) == {"train", "validation"} and min(corpus.num_rows.values()) > 0
    counts, texts = np.zeros(corpus.vocab_size, np.int64), {}
    for split in corpus.num_rows:
        rows = all_rows(corpus, split)
        texts[split] = np.bincount(rows["tokens"].ravel(), minlength=corpus.vocab_size)
        assert rows["tokens"].shape == (corpus.num_rows[split], 64) and rows["segments"].max() == corpus.max_blocks == 1
        counts += texts[split]
    special = corpus.special
    counts[[special.pad, special.cls, special.sep]] = 0
    assert counts.sum() == corpus.report["tokens"]
    texts["train"][[special.pad, special.cls, special.sep, special.mask]] = 0
    np.testing.assert_array_equal(corpus.unigram, texts["train"])
    documents = corpus.report["documents"]
    assert documents["train"] + documents["validation"] == 12
    total = sum(len(path.read_text().strip()) for path in books.iterdir())
    assert corpus.report["characters"] == total


def test_paths_with_home_directory_and_commas(books, tmp_path, vocabulary, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copy(vocabulary, tmp_path / "tokenizer.json")
    shutil.move(books / "02.txt", books / "two, the third.txt")
    corpus = run("~/books/01.txt,~/books/two, the third.txt", "~/out", "~/tokenizer.json", workers=1)
    assert corpus.report["files"] == 2 and not (tmp_path / "~").exists()
    assert open_corpus("~/out").path == tmp_path / "out"


def test_a_second_call_does_nothing_and_changes_are_refused(books, tmp_path, vocabulary, capsys):
    out = tmp_path / "out"
    run(books, out, vocabulary)
    before = snapshot(out)
    run(books, out, vocabulary, progress=True)
    assert "up to date" in capsys.readouterr().err and snapshot(out) == before
    for change, message in [({"length": 32}, "length: 64 -> 32"), ({"pack": True}, "pack: False -> True"),
                            ({"seed": 3}, "seed: 0 -> 3"), ({"blocks": "contiguous"}, "blocks: sentences -> con"),
                            ({"tokenizer": None, "vocab_size": 900}, "tokenizer: .* -> trained, 900 pieces")]:
        with pytest.raises(UserError, match=message) as caught:
            run(books, out, vocabulary, **change)
        assert "--overwrite" in str(caught.value) and "\n" not in str(caught.value) and snapshot(out) == before
    file = sorted(books.iterdir())[0]
    os.utime(file, (1, 1))  # touched, not changed
    run(books, out, vocabulary)
    after = snapshot(out)
    assert {name for name in after if after[name] != before[name]} == {pathlib.Path("report.json")}
    status, text = file.stat(), file.read_text()
    for word in ("the", "and", "can", "are", "not"):  # other words under the same size and time
        file.write_text(text.replace(f" {word} ", f" {word[::-1]} ", 1))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert file.stat().st_size == status.st_size and file.read_text() != text
        with pytest.raises(UserError, match="content: "):
            run(books, out, vocabulary)
        assert snapshot(out) == after
    file.write_text(text + "More.\n")
    with pytest.raises(UserError, match="content: "):
        run(books, out, vocabulary)
    changed = run(books, out, vocabulary, overwrite=True, length=32)
    assert changed.length == 32 and sorted(path.name for path in tmp_path.iterdir()) == ["books", "out"]


def test_identity_depends_only_on_the_rows(books, tmp_path, vocabulary):
    one = run(books, tmp_path / "one", vocabulary).identity
    assert json.loads(json.dumps(one)) == one and {"length": 64, "blocks": "sentences"}.items() <= one.items()
    moved = shutil.copytree(books, tmp_path / "elsewhere" / "books")
    run(moved, tmp_path / "two", vocabulary, workers=2)
    shutil.move(tmp_path / "two", tmp_path / "three")
    assert open_corpus(tmp_path / "three").identity == one

    def differs(**changes):
        other = run(changes.pop("books", books), tmp_path / "other", changes.pop("vocabulary", vocabulary),
                    overwrite=True, **changes).identity
        return {name for name in one if other[name] != one[name]}

    assert differs(length=32) == {"length", "training_rows"}
    assert differs(pack=True) == {"pack", "training_rows"} and differs(seed=1) == {"seed"}
    assert differs(validation_fraction=0.0) == {"validation_fraction", "training_rows"}
    assert {"blocks", "short_sequence_probability"} <= differs(blocks="pairs", short_sequence_probability=0.2)
    trained = run(books, tmp_path / "trained", None, vocab_size=300)
    given = run(books, tmp_path / "given", trained.tokenizer_path)
    assert given.identity == trained.identity
    assert differs(vocabulary=trained.tokenizer_path) >= {"tokenizer", "vocab_size"}
    (books / "00.txt").write_text("Something else than before.\n")
    assert "content" in differs()


def test_rows_do_not_depend_on_the_number_of_workers(books, tmp_path, vocabulary, monkeypatch):
    for mode in ("sentences", "pairs"):
        one = run(books, tmp_path / f"one-{mode}", vocabulary, workers=1, blocks=mode)
        two = run(books, tmp_path / f"two-{mode}", vocabulary, workers=2, blocks=mode)
        for split in one.num_rows:
            for name, array in all_rows(one, split).items():
                np.testing.assert_array_equal(array, all_rows(two, split)[name])
        assert two.max_blocks == (2 if mode == "pairs" else 1)


def test_issues_are_counted_and_reported_with_places(books, tmp_path, vocabulary):
    first = sorted(books.iterdir())[0]
    (books / "copy.txt").write_bytes(first.read_bytes())
    (books / "empty.txt").write_bytes(b"")
    (books / "blank.txt").write_bytes(b" \n\n")
    (books / "bad.txt").write_bytes(b"Some \xff\xfe text here.\r\nAnd a bell \x07 and \xe4\xb8\xad.")
    (books / "long.txt").write_bytes(b"x" * 30_000 + b" " + b"word " * 6_000 + b"\n")
    report = run(books, tmp_path / "out", vocabulary).report
    assert report["documents"]["duplicates skipped"] == 1
    assert report["documents"]["empty skipped"] == 1 and report["mended"]["empty files"]["count"] == 1
    repaired = {issue: (found["count"], pathlib.Path(found["places"][0].split(":")[0]).name)
              for issue, found in report["mended"].items() if issue != "sentences longer than a row cut"}
    assert repaired == {
        "empty files": (1, "empty.txt"), "invalid UTF-8 sequences replaced": (2, "bad.txt"),
        "files without a last newline": (1, "bad.txt"),
        "control characters removed": (1, "bad.txt"), "very long sentences or lines cut": (1, "long.txt")}
    words = {unknown["word"]: unknown for unknown in report["unknown_words"]}
    assert words["\u4e2d"]["count"] == 1 and words["\u4e2d"]["first"].endswith("bad.txt:2")
    assert report["mended"]["sentences longer than a row cut"]["count"] > 0


def test_a_single_document_and_sources_without_text(tmp_path, vocabulary):
    (tmp_path / "one.txt").write_text("Only a single document, with two sentences. Here is the second one.")
    corpus = run(tmp_path / "one.txt", tmp_path / "out", vocabulary, blocks="pairs")
    assert corpus.num_rows == {"train": 1, "validation": 0}
    assert any("held out" in note for note in corpus.report["notes"])
    with pytest.raises(UserError, match="split 'validation' has no rows"):
        RowSource(corpus, "validation")
    for data, message in [("", "no text at all"), (" \n\t\n", "no text at all"), ("\0\x7f\ufffd", "no text at all"),
                          ("\u200b", "characters that the tokenizer drops")]:
        (tmp_path / "none.txt").write_text(data)
        with pytest.raises(UserError, match=message):
            run(tmp_path / "none.txt", tmp_path / "no", vocabulary)
    assert not (tmp_path / "no").exists() and not list(tmp_path.glob(".no*"))


def test_json_lines_gzip_and_annotations(tmp_path, vocabulary):
    records = [{"body": f"The number {i} is a value of type integer.", "spans": [[4, 10, "X"]]} for i in range(50)]
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
    corpus = run(path, tmp_path / "out", vocabulary, text_field="body", annotation_field="spans")
    rows = all_rows(corpus, "train")
    assert corpus.num_rows["train"] + corpus.num_rows["validation"] == 50
    assert ((rows["annotations"] == 1).sum(1) == 1).all()
    with pytest.raises(UserError, match=r"annotation_field: spans -> None"):
        run(path, tmp_path / "out", vocabulary, text_field="body")


def test_packed_rows_have_segments(tmp_path, vocabulary, prose):
    (tmp_path / "short.txt").write_text("\n\n".join(text[:90].replace("\n", " ") for text in prose))
    packed = run(tmp_path / "short.txt", tmp_path / "packed", vocabulary, format="blank-lines", pack=True)
    plain = run(tmp_path / "short.txt", tmp_path / "plain", vocabulary, format="blank-lines")
    assert packed.max_blocks == all_rows(packed, "train")["segments"].max() > 1
    np.testing.assert_array_equal(packed.unigram, plain.unigram)
    assert packed.num_rows["train"] < plain.num_rows["train"]


def test_trained_vocabulary_and_lowercase(books, tmp_path):
    corpus = run(books, tmp_path / "out", None, vocab_size=500, lowercase=True)
    assert corpus.vocab_size <= 500 and corpus.special.pad == 0 and corpus.report["unknown_share"] < 0.01
    vocab = json.loads(corpus.tokenizer_path.read_text())["model"]["vocab"]
    assert not any(c.isupper() for token in vocab if not token.startswith("[") for c in token)
    (books / "00.txt").write_text("Überall Übel im Überfluss. " * 9)
    kept = run(books, tmp_path / "kept", None, vocab_size=500, lowercase=True, accents="keep")
    assert "ü" in json.loads(kept.tokenizer_path.read_text())["model"]["vocab"] and "ü" not in vocab
    with pytest.raises(UserError, match="tokenizer: trained, 500 pieces, accents=keep -> trained, 500 pieces, "
                                        "character_coverage=0.9"):
        run(books, tmp_path / "kept", None, vocab_size=500, lowercase=True, character_coverage=0.9)


def write_tfds(texts, data_dir):
    """Prepares texts as the TFDS dataset `texts` with feature `body`; returns its directory."""
    import tensorflow_datasets as tfds

    class Texts(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION, name, url_infos = tfds.core.Version("1.0.0"), "texts", {}

        def _info(self):
            features = tfds.features.FeaturesDict({"body": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from ((i, {"body": text}) for i, text in enumerate(texts))

    builder = Texts(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return builder.data_dir


def test_a_tfds_source_by_directory(tmp_path, vocabulary, prose):
    directory = write_tfds(prose[:10], tmp_path / "tfds")
    corpus = run(f"tfds:{directory}:train", tmp_path / "out", vocabulary, text_field="body")
    assert corpus.report["documents"]["train"] + corpus.report["documents"]["validation"] == 10
    run(f"tfds:{directory}:train", tmp_path / "out", vocabulary, text_field="body")  # unchanged
    shutil.rmtree(directory)
    write_tfds(prose[1:11], tmp_path / "tfds")
    with pytest.raises(UserError, match="content: "):
        run(f"tfds:{directory}:train", tmp_path / "out", vocabulary, text_field="body")
    for source, message in [(f"tfds:{directory}", "feature 'text' is missing"),
                            ("tfds:none_such", "tfds:none_such")]:
        with pytest.raises(UserError, match=message):
            run(source, tmp_path / "no", vocabulary)


def test_a_tfds_source_by_name_from_the_command_line(tmp_path, vocabulary, prose):
    directory = write_tfds(prose[:10], tmp_path / "tfds")
    command = [sys.executable, "-m", "spanbert_jax", "prepare", "--source", "tfds:texts:train", "--text-field", "body",
               "--out", str(tmp_path / "named"), "--tokenizer", vocabulary, "--length", "64",
               "--validation-fraction", "0.2"]
    # TFDS reads where its datasets lie when it is imported.
    done = subprocess.run(command, env={**os.environ, "TFDS_DATA_DIR": str(tmp_path / "tfds")}, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    named = open_corpus(tmp_path / "named")
    assert named.report["documents"]["train"] + named.report["documents"]["validation"] == 10
    by_directory = run(f"tfds:{directory}:train", tmp_path / "out", vocabulary, text_field="body")
    for split in named.num_rows:
        for name, array in all_rows(by_directory, split).items():
            np.testing.assert_array_equal(all_rows(named, split)[name], array)


def test_python_prose_is_kept_when_a_corpus_is_replaced(tmp_path, vocabulary, monkeypatch):
    def write(path):
        with gzip.open(path, "wt") as out:
            for i in range(4):
                out.write(json.dumps({"text": f"Prose number {i} of the first installation."}) + "\n")
    monkeypatch.setattr(preparation, "write_python_prose", write)
    corpus = run("python", tmp_path / "out", vocabulary)
    monkeypatch.setattr(preparation, "write_python_prose", None)  # must not be called again
    run("python", tmp_path / "out", vocabulary)
    again = run("python", tmp_path / "out", vocabulary, length=32, overwrite=True)
    assert again.report["characters"] == corpus.report["characters"] and again.length == 32


@pytest.mark.parametrize("changes, message", [
    ({"length": 4}, "length=4: must be at least 8 and at most 65536"),
    ({"blocks": "words"}, "blocks='words': allowed are 'sentences', 'contiguous', 'pairs'"),
    ({"blocks": "pairs", "pack": True}, "pack=True: a pair fills its row"),
    ({"validation_fraction": 1.5}, "validation_fraction=1.5: must be at least 0 and at most 0.9"),
    ({"workers": 0}, "workers=0: must be at least 1"),
    ({"tokenizer": None}, "give either a tokenizer"), ({"vocab_size": 100}, "not both"),
    ({"tokenizer": None, "vocab_size": 3}, "vocab_size=3: must be at least"),
    ({"seed": -1}, "seed=-1: must be at least 0"),
    ({"lenght": 64}, "prepare has no field 'lenght'; did you mean 'length'"),
    ({"format": "xml"}, "format='xml': allowed are 'auto', 'documents'"),
])
def test_invalid_settings_are_refused_before_any_work(changes, message, books, tmp_path, vocabulary):
    with pytest.raises(UserError, match=message) as caught:
        run(books, tmp_path / "out", vocabulary, **changes)
    assert "\n" not in str(caught.value) and [path.name for path in tmp_path.iterdir()] == ["books"]


def test_directories_that_are_no_corpus_are_never_replaced(books, tmp_path, vocabulary):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    for out in (tmp_path / "home", books / "00.txt"):
        with pytest.raises(UserError, match="give another directory"):
            run(books, out, vocabulary, overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "x"
    with pytest.raises(UserError, match="no such directory"):
        open_corpus(tmp_path / "none")
    with pytest.raises(UserError, match="no finished corpus"):
        open_corpus(tmp_path / "home")


def make_folder(folder, names):
    folder.mkdir()
    for name in names:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text("mine")


@pytest.mark.parametrize("names", [["tokenizer.json"], ["report.json"], ["dataset_info.json", "features.json"],
                                   ["source/"], ["spanbert_rows-train.array_record-00000", "source/", "source/thesis"]])
@pytest.mark.parametrize("link", [False, True])
def test_folders_whose_files_have_names_of_a_corpus_are_not_replaced(names, link, books, tmp_path, vocabulary):
    make_folder(tmp_path / "mine", names)
    out = tmp_path / ("out" if link else "mine")
    if link:
        out.symlink_to("mine")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="is a link" if link else "is not a corpus to be replaced"):
        run(books, out, vocabulary, overwrite=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("planted", ["folder", "link", "link out of the corpus", "while it works"])
def test_planted_folders_and_links_stay(planted, books, tmp_path, vocabulary, monkeypatch):
    make_folder(tmp_path / "precious", ["thesis", "report.json"])
    out, mine = tmp_path / "out", snapshot(tmp_path / "precious")
    if planted == "folder":
        make_folder(tmp_path / ".out.partial", ["thesis"])
    elif planted == "link":
        (tmp_path / ".out.partial").symlink_to("precious")
    elif planted == "link out of the corpus":
        run(books, out, vocabulary, length=32)
        (out / "report.json").unlink()
        (out / "report.json").symlink_to("../precious/report.json")
    else:
        make = preparation.make_report
        monkeypatch.setattr(preparation, "make_report", lambda *args: make_folder(out, ["thesis"]) or make(*args))
    if planted in ("folder", "link"):
        run(books, out, vocabulary)
        assert planted != "folder" or (tmp_path / ".out.partial" / "thesis").read_text() == "mine"
    else:
        with pytest.raises(UserError, match="is not a corpus to be replaced"):
            run(books, out, vocabulary, overwrite=True)
    assert snapshot(tmp_path / "precious") == mine
    assert planted != "while it works" or snapshot(out) == {pathlib.Path("thesis"): b"mine"}


def test_files_are_the_same_bytes_in_each_process(books, tmp_path, vocabulary):
    """Protobuf orders the entries of a row by a seed of the process."""
    script = ("import sys; from spanbert_jax.corpus import prepare; prepare(sys.argv[1], sys.argv[2], length=64, "
              "tokenizer=sys.argv[3], validation_fraction=0.2, progress=False, workers=2)")
    subprocess.run([sys.executable, "-c", script, str(books), str(tmp_path / "other"), vocabulary], check=True)
    run(books, tmp_path / "out", vocabulary, workers=1)
    ours, theirs = (snapshot(tmp_path / name) for name in ("out", "other"))
    report = pathlib.Path("report.json")  # which has the time that it took
    assert ours.pop(report) and theirs.pop(report) and len(ours) == 6 and ours == theirs


def test_names_that_are_not_utf8_are_read_and_reported(books, tmp_path, vocabulary):
    name = os.fsdecode(b"b\xff\xfe")
    books.rename(tmp_path / name)
    with open(tmp_path / name / "00.txt", "a") as file:
        file.write(" word" * 200 + ".")
    corpus = run(tmp_path / name, tmp_path / "out", vocabulary, length=64, workers=2)
    assert name in json.dumps(corpus.report["mended"], ensure_ascii=False)
    assert open_corpus(tmp_path / "out").report == corpus.report


def test_incomplete_and_damaged_corpora(books, tmp_path, vocabulary):
    out = tmp_path / "out"
    run(books, out, vocabulary)
    (out / "report.json").unlink()
    assert run(books, out, vocabulary).num_rows["train"]  # rebuilt
    for path in out.glob("*-train.array_record*"):
        path.unlink()
    with pytest.raises(UserError, match="train.array_record-00000: missing; .*prepare --overwrite"):
        run(books, out, vocabulary)
    run(books, out, vocabulary, overwrite=True)
    (out / "report.json").write_text("[]")
    with pytest.raises(UserError, match="not one that prepare wrote"):
        open_corpus(out)


KILLED = """
import sys
from spanbert_jax.corpus import preparation
def stop(*args): print("writing", flush=True); sys.stdin.read()
preparation.make_report = stop
preparation.prepare(sys.argv[1], sys.argv[2], tokenizer=sys.argv[3], length=64)
"""


def test_a_killed_run_leaves_no_corpus_and_the_next_one_succeeds(books, tmp_path, vocabulary):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(books), str(out), vocabulary], stdout=subprocess.PIPE,
                               stdin=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"  # all rows are written, the report is not
    with pytest.raises(UserError, match="another prepare is writing"):
        run(books, out, vocabulary)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists() and list(tmp_path.glob(".out.*.partial"))
    assert run(books, out, vocabulary).num_rows["train"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["books", "out"]
