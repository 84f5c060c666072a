"""Damaged, mixed up or malicious corpora: a one-line error, no code is run, and nothing changes."""
import io
import itertools
import json
import pathlib
import random
import shutil

import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus import RowOrder, RowSource, batches, builder, open_corpus, prepare
from spanbert_jax.corpus.corpus import file_digests, finish_report
from tests.corpus.test_preparation import snapshot, write_tfds


@pytest.fixture(scope="module")
def corpus(prose, vocabulary, tmp_path_factory):
    """A corpus with shards longer than the part that is hashed."""
    folder = tmp_path_factory.mktemp("damage")
    (folder / "prose.txt").write_text("\n\n".join(text.replace("\n\n", "\n") for text in prose))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "_ROWS_PER_SHARD", 400)
        corpus = prepare(str(folder / "prose.txt"), folder / "out", tokenizer=vocabulary, length=64, workers=1,
                         format="blank-lines", validation_fraction=0.1, progress=False)
    assert len(corpus.shards("train")) > 2 and corpus.shards("train")[1].stat().st_size > 2 * 65_536
    return corpus


@pytest.fixture
def copy(corpus, tmp_path):
    return pathlib.Path(shutil.copytree(corpus.path, tmp_path / "copy"))


def read_all(path):
    corpus = open_corpus(path)
    return [RowSource(corpus, split).rows(np.arange(count)) for split, count in corpus.num_rows.items()]


def assert_refused(path, *words):
    """Returns the one-line error of reading the corpus. Nothing on disk has changed afterwards."""
    before = snapshot(path)
    with pytest.raises(UserError) as caught:
        read_all(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and all(word in line for word in words), line
    assert snapshot(path) == before
    return line


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << at % 8
    file.write_bytes(data)


def replace_by_directory(file):
    file.unlink()
    file.mkdir()


DAMAGE = {
    "flipped at the start": lambda file: flip(file, 70), "flipped at the end": lambda file: flip(file, -3),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-2]),
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[:file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""), "removed": lambda file: file.unlink(),
    "another kind": lambda file: file.write_bytes(bytes(range(256)) * 600), "a directory": replace_by_directory,
}
FILES = ("report.json", "tokenizer.json", "unigram.npy", "dataset_info.json", "features.json",
         "spanbert_rows-train.array_record-00001", "spanbert_rows-validation.array_record-00000")


# An ArrayRecord file ends in padding, so a flip there changes nothing.
@pytest.mark.parametrize("damage, name", [(damage, name) for damage, name in itertools.product(DAMAGE, FILES)
                                          if damage != "flipped at the end" or "array_record" not in name])
def test_each_damage_of_each_file_is_an_error(damage, name, copy):
    DAMAGE[damage](copy / name)
    if (name, damage) == ("report.json", "removed"):
        assert "no finished corpus" in assert_refused(copy)
    else:
        assert "restore a valid copy" in assert_refused(copy, name) and "prepare --overwrite" in assert_refused(copy)


def test_a_flipped_bit_in_a_shard_never_changes_a_row(corpus, copy):
    expected, file = read_all(corpus.path), copy / FILES[5]
    original, draw = file.read_bytes(), random.Random(0)
    refusals = 0
    for _ in range(150):
        flip(file, draw.randrange(len(original)))
        try:
            found = read_all(copy)
        except UserError as error:
            assert file.name in str(error)
            refusals += 1
        else:
            for ours, theirs in zip(found, expected):
                assert all(np.array_equal(ours[name], array) for name, array in theirs.items())
        file.write_bytes(original)
    assert refusals > 50


def test_a_flipped_bit_in_the_report_never_changes_its_content(corpus, copy):
    file, draw = copy / "report.json", random.Random(0)
    original = file.read_bytes()
    for _ in range(200):
        flip(file, draw.randrange(len(original)))
        try:
            assert open_corpus(copy).report == corpus.report
        except UserError as error:
            assert "report.json" in str(error)
        file.write_bytes(original)


@pytest.mark.parametrize("text", ["", "[]", "null", "7", '{"format_version": [2]}', '{"format_version": 2}',
                                  "[" * 100_000, '{"format_version": 2, "seal": {}}', "\udcff"])
