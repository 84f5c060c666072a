"""Trackers: full disks, vanished folders and crashes lose no metrics, and TensorBoard can read its files."""
import json
import math
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from typing import ClassVar

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.pretraining.config import DataSettings, PretrainingConfig
from spanbert_jax.training.trackers import TRACKERS, MetricsWriter, read_metrics, writer
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
    """{(tag, step): value} that TensorBoard shows: without what later files purge."""
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


def write(metrics, *numbers):
    for step in numbers:
        metrics.write(step, "train", {"loss": 1 / step, "rows": [1, 2]})


def test_metrics_are_read_back_and_shown_by_tensorboard(tmp_path):
    with MetricsWriter(tmp_path, log=pytest.fail) as metrics:
        write(metrics, 1, 2)
        metrics.write(2, "evaluation", {"masked_loss": 7.5, "by_length": [0.5, None], "tokens": 12})
        assert steps(tmp_path) == [1, 2, 2]  # at once
        assert metrics.evaluations.keys() == {2}
    *_, last = read_metrics(tmp_path)
    assert abs(last.pop("time") - time.time()) < 60
    assert last == {"step": 2, "kind": "evaluation", "masked_loss": 7.5, "by_length": [0.5, None], "tokens": 12}
    assert board(tmp_path) == {("train/loss", 1): 1.0, ("train/loss", 2): 0.5, ("evaluation/masked_loss", 2): 7.5,
                               ("evaluation/tokens", 2): 12.0}


def test_the_files_of_a_resumed_run_read_as_one_run(tmp_path):
    with MetricsWriter(tmp_path) as metrics:
        write(metrics, 1, 2)
        metrics.write(2, "evaluation", {"masked_loss": 2.0})
        write(metrics, 3, 4)
        metrics.write(4, "evaluation", {"masked_loss": 4.0})
    with MetricsWriter(tmp_path, 2) as metrics:
        assert metrics.evaluations.keys() == {2}
        assert steps(tmp_path) == [1, 2, 2]
        metrics.write(3, "train", {"loss": 30.0})
    losses = [(line["step"], line.get("loss")) for line in read_metrics(tmp_path)]
    assert losses == [(1, 1), (2, 0.5), (2, None), (3, 30)]
    assert {key: value for key, value in board(tmp_path).items() if key[1] > 2} == {("train/loss", 3): 30.0}


def test_a_restart_reads_many_lines_without_holding_them(tmp_path):
    line = b'{"step": %d, "kind": "train", "time": 1700000000.123, "loss": 7.123456789, "learning_rate": 0.001}\n'
    content = b"".join(line % step for step in range(1, 20_001))
    (tmp_path / "metrics.jsonl").write_bytes(content)
    tracemalloc.start()
    try:
        with MetricsWriter(tmp_path, 19_000) as metrics:
            assert tracemalloc.get_traced_memory()[1] < len(content) / 4
            assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(line % step for step in range(1, 19_001))
            write(metrics, 19_001)
    finally:
        tracemalloc.stop()
    assert steps(tmp_path) == list(range(1, 19_002))


def test_tensorboard_itself_shows_the_same(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator",
                                      reason="tensorboard is not installed")
    with MetricsWriter(tmp_path) as metrics:
        write(metrics, 1, 2, 3, 4)
    with MetricsWriter(tmp_path, 2) as metrics:
        metrics.write(3, "train", {"loss": 30.0})
    shown = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("train/loss")] == [(1, 1.0), (2, 0.5), (3, 30.0)]


@pytest.mark.parametrize("rubbish", [
    b'{"step": 3, "kind": "tr', b"[1, 2]\n", b"7\n", b'{"kind": "train"}\n', b'{"step": "3"}\n', b"\0" * 300 + b"\n",
    bytes(range(128, 256)) + b"\n", b"[" * 100_000 + b"\n", b"\n\n", b'{"step": NaN}\n'])
@pytest.mark.parametrize("place", ["end", "middle"])
def test_only_damaged_lines_are_dropped(rubbish, place, tmp_path):
    with MetricsWriter(tmp_path) as metrics:
        write(metrics, 1, 2)
    file = tmp_path / "metrics.jsonl"
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + second + rubbish if place == "end" else first + rubbish.rstrip(b"\n") + b"\n" + second)
    assert steps(tmp_path) == [1, 2]
    with MetricsWriter(tmp_path, 2) as metrics:
        assert file.read_bytes() == first + second
        write(metrics, 3)
    assert steps(tmp_path) == [1, 2, 3]


