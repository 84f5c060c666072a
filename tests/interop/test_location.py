"""Where models are found: paths, the hub's cache without a connection, archives."""
import io
import json
import os
import pathlib
import shutil
import tarfile

import flax.serialization
import huggingface_hub
import pytest
import transformers

import spanbert_jax
from spanbert_jax.common.manifest import MANIFEST_FILE
from spanbert_jax.interop.sources import archives
from spanbert_jax.interop.sources.location import SHORT_NAMES, locate
from tests.damage import flip_bit
from tests.interop.networks import assert_same, save


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    save("masked_lm", folder)
    return folder


def test_a_single_file_is_found(sound, tmp_path):
    expected = spanbert_jax.from_pretrained(sound, "masked_lm")
    shutil.copy(sound / "model.safetensors", tmp_path / "mine.safetensors")
    shutil.copy(sound / "config.json", tmp_path)
    for place in (tmp_path / "mine.safetensors", str(tmp_path / "mine.safetensors"), tmp_path):
        model, params = spanbert_jax.from_pretrained(place, "masked_lm")
        assert model == expected[0]
        assert_same(params, expected[1])
    shutil.copy(sound / "model.safetensors", tmp_path / "another.safetensors")
    with pytest.raises(spanbert_jax.UserError, match="several files of weights .another.safetensors, mine.safetensors"):
        spanbert_jax.from_pretrained(tmp_path)


def test_a_file_of_flax_models_is_read(sound, tmp_path, monkeypatch):
    transformers.FlaxBertForMaskedLM.from_pretrained(sound, from_pt=True).save_pretrained(tmp_path)
    assert (tmp_path / "flax_model.msgpack").is_file() and not list(tmp_path.glob("*.safetensors"))
    model, params = spanbert_jax.from_pretrained(tmp_path, "masked_lm")
    expected = spanbert_jax.from_pretrained(sound, "masked_lm")
    assert model == expected[0]
    assert_same(params, expected[1])
    file, whole = tmp_path / "flax_model.msgpack", (tmp_path / "flax_model.msgpack").read_bytes()
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 1000)  # as arrays of more than a gigabyte are stored
    file.write_bytes(flax.serialization.msgpack_serialize(flax.serialization.msgpack_restore(whole)))
    assert b"__msgpack_chunked_array__" in file.read_bytes()
    assert_same(spanbert_jax.from_pretrained(tmp_path, "masked_lm")[1], expected[1])
    file.write_bytes(whole + b"\xc0")
    with pytest.raises(spanbert_jax.UserError, match="not a whole file of Flax parameters .more than one value."):
        spanbert_jax.from_pretrained(tmp_path)
    file.write_bytes(whole[:1000])
    with pytest.raises(spanbert_jax.UserError, match="flax_model.msgpack: not a whole file of Flax parameters"):
        spanbert_jax.from_pretrained(tmp_path)


def test_checkpoints_of_a_trainer_are_named(sound, tmp_path):
    for step in (500, 1000):
        shutil.copytree(sound, tmp_path / f"checkpoint-{step}")
    with pytest.raises(spanbert_jax.UserError) as caught:
        spanbert_jax.from_pretrained(tmp_path)
    assert str(caught.value) == (f"{tmp_path}: no weights in it, only checkpoints of transformers' Trainer; give one "
                                 f"of them, such as {tmp_path}/checkpoint-1000, the last one")
    assert_same(spanbert_jax.from_pretrained(tmp_path / "checkpoint-1000", "masked_lm")[1],
                spanbert_jax.from_pretrained(sound, "masked_lm")[1])


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "flax_model.msgpack"])
def test_a_pointer_of_git_lfs_is_named(name, sound, tmp_path):
    shutil.copy(sound / "config.json", tmp_path)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 433245632\n")
    with pytest.raises(spanbert_jax.UserError, match=f"{name}: a Git LFS pointer, not the weights; fetch them: git lfs "
                                                     "pull"):
        spanbert_jax.from_pretrained(tmp_path)