def test_a_report_of_other_content_is_refused(text, copy):
    (copy / "report.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert_refused(copy, "report.json" if "[2]" not in text else "format version")


@pytest.mark.parametrize("key", ["contents", "special_ids", "settings", "length", "vocab_size", "num_rows"])
def test_a_report_with_a_missing_or_mistyped_entry_is_refused(key, corpus, copy):
    for report in ({name: value for name, value in corpus.report.items() if name != key},
                   {**corpus.report, key: ["x"]}):
        (copy / "report.json").write_text(json.dumps(finish_report(report)))
        assert_refused(copy)


def test_files_of_another_corpus_are_refused(copy, prose, tmp_path, vocabulary):
    (tmp_path / "text.txt").write_text("\n\n".join(text.replace("\n\n", "\n") for text in prose[::-1]))
    other = prepare(str(tmp_path / "text.txt"), tmp_path / "other", vocab_size=1000, length=64, workers=1,
                    format="blank-lines", progress=False)
    for name in ("tokenizer.json", "unigram.npy", "spanbert_rows-validation.array_record-00000"):
        own = (copy / name).read_bytes()
        shutil.copy(other.path / name, copy / name)
        assert_refused(copy, name)
        (copy / name).write_bytes(own)
    shards = sorted(copy.glob("*train*"))
    first = shards[0].read_bytes()
    shutil.copy(shards[1], shards[0])  # same size and number of rows
    shards[1].write_bytes(first)
    assert len(first) == shards[0].stat().st_size
    assert_refused(copy, shards[0].name)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("agree", [False, True], ids=["changed later", "with a valid checksum"])
def test_pickled_objects_are_refused_and_never_loaded(agree, corpus, copy, tmp_path):
    trap = tmp_path / "ran"
    array = np.empty(corpus.vocab_size, object)
    array[:] = Payload(trap)
    np.save(copy / "unigram.npy", array)
    if agree:  # written by someone who knows the format
        (copy / "report.json").write_text(json.dumps(finish_report({**corpus.report, "contents": file_digests(copy)})))
    assert_refused(copy, "unigram.npy")
    assert not trap.exists()
    np.load(io.BytesIO((copy / "unigram.npy").read_bytes()), allow_pickle=True)
    assert trap.exists()  # without the check it would have run


@pytest.mark.parametrize("array", [np.ones(3, np.int64), np.ones(1000, np.float64), np.ones((1000, 1), np.int64)])
def test_unigram_counts_of_another_shape_or_type_are_refused(array, corpus, copy):
    np.save(copy / "unigram.npy", array)
    (copy / "report.json").write_text(json.dumps(finish_report({**corpus.report, "contents": file_digests(copy)})))
    assert_refused(copy, "unigram.npy", f"not int64 [{corpus.vocab_size}]")


def feed_until_it_fails(source):
    """Returns the error of `batches`, raised by its reading threads, and the number of batches before it."""
    count = 0
    with pytest.raises(UserError) as caught:
        for _ in batches(source, RowOrder(len(source), 16, seed=0).indices, range(1000)):
            count += 1
    assert type(caught.value) is UserError and "\n" not in str(caught.value)
    return str(caught.value), count


def test_damage_found_while_reading_is_raised_from_the_reading_threads(copy):
    file = copy / FILES[5]
    flip(file, 100_000)  # beyond the part that is verified when opening
    line, count = feed_until_it_fails(RowSource(open_corpus(copy), "train"))
    assert file.name in line and "hash mismatch" in line and count > 0


@pytest.mark.parametrize("change", [
    lambda file: file.write_bytes(b""), lambda file: file.write_bytes(b"x" * file.stat().st_size),
    lambda file: file.write_bytes(file.read_bytes()[:100_000])], ids=["emptied", "overwritten", "cut"])
def test_a_shard_that_changes_after_opening_is_an_error(change, copy):
    source = RowSource(open_corpus(copy), "train")
    change(copy / FILES[5])
    line, _ = feed_until_it_fails(source)
    assert FILES[5] in line


def test_a_file_and_a_newer_format_are_errors(corpus, copy):
    with pytest.raises(UserError, match="a file, not a directory"):
        open_corpus(copy / "report.json")
    (copy / "report.json").write_text(json.dumps(finish_report({**corpus.report, "format_version": 3})))
    assert_refused(copy, "format version 3, but this program reads 2")


def test_prepare_never_builds_on_a_damaged_corpus(books, tmp_path, vocabulary):
    out = tmp_path / "out"
    prepare(str(books), out, tokenizer=vocabulary, length=64, progress=False)
    flip(out / "unigram.npy", -1)
    before = snapshot(out)
    with pytest.raises(UserError, match="unigram.npy: not the file"):
        prepare(str(books), out, tokenizer=vocabulary, length=64, progress=False)
    assert snapshot(out) == before
    assert prepare(str(books), out, tokenizer=vocabulary, length=64, progress=False, overwrite=True).num_rows["train"]


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_no_class_named_by_a_tfds_source_is_imported(key, tmp_path, monkeypatch, prose, vocabulary):
    directory = pathlib.Path(write_tfds(prose[:3], tmp_path / "tfds"))
    (tmp_path / "trap_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    features = json.loads((directory / "features.json").read_text())
    body = features["featuresDict"]["features"]["body"]
    del body["pythonClassName"]
    body[key] = "trap_module.Feature"
    (directory / "features.json").write_text(json.dumps(features))
    for source in (f"tfds:{directory}:train", "tfds:texts"):
        monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path / "tfds"))
        with pytest.raises(UserError, match="'trap_module.Feature' is not part of TFDS"):
            prepare(source, tmp_path / "out", tokenizer=vocabulary, text_field="body", progress=False)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_tfds_source_is_an_error(tmp_path, prose, vocabulary):
    directory = pathlib.Path(write_tfds(prose[:10], tmp_path / "tfds"))
    flip(next(directory.glob("*array_record*")), 500)
    with pytest.raises(UserError, match="record 1 cannot be read .*hash mismatch") as caught:
        prepare(f"tfds:{directory}:train", tmp_path / "out", tokenizer=vocabulary, text_field="body", progress=False)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*out*"))