def test_a_complete_last_line_without_newline_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kind": "train"}\n{"step": 2, "kind": "evaluation"}')
    with MetricsWriter(tmp_path, 5) as metrics:
        assert metrics.evaluations.keys() == {2}
        write(metrics, 6)
    assert steps(tmp_path) == [1, 2, 6]


def test_a_full_disk_loses_no_metrics_once_there_is_room(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        logged = []
        with MetricsWriter(disk, log=logged.append) as metrics:
            write(metrics, 1)
            filler = fill(disk)
            write(metrics, *range(2, 300))
            assert len(logged) == 1 and "CANNOT BE WRITTEN" in logged[0] and "No space left" in logged[0]
            number = len(steps(disk))
            assert steps(disk) == list(range(1, number + 1)) and number < 299
            for file in (disk / "tensorboard").iterdir():
                events(file)
            filler.unlink()
            write(metrics, 300)
            assert len(logged) == 2 and "again" in logged[1]
            filler = fill(disk)
            write(metrics, *range(301, 400))
            assert len(logged) == 3
            filler.unlink()
        assert len(logged) == 4 and steps(disk) == list(range(1, 400))
        assert {step for _, step in board(disk)} == set(range(1, 400))


# The limit of the file size falls on many places within a record.
LIMITED = """
import json, pathlib, resource, sys
from spanbert_jax.training.trackers import MetricsWriter
workdir, logged = pathlib.Path(sys.argv[1]), []
with MetricsWriter(workdir, log=logged.append) as metrics:
    for step in range(1, 40):
        limit = 37 * step if step % 5 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        metrics.write(step, "train", {"loss": 1 / step})
        for line in (workdir / "metrics.jsonl").read_bytes().splitlines(keepends=True):
            assert line.endswith(b"\\n") and json.loads(line)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(len(logged), logged[0])
"""


def test_a_partly_written_record_is_cut_off(tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0 and "File too large" in done.stdout, done.stderr
    assert steps(tmp_path) == list(range(1, 40)) and {step for _, step in board(tmp_path)} == set(range(1, 40))


def test_metrics_are_kept_until_a_vanished_folder_is_back(tmp_path):
    workdir, logged = tmp_path / "run", []
    workdir.mkdir()
    with MetricsWriter(workdir, log=logged.append) as metrics:
        write(metrics, 1)
        workdir.rename(tmp_path / "elsewhere")
        write(metrics, 2, 3)
        assert not workdir.exists() and len(logged) == 1 and "No such file" in logged[0]
        (tmp_path / "elsewhere").rename(workdir)
        write(metrics, 4)
        assert steps(workdir) == [1, 2, 3, 4] and len(logged) == 2
        shutil.rmtree(workdir)
        write(metrics, 5)
        workdir.mkdir()
    assert steps(workdir) == [5]  # the others went with the folder
    assert board(workdir) == {("train/loss", 5): pytest.approx(1 / 5)}


def test_metrics_that_could_never_be_written_are_reported_at_the_end(tmp_path):
    workdir, logged = tmp_path / "run", []
    workdir.mkdir()
    with MetricsWriter(workdir, log=logged.append) as metrics:
        workdir.rmdir() if not any(workdir.iterdir()) else shutil.rmtree(workdir)
        write(metrics, 1)
    assert "CANNOT BE WRITTEN" in logged[0] and "LOST" in logged[1] and len(logged) == 2


def test_only_process_zero_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "is_process_zero", lambda: False)
    with MetricsWriter(tmp_path) as metrics:
        write(metrics, 1)
        assert not metrics.evaluations
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, make", [("metrics.jsonl", pathlib.Path.mkdir), ("tensorboard", pathlib.Path.touch)])
def test_a_directory_in_place_of_a_file_and_the_reverse_are_errors(name, make, tmp_path):
    make(tmp_path / name)
    with pytest.raises(UserError) as caught:
        MetricsWriter(tmp_path)
    assert str(tmp_path / name) in str(caught.value) and "move it out of the way" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_metrics_that_are_not_finite_are_written(tmp_path):
    with MetricsWriter(tmp_path) as metrics:
        metrics.write(1, "train", {"loss": math.inf, "norm": None})
    assert next(read_metrics(tmp_path))["loss"] == math.inf and board(tmp_path) == {("train/loss", 1): math.inf}


def test_a_text_is_written_completely_or_not_at_all(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        write_text(disk / "config.json", json.dumps({"a": 1}))
        fill(disk)
        with pytest.raises(OSError, match="No space left"):
            write_text(disk / "config.json", "x" * 100_000)
        assert json.loads((disk / "config.json").read_text()) == {"a": 1}
        assert sorted(path.name for path in disk.iterdir()) == ["config.json", "filler"]


def test_training_does_not_import_torch_and_torch_can_be_imported_later():
    subprocess.run([sys.executable, "-c", "import sys, spanbert_jax.training.run; assert 'torch' not in sys.modules\n"
                    "import torch; assert torch.ones(2).sum() == 2"], check=True)


class Recorder:
    """A tracker as another package may register it."""
    opened: ClassVar[list] = []

    def __init__(self, workdir, first_step):
        self.calls = [(workdir, first_step)]
        self.opened.append(self)

    def write(self, step, kind, metrics):
        self.calls.append((step, kind, metrics["loss"]))
        if metrics["loss"] < 0:
            raise ValueError("refused\nby the server")

    def close(self):
        self.calls.append("closed")


@pytest.fixture
def recorder(monkeypatch):
    """The Recorder class, registered as "recorder"."""
    monkeypatch.setattr(TRACKERS, "_registered", {})
    monkeypatch.setattr(Recorder, "opened", [])
    return TRACKERS.register("recorder")(Recorder)


def test_a_registered_tracker_receives_the_metrics_besides_json_lines(tmp_path, recorder):
    with MetricsWriter(tmp_path, 4, ["recorder"], log=pytest.fail) as metrics:
        metrics.write(5, "train", {"loss": 2.0})
        metrics.write(6, "evaluation", {"loss": 3.0})
    opened, = recorder.opened
    assert opened.calls == [(tmp_path, 4), (5, "train", 2.0), (6, "evaluation", 3.0), "closed"]
    assert steps(tmp_path) == [5, 6] and not (tmp_path / "tensorboard").exists()


def test_an_error_of_a_tracker_is_reported_and_the_others_continue(tmp_path, recorder):
    logged = []
    with MetricsWriter(tmp_path, 0, ["recorder", "tensorboard"], log=logged.append) as metrics:
        for step in (1, 2):
            metrics.write(step, "train", {"loss": -1.0})
    assert len(logged) == 2 and "recorder: ValueError: refused by the server" in logged[0] and "again" in logged[1]
    assert steps(tmp_path) == [1, 2] and board(tmp_path).keys() == {("train/loss", 1), ("train/loss", 2)}


def test_an_unknown_tracker_is_an_error(tmp_path):
    with pytest.raises(UserError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        MetricsWriter(tmp_path, 0, ["tensorbord"])


def test_a_plugin_registers_a_tracker(tmp_path, recorder, monkeypatch):
    (tmp_path / "my_tracker.py").write_text("from spanbert_jax.training.trackers import TRACKERS\n"
                                            "from tests.training.test_trackers import Recorder\n"
                                            "TRACKERS.register('mine')(Recorder)\n")
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins(["my_tracker"])
    PretrainingConfig(trackers=("mine",), data=DataSettings(path="corpus")).validate("config")
    with MetricsWriter(tmp_path, 0, ["mine"], log=pytest.fail) as metrics:
        metrics.write(1, "train", {"loss": 2.0})
    assert TRACKERS.get("mine") is not None and steps(tmp_path) == [1]
    with pytest.raises(UserError, match="unknown tracker 'yours'"):
        PretrainingConfig(trackers=("yours",), data=DataSettings(path="corpus")).validate("config")


def test_a_tracker_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    def offline(workdir, first_step):
        raise RuntimeError("no server\nat all")

    monkeypatch.setitem(TRACKERS._registered, "offline", offline)
    with pytest.raises(UserError, match=r"config.trackers: .offline. cannot be opened \(RuntimeError: no server"):
        MetricsWriter(tmp_path, trackers=("offline",))
    assert not list(tmp_path.iterdir())