def cached(home: pathlib.Path, name: str, files: pathlib.Path) -> None:
    """Puts a repository into the hub's cache, as a download would."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0123456789012345678901234567890123456789")
    shutil.copytree(files, repository / "snapshots/0123456789012345678901234567890123456789")


def test_hub_names_are_found_in_the_cache_without_a_connection(sound, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cached(tmp_path, SHORT_NAMES["spanbert-base-cased"], sound)
    expected = spanbert_jax.from_pretrained(sound, "masked_lm")[1]
    for name in ("spanbert-base-cased", "SpanBERT/spanbert-base-cased"):
        assert_same(spanbert_jax.from_pretrained(name, "masked_lm")[1], expected)
    with pytest.raises(spanbert_jax.UserError, match="SpanBERT/spanbert-large-cased: no such file or directory here, "
                                                     "and no download from the Hugging Face hub"):
        spanbert_jax.from_pretrained("spanbert-large-cased")


def test_a_revision_of_the_hub_can_be_pinned(tmp_path, monkeypatch, caplog):
    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision))
        (tmp_path / "0123abc").mkdir(exist_ok=True)
        (tmp_path / "0123abc/model.safetensors").touch()
        return str(tmp_path / "0123abc")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for name in ("owner/name@0123abc", "bert-base-cased@refs/pr/1", "spanbert-base-cased@main"):
        assert locate(name) == tmp_path / "0123abc"
    assert asked == [("owner/name", "0123abc"), ("bert-base-cased", "refs/pr/1"),
                     (SHORT_NAMES["spanbert-base-cased"], "main")] and not caplog.messages
    locate("owner/name")
    assert caplog.messages == ["owner/name is taken from the Hugging Face hub; owner/name@0123abc is always the same"]


def test_messages_of_the_hub_are_shown_in_full(monkeypatch):
    message = "403 Forbidden: None. Cannot access content. " + "Make sure your token has the correct permissions.\n" * 9

    def refuse(*arguments, **options):
        raise OSError(message)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(spanbert_jax.UserError) as caught:
        spanbert_jax.from_pretrained("someone/private")
    assert " ".join(message.split()) in str(caught.value) and "\n" not in str(caught.value)


def test_paths_are_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("asked the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("./models/mine", "/nowhere", "a/b/c", "weights.safetensors", "~/models", "model.tar.gz", "../models",
                 "mine/gone", "gone/", "runs/gone", "models/gone", "a//b", "a b", "a@", "a/b@..\n", "@main"):
        with pytest.raises(spanbert_jax.UserError, match="no such file or directory; give"):
            locate(name)


@pytest.mark.parametrize("name", ["model.safetensors", "model.tar", "model"])
def test_pipes_are_not_read(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(spanbert_jax.UserError, match=f"{name}: neither a file nor a directory"):
        locate(tmp_path / name)


def test_archives_cannot_write_outside_their_directory(sound, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(sound / "model.safetensors", "../../outside/model.safetensors")
        archive.add(sound / "config.json", "/tmp/config.json")
        link = tarfile.TarInfo("vocab.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    place = locate(tmp_path / "model.tar.gz")
    assert sorted(path.name for path in place.iterdir()) == ["config.json", "model.safetensors", MANIFEST_FILE]
    assert (tmp_path / "cache") in place.parents and not (tmp_path / "outside").exists()
    assert locate(tmp_path / "model.tar.gz") == place  # unpacked once
    unpacked = spanbert_jax.from_pretrained(tmp_path / "model.tar.gz", "masked_lm")[1]
    assert_same(unpacked, spanbert_jax.from_pretrained(sound, "masked_lm")[1])

    whole = (tmp_path / "model.tar.gz").read_bytes()
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # of the checksum of what was compressed
    content = (place / "model.safetensors").read_bytes()
    flip_bit(place / "model.safetensors", 4 * len(content))
    assert locate(tmp_path / "model.tar.gz") == place  # damaged, and unpacked again
    assert (place / "model.safetensors").read_bytes() == content
    shutil.copy(tmp_path / "model.tar.gz", tmp_path / "copy.tar.gz")
    os.utime(tmp_path / "copy.tar.gz", (1, 1))
    assert locate(tmp_path / "copy.tar.gz").name == place.name.replace("model.", "copy.")  # the same content
    for name, content in (("cut.tar.gz", whole[:len(whole) // 2]), ("text.tar.gz", b"no archive"),
                          ("flipped.tar.gz", bytes(flipped)), ("empty.tar.gz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(spanbert_jax.UserError, match=f"^[^\n]*{name}: cannot be unpacked[^\n]*$"):
            locate(tmp_path / name)
    with tarfile.open(tmp_path / "two.tar.gz", "w:gz") as archive:
        for folder in ("a", "b"):
            archive.add(sound / "config.json", f"{folder}/config.json")
    with pytest.raises(spanbert_jax.UserError, match="two files config.json in it; unpack it"):
        locate(tmp_path / "two.tar.gz")
    assert len(list((tmp_path / "cache").rglob("*.partial"))) == 0


def test_an_archive_is_unpacked_by_two_processes_at_once(sound, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "model.tar", "w") as archive:
        archive.add(sound / "model.safetensors", "model.safetensors")
    extract, others = archives.extract, []

    def extract_meanwhile(*arguments):
        monkeypatch.setattr(archives, "extract", extract)
        others.append((locate(tmp_path / "model.tar") / "model.safetensors").stat())  # begins later, and ends first
        extract(*arguments)

    monkeypatch.setattr(archives, "extract", extract_meanwhile)
    place = locate(tmp_path / "model.tar")
    assert [(place / "model.safetensors").stat()] == others  # what the other one may be reading is not replaced
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("name, size, fields, message", [
    ("model.safetensors", 5_000_000, {}, "it unpacks to more than 1,[0-9,]+ bytes, 20 times its size; unpack it and"),
    ("notes.txt", 5_000_000, {}, "it unpacks to more than"),
    ("config.json", 10, {"pax_headers": {"comment": "x" * 2_000_000}}, "a header of 2,000,[0-9]+ bytes in it"),
    ("config.json", 512, {"pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                                          "GNU.sparse.realsize": "9000000000"}}, "config.json in it is a sparse file")])
def test_archives_that_unpack_to_much_are_refused(name, size, fields, message, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    member = tarfile.TarInfo(name)
    member.size, member.pax_headers = size, fields.get("pax_headers", {})
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(b"0\n" + bytes(size)))
    with pytest.raises(spanbert_jax.UserError, match=f"model.tar.gz: {message}"):
        locate(tmp_path / "model.tar.gz")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_tokenizers(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "B"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    for place in (tmp_path, tmp_path / "vocab.txt", str(tmp_path)):
        assert spanbert_jax.load_tokenizer(place).encode("a B").tokens == ["[CLS]", "a", "B", "[SEP]"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text(json.dumps({"vocab_size": 30_522}))
    with pytest.raises(spanbert_jax.UserError) as caught:
        spanbert_jax.load_tokenizer(tmp_path / "empty")
    assert "put the vocabulary" in str(caught.value) and "released" not in str(caught.value)

