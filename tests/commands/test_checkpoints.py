"""`spanbert-jax checkpoints` tells what lies in a workdir, and alters nothing."""
import json
import shutil

import pytest

import spanbert_jax
from spanbert_jax.commands.main import main
from tests.checkpoints.states import save_steps
from tests.checkpoints.test_manifest import rewrite


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("three")
    save_steps(workdir, [10, 15, 20], keep_every=10)
    return workdir


@pytest.fixture
def workdir(three_steps, tmp_path):
    shutil.copytree(three_steps, tmp_path / "run")
    return tmp_path / "run"


def listed(capsys, workdir, *flags: str, status: int = 0) -> dict:
    assert main(["checkpoints", "--workdir", str(workdir), "--json", *flags]) == status
    return json.loads(capsys.readouterr().out)


def test_what_is_sound_is_listed_with_its_reasons(capsys, workdir):
    found = listed(capsys, workdir)
    assert [(step["step"], step["unsound"], step["kept"]) for step in found["steps"]] == [
        (10, None, "newest 3, every 10 steps"), (15, None, "newest 3"), (20, None, "newest 3, every 10 steps")]
    on_disk = sum(path.stat().st_size for path in (workdir / "checkpoints/15").rglob("*") if path.is_file())
    assert found["steps"][1]["bytes"] == on_disk
    assert found["set_aside"] == [] and found["saving"] == []
    assert listed(capsys, workdir, "--verify") == found == spanbert_jax.list_checkpoints(workdir, verify=True)
    with pytest.raises(spanbert_jax.UserError, match="no checkpoints here"):
        spanbert_jax.list_checkpoints(workdir / "checkpoints")


def test_damage_is_listed_with_its_file(capsys, workdir):
    folder = workdir / "checkpoints"
    content = bytearray((folder / "15/about/metadata").read_bytes())
    content[7] ^= 1
    (folder / "15/about/metadata").write_bytes(content)
    assert listed(capsys, workdir)["steps"][1]["unsound"] is None  # of the same size
    assert listed(capsys, workdir, "--verify", status=1)["steps"][1]["unsound"] == "about/metadata: contents differ"
    (folder / "20/state/_METADATA").unlink()
    (folder / "integrity-10.json").unlink()
    before = sorted(folder.rglob("*"))
    assert [step["unsound"] for step in listed(capsys, workdir, status=1)["steps"]] == [
        "integrity-10.json: missing", None, "state/_METADATA: missing"]
    assert main(["checkpoints", "--workdir", str(workdir), "--verify"]) == 1
    told = capsys.readouterr()
    assert "state/_METADATA: missing" in told.out and "B/s" in told.err
    assert sorted(folder.rglob("*")) == before


def test_steps_set_aside_and_being_saved_are_listed(capsys, workdir):
    folder = workdir / "checkpoints"
    (folder / "15").rename(folder / "15.unsound")
    (folder / "integrity-15.json").rename(folder / "15.unsound.json")
    (folder / "15.unsound.txt").write_text("state/d/1: contents differ\n")
    (folder / "25.saving.orbax-checkpoint-tmp").mkdir()
    found = listed(capsys, workdir, "--verify")
    [aside] = found["set_aside"]
    assert aside["name"] == "15.unsound" and aside["unsound"] == "state/d/1: contents differ" and aside["bytes"] > 1000
    assert [step["step"] for step in found["steps"]] == [10, 20] and found["saving"] == [25]
    assert main(["checkpoints", "--workdir", str(workdir)]) == 0
    told = capsys.readouterr().out
    assert "15.unsound" in told and "quarantined" in told and "killed run: 25" in told


def test_a_workdir_without_checkpoints(capsys, tmp_path):
    assert main(["checkpoints", "--workdir", str(tmp_path)]) == 2
    assert "no checkpoints here" in capsys.readouterr().err
    (tmp_path / "checkpoints").mkdir()
    assert main(["checkpoints", "--workdir", str(tmp_path)]) == 0
    assert "no checkpoint to continue from yet" in capsys.readouterr().out


def test_numbers_that_no_clock_shows_are_no_traceback(capsys, workdir):
    rewrite(workdir / "checkpoints/integrity-20.json", saved_at=10 ** 30)
    assert main(["checkpoints", "--workdir", str(workdir)]) == 0
    assert "?" in capsys.readouterr().out
