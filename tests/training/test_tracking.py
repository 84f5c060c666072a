"""Figures of a run: nothing is lost to a full disk, a vanished folder or a crash, and TensorBoard can read them."""
import json
import math
import pathlib
import resource
import shutil
import struct
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.training import tracking
from spanbert_jax.training.tracking import MetricsWriter, read_metrics
from tests.disks import fill, small_disk


def crc32c(data):
    """The checksum of RFC 3720, from its definition; as TensorBoard's files hold it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(file):
    """The events of a file, each record checked."""
    data, found = file.read_bytes(), []
    while data:
        size, = struct.unpack_from("<Q", data)
        record = data[12:12 + size]
        assert len(record) == size and struct.unpack_from("<I", data, 8)[0] == crc32c(data[:8])
        assert struct.unpack_from("<I", data, 12 + size)[0] == crc32c(record)
        found.append(Event.FromString(record))
        data = data[16 + size:]
    return found


def board(workdir):
    """{(tag, step): value} that TensorBoard shows: what a later file purges is gone."""
    shown = {}
    for file in sorted((workdir / "tensorboard").iterdir()):
        first, *others = events(file)
        assert first.file_version == "brain.Event:2"
        for event in others:
            if event.session_log.status == SessionLog.START:
                shown = {key: value for key, value in shown.items() if key[1] < event.step}
            shown |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return shown


def steps(workdir):
    return [line["step"] for line in read_metrics(workdir)]


def write(writer, *numbers):
    for step in numbers:
        writer.write(step, "train", {"loss": 1 / step, "rows": [1, 2]})


def test_what_is_written_is_read_back_and_shown(tmp_path):
    with MetricsWriter(tmp_path, say=pytest.fail) as writer:
        write(writer, 1, 2)
        writer.write(2, "evaluation", {"masked_loss": 7.5, "by_length": [0.5, None], "tokens": 12})
        assert steps(tmp_path) == [1, 2, 2]  # at once
        assert writer.evaluated(2) and not writer.evaluated(1)
    assert read_metrics(tmp_path)[2] == {"step": 2, "kind": "evaluation", "masked_loss": 7.5, "by_length": [0.5, None],
                                         "tokens": 12}
    assert board(tmp_path) == {("train/loss", 1): 1.0, ("train/loss", 2): 0.5, ("evaluation/masked_loss", 2): 7.5,
                               ("evaluation/tokens", 2): 12.0}


def test_a_resumed_run_reads_as_one(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        write(writer, 1, 2)
        writer.write(2, "evaluation", {"masked_loss": 2.0})
        write(writer, 3, 4)
        writer.write(4, "evaluation", {"masked_loss": 4.0})
    with MetricsWriter(tmp_path, 2) as writer:
        assert writer.evaluated(2) and not writer.evaluated(4)
        assert steps(tmp_path) == [1, 2, 2]
        writer.write(3, "train", {"loss": 30.0})
    losses = [(line["step"], line.get("loss")) for line in read_metrics(tmp_path)]
    assert losses == [(1, 1), (2, 0.5), (2, None), (3, 30)]
    assert {key: value for key, value in board(tmp_path).items() if key[1] > 2} == {("train/loss", 3): 30.0}


def test_tensorboard_itself_shows_the_same(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator",
                                      reason="tensorboard is not installed")
    with MetricsWriter(tmp_path) as writer:
        write(writer, 1, 2, 3, 4)
    with MetricsWriter(tmp_path, 2) as writer:
        writer.write(3, "train", {"loss": 30.0})
    shown = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("train/loss")] == [(1, 1.0), (2, 0.5), (3, 30.0)]


@pytest.mark.parametrize("rubbish", [
    b'{"step": 3, "kind": "tr', b"[1, 2]\n", b"7\n", b'{"kind": "train"}\n', b'{"step": "3"}\n', b"\0" * 300 + b"\n",
    bytes(range(128, 256)) + b"\n", b"[" * 100_000 + b"\n", b"\n\n", b'{"step": NaN}\n'])
@pytest.mark.parametrize("place", ["end", "middle"])
def test_lines_that_a_crash_damaged_are_dropped_and_no_others(rubbish, place, tmp_path):
    with MetricsWriter(tmp_path) as writer:
        write(writer, 1, 2)
    file = tmp_path / "metrics.jsonl"
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + second + rubbish if place == "end" else first + rubbish.rstrip(b"\n") + b"\n" + second)
    assert steps(tmp_path) == [1, 2]
    with MetricsWriter(tmp_path, 2) as writer:
        assert file.read_bytes() == first + second
        write(writer, 3)
    assert steps(tmp_path) == [1, 2, 3]


def test_a_last_line_without_its_end_is_kept_if_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kind": "train"}\n{"step": 2, "kind": "evaluation"}')
    with MetricsWriter(tmp_path, 5) as writer:
        assert writer.evaluated(2)
        write(writer, 6)
    assert steps(tmp_path) == [1, 2, 6]


def test_a_full_disk_loses_no_line_once_there_is_room(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        said = []
        with MetricsWriter(disk, say=said.append) as writer:
            write(writer, 1)
            filler = fill(disk)
            write(writer, *range(2, 300))
            assert len(said) == 1 and "CANNOT BE WRITTEN" in said[0] and "No space left" in said[0]
            number = len(read_metrics(disk))
            assert steps(disk) == list(range(1, number + 1)) and number < 299
            for file in (disk / "tensorboard").iterdir():
                events(file)
            filler.unlink()
            write(writer, 300)
            assert len(said) == 2 and "again" in said[1]
            filler = fill(disk)
            write(writer, *range(301, 400))
            assert len(said) == 3
            filler.unlink()
        assert len(said) == 4 and steps(disk) == list(range(1, 400))
        assert {step for _, step in board(disk)} == set(range(1, 400))


# Every file may grow to so many bytes, wherever that falls in a record.
LIMITED = """
import json, pathlib, resource, sys
from spanbert_jax.training.tracking import MetricsWriter
workdir, said = pathlib.Path(sys.argv[1]), []
with MetricsWriter(workdir, say=said.append) as writer:
    for step in range(1, 40):
        limit = 37 * step if step % 5 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        writer.write(step, "train", {"loss": 1 / step})
        for line in (workdir / "metrics.jsonl").read_bytes().splitlines(keepends=True):
            assert line.endswith(b"\\n") and json.loads(line)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(len(said), said[0])
