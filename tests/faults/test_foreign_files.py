"""Runs among files that are not theirs: planted links, files of others, and a second user of a workdir."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.cluster.lock import lock_workdir
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.training.trackers import MetricsWriter
from tests.checkpoints.states import abstract_of, make_state
from tests.runs import losses, run_here

pytestmark = pytest.mark.usefixtures("one_device")
READERS = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # Python may be in a folder of root


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def finished(unbroken, tmp_path):
    """A copy of a finished run."""
    return pathlib.Path(shutil.copytree(unbroken, tmp_path / "run"))


@pytest.fixture
def precious(tmp_path):
    """A folder of somebody else, with names like those of a run."""
    folder = tmp_path / "precious"
    for name in ("thesis", "metrics.jsonl", "config.json", "5.saving/notes", "7/notes", "integrity-9.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine\n")
    return folder


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "checkpoints", "tensorboard"])
def test_a_run_does_not_write_through_a_link(name, files, finished, precious):
    before = contents(precious)
    if (finished / name).is_dir():
        shutil.rmtree(finished / name)
    else:
        (finished / name).unlink(missing_ok=True)
    (finished / name).symlink_to(precious if name in ("checkpoints", "tensorboard") else precious / "thesis")
    line = run_here(files, finished, status=2).splitlines()[-1]
    assert str(finished) in line and name in line and ("move it" in line or "remove it" in line)
    assert contents(precious) == before


def test_links_in_place_of_files_are_replaced(files, finished, precious, unbroken):
    names = ("config.json", "tokenizer.json", "goodput.json")
    for name in names:
        shutil.move(finished / name, precious / name)
        (finished / name).symlink_to(precious / name)
    for name in ("metrics.jsonl.tmp", "config.json.tmp"):
        (finished / name).symlink_to(precious / "thesis")
    before = contents(precious)
    shutil.rmtree(finished / "checkpoints" / "20")
    run_here(files, finished)
    assert contents(precious) == before and (finished / "checkpoints" / "20").is_dir()
    assert not any((finished / name).is_symlink() for name in names)
    assert (finished / "config.json.tmp").is_symlink()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "task.json", "model", "results.json"])
def test_a_folder_with_files_of_others_does_not_become_a_workdir(name, files, tmp_path):
    workdir = tmp_path / "models"
    workdir.mkdir()
    (workdir / name).write_text('{"model_type": "bert"}')
    before = contents(workdir)
    output = run_here(files, workdir, status=2)
    assert f"holds no run, but {name}, which a run would overwrite" in output
    assert contents(workdir) == {**before, pathlib.Path(".lock"): b""}


def step_as_run(workdir, step, umask):
    """Trains, in so far as it writes, one step more than the run in a workdir has. Returns the error, or ""."""
    before = os.umask(umask)
    try:
        with (lock_workdir(workdir), MetricsWriter(workdir, step - 1) as metrics,
              Checkpointer(workdir) as checkpointer):
            found = checkpointer.resume(abstract_of(make_state(0)), lambda step, metadata: None)
            assert (found[0] if found else 0) == step - 1
            write_text(workdir / "config.json", "{}")
            metrics.write(step, "train", {"loss": 1.0})
            checkpointer.save(step, make_state(step), {})
            checkpointer.wait()
            assert checkpointer.steps() == [step]
        return ""
    except UserError as error:
        return str(error)
    finally:
        os.umask(before)


STEP = """
import pathlib, sys
from tests.faults.test_foreign_files import step_as_run
print(step_as_run(pathlib.Path(sys.argv[1]), 2, 0o002), end="")
"""
# The lock alone, which a run takes first.
LOCK = """
import os, sys
os.umask(0o022)
from spanbert_jax.cluster.lock import lock_workdir
from spanbert_jax.common.errors import UserError
try:
    lock_workdir(sys.argv[1]).__enter__()
except UserError as error:
    print(error)
"""


def as_user(user, *arguments):
    """Runs a script as another user of one group, without a home; returns what it prints."""
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("needs root, and setpriv, to become another user")
    who = ["setpriv", f"--reuid={user}", "--regid=4700", "--clear-groups", *READERS]
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run([*who, sys.executable, "-B", "-c", *map(str, arguments)], env=environment, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shared(tmp_path):
    """A workdir that a group may write."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    if not os.getuid():
        os.chown(workdir, 0, 4700)
    workdir.chmod(0o2775)
    return workdir


def test_a_second_user_continues_a_run_in_a_shared_workdir(shared):
    assert step_as_run(shared, 1, 0o002) == ""
    assert as_user(4712, STEP, shared) == ""
    assert sorted(losses(shared)) == [1, 2] and (shared / "checkpoints" / "2").is_dir()


def test_a_second_user_is_told_whose_files_are_in_the_way(shared):
    as_user(4711, LOCK, shared)
    line = as_user(4712, LOCK, shared)
    assert f"Permission denied: {shared}/.lock belongs to 4711, who can share it by umask 002" in line
    assert line.count("\n") == 1 and os.listdir(shared) == [".lock"]


def test_exports_and_corpora_of_a_user_who_may_not_write_end_in_one_line(tmp_path):
    script = ("import pathlib, sys; from spanbert_jax.common.directories import new_directory\n"
              "from spanbert_jax.common.errors import UserError; from spanbert_jax.corpus.workspace import workspace\n"
              "for place in (new_directory, workspace):\n"
              "    try: place(pathlib.Path(sys.argv[1], 'out')).__enter__()\n"
              "    except UserError as error: print(error)")
    lines = as_user(4711, script, tmp_path).splitlines()
    assert len(lines) == 2 and not list(tmp_path.iterdir())
    assert all("cannot be written (Permission denied" in line and "belongs to root" in line for line in lines)