"""


def test_a_record_that_was_written_in_part_is_cut_off_again(tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0 and "File too large" in done.stdout, done.stderr
    assert steps(tmp_path) == list(range(1, 40)) and {step for _, step in board(tmp_path)} == set(range(1, 40))


def test_a_vanished_folder_is_waited_for(tmp_path):
    workdir, said = tmp_path / "run", []
    workdir.mkdir()
    with MetricsWriter(workdir, say=said.append) as writer:
        write(writer, 1)
        workdir.rename(tmp_path / "elsewhere")
        write(writer, 2, 3)
        assert not workdir.exists() and len(said) == 1 and "No such file" in said[0]
        (tmp_path / "elsewhere").rename(workdir)
        write(writer, 4)
        assert steps(workdir) == [1, 2, 3, 4] and len(said) == 2
        shutil.rmtree(workdir)
        write(writer, 5)
        workdir.mkdir()
    assert steps(workdir) == [5]  # the others went with the folder
    assert board(workdir) == {("train/loss", 5): pytest.approx(1 / 5)}


def test_a_disk_that_stays_away_is_told_at_the_end(tmp_path):
    workdir, said = tmp_path / "run", []
    workdir.mkdir()
    with MetricsWriter(workdir, say=said.append) as writer:
        workdir.rmdir() if not any(workdir.iterdir()) else shutil.rmtree(workdir)
        write(writer, 1)
    assert "CANNOT BE WRITTEN" in said[0] and "LOST" in said[1] and len(said) == 2


def test_saying_so_may_fail_too(tmp_path):
    def say(text):
        raise OSError(28, "No space left on device")

    workdir = tmp_path / "run"
    workdir.mkdir()
    with MetricsWriter(workdir, say=say) as writer:
        shutil.rmtree(workdir)
        write(writer, 1)


def test_all_but_the_first_process_of_a_run_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "is_process_zero", lambda: False)
    with MetricsWriter(tmp_path) as writer:
        write(writer, 1)
        assert not writer.evaluated(1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, make", [("metrics.jsonl", pathlib.Path.mkdir), ("tensorboard", pathlib.Path.touch)])
def test_a_directory_and_a_file_in_place_of_each_other(name, make, tmp_path):
    make(tmp_path / name)
    with pytest.raises(UserError) as caught:
        MetricsWriter(tmp_path)
    assert str(tmp_path / name) in str(caught.value) and "move it out of the way" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_figures_that_are_not_finite_are_written(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, "train", {"loss": math.inf, "norm": None})
    assert read_metrics(tmp_path)[0]["loss"] == math.inf and board(tmp_path) == {("train/loss", 1): math.inf}


def test_a_text_is_there_whole_or_not_at_all(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        write_text(disk / "config.json", json.dumps({"a": 1}))
        fill(disk)
        with pytest.raises(OSError, match="No space left"):
            write_text(disk / "config.json", "x" * 100_000)
        assert json.loads((disk / "config.json").read_text()) == {"a": 1}
        assert sorted(path.name for path in disk.iterdir()) == ["config.json", "filler"]


def test_a_run_does_not_wait_for_torch_and_leaves_it_to_others():
    subprocess.run([sys.executable, "-c", "import sys, spanbert_jax.training.run; assert 'torch' not in sys.modules\n"
                    "import torch; assert torch.ones(2).sum() == 2"], check=True)
