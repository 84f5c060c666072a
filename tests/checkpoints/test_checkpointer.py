"""States are restored bit for bit; damaged checkpoints are detected, set aside and survived."""
import functools
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.checkpoints import Checkpointer, remove_checkpoints
from spanbert_jax.checkpoints.manifest import write_manifest
from spanbert_jax.common.errors import UserError
from tests.checkpoints.states import (
    abstract_of,
    accept_any,
    assert_same_bits,
    make_state,
    save_steps,
)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A workdir with steps 1 and 2. Tests must not change it."""
    workdir = tmp_path_factory.mktemp("two")
    save_steps(workdir, [1, 2])
    return workdir


@pytest.fixture
def workdir(two_steps, tmp_path):
    """A copy of `two_steps`."""
    shutil.copytree(two_steps, tmp_path / "run")
    return tmp_path / "run"


def tree(folder: pathlib.Path) -> dict[str, bytes | None]:
    """Returns everything below a folder: path -> content, or None for a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))}


def resume(workdir, abstract=None, check=accept_any, **options):
    """Resumes. Returns the result and the logged lines."""
    lines = []
    with Checkpointer(workdir, log=lines.append, **options) as checkpointer:
        found = checkpointer.resume(abstract or abstract_of(make_state(0)), check)
    return found, lines


def remake_manifest(workdir, step: int) -> None:
    folder = workdir / "checkpoints"
    write_manifest(folder / f"integrity-{step}.json", folder / str(step), step, 2, 0)


def test_the_latest_stored_best_step_is_kept(tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        for step, best_steps in ((1, [1]), (2, [1]), (3, [1, 9]), (4, [1, 4]), (5, [1, 4])):  # 9 could not be saved
            checkpointer.best_steps = best_steps
            checkpointer.save(step, make_state(step), {})
            checkpointer.wait()
            assert checkpointer.steps() == {1: [1], 2: [1, 2], 3: [1, 3], 4: [4], 5: [4, 5]}[step]


@pytest.mark.parametrize("saved_on,restored_on", [(1, 1), (8, 8), (8, 1), (1, 4), (2, 8)])
def test_a_state_is_restored_on_any_number_of_devices(tmp_path, saved_on, restored_on):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(7, make_state(7, saved_on), {"config": {"a": [1, None]}})
        checkpointer.wait()
        seen = []
        step, state = checkpointer.resume(
            abstract_of(make_state(0, restored_on)), lambda *arguments: seen.append(arguments))
    assert step == 7
    assert_same_bits(state, make_state(7, restored_on))
    assert state.params["dense"]["kernel"].sharding.num_devices == restored_on
    [(step, metadata)] = seen
    assert step == 7 and metadata["config"] == {"a": [1, None]}


def test_a_random_key_in_the_optimizer_state_is_restored(tmp_path):
    state = make_state(1)
    state = state.replace(opt_state=jax.device_put(jax.random.key(3), state.step.sharding))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {})
        checkpointer.wait()
    (_, restored), lines = resume(tmp_path, abstract_of(state))
    assert not lines
    assert jax.random.bits(restored.opt_state) == jax.random.bits(state.opt_state)


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    @functools.partial(jax.jit, donate_argnums=0)
    def overwrite(state):
        return jax.tree.map(lambda leaf: ~leaf if leaf.dtype == bool else leaf + 1, state)

    with Checkpointer(tmp_path, keep=5) as checkpointer:
        for step in range(1, 6):
            state = jax.jit(lambda state: jax.tree.map(jnp.copy, state))(make_state(step, 2, rows=2 ** 15))
            checkpointer.save(step, state, {})
            for _ in range(5):
                state = overwrite(state)
        checkpointer.wait()
    for step in range(5, 0, -1):
        (found, state), _ = resume(tmp_path, abstract_of(make_state(0, 2, rows=2 ** 15)))
        assert found == step
        assert_same_bits(state, make_state(step, 2, rows=2 ** 15))
        shutil.rmtree(tmp_path / "checkpoints" / str(step))


def test_a_new_run_has_nothing_to_resume(tmp_path):
    assert resume(tmp_path) == (None, [])


def test_only_retained_steps_stay(tmp_path):
    with Checkpointer(tmp_path, keep=2, keep_every=20) as checkpointer:
        for step in range(10, 80, 10):
            checkpointer.save(step, make_state(step), {})
        checkpointer.wait()
        assert checkpointer.steps() == [20, 40, 60, 70]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == sorted(
        [str(step) for step in (20, 40, 60, 70)] + [f"integrity-{step}.json" for step in (20, 40, 60, 70)])


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_of_any_file_is_survived(two_steps, tmp_path, damage):
    files = [path for path in tree(two_steps / "checkpoints") if path.split("/")[0] in ("2", "integrity-2.json")
             and (two_steps / "checkpoints" / path).is_file()]
    assert len(files) > 10
    random = np.random.default_rng(0)
    for number, file in enumerate(files):
        shutil.copytree(two_steps, tmp_path / str(number))
        folder = tmp_path / str(number) / "checkpoints"
        content = bytearray((folder / file).read_bytes())
        if damage == "flip":
            content[random.integers(len(content))] ^= 1 << random.integers(8)
            (folder / file).write_bytes(content)
        elif damage == "cut":
            (folder / file).write_bytes(content[:random.integers(len(content))])
        else:
            (folder / file).unlink()
        damaged = tree(folder)
        (step, state), [line] = resume(tmp_path / str(number))
        assert step == 1
        assert_same_bits(state, make_state(1))
        assert "step 2 " in line and file.removeprefix("2/") in line and "2.unsound" in line
        # Nothing is lost: every file is still there, under another name.
        expected = {name.replace("integrity-2.json", "2.unsound.json") if name == "integrity-2.json" else
                    "2.unsound" + name[1:] if name.split("/")[0] == "2" else name: content
                    for name, content in damaged.items()}
        found = tree(folder)
        assert found.pop("2.unsound.txt").decode().strip() in line
        assert found == expected


def test_damage_before_the_manifest_was_written_is_detected(tmp_path):
    state = make_state(2, rows=2 ** 15)
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        checkpointer.save(1, make_state(1, rows=2 ** 15), {})
        checkpointer.save(2, state, {})
    some = np.asarray(state.params["dense"]["kernel"]).tobytes()[300_000:300_032]
    damaged = bytearray(some)
    damaged[11] ^= 4
    [file] = [path for path in (tmp_path / "checkpoints/2/state").rglob("*")
              if path.is_file() and some in path.read_bytes()]
    file.write_bytes(file.read_bytes().replace(some, damaged))
    remake_manifest(tmp_path, 2)
    (step, restored), [line] = resume(tmp_path, abstract_of(state))
    assert step == 1 and "params/dense/kernel: its values are not those that were saved" in line
    assert_same_bits(restored, make_state(1, rows=2 ** 15))


@pytest.mark.parametrize(
    "metadata", ["{", "[]", "{}", '{"fingerprint": 5}', '{"fingerprint": {"step": "x"}}', "[" * 100_000])
def test_a_step_with_invalid_metadata_is_set_aside(workdir, metadata):
    (workdir / "checkpoints/2/about/metadata").write_text(metadata)
    remake_manifest(workdir, 2)
    (step, _), [line] = resume(workdir)
    assert step == 1 and "2.unsound" in line


def test_a_step_that_was_set_aside_can_be_saved_again(workdir):
    folder = workdir / "checkpoints"
    for name in ("2.unsound", "2.unsound-2"):
        (folder / "2/about/metadata").unlink()
        lines = []
        with Checkpointer(workdir, keep=2, log=lines.append) as checkpointer:
            step, _ = checkpointer.resume(abstract_of(make_state(0)), accept_any)
            assert step == 1
            checkpointer.save(2, make_state(2), {})
            checkpointer.wait()
        assert len(lines) == 1 and (folder / name).is_dir() and (folder / f"{name}.json").is_file()
    (step, state), lines = resume(workdir)
    assert step == 2 and not lines
    assert_same_bits(state, make_state(2))


def test_a_run_without_any_valid_step_does_not_start_again(workdir):
    for step in (1, 2):
        (workdir / f"checkpoints/{step}/about/metadata").unlink()
    for _ in range(2):  # also when the same command is run again
        with pytest.raises(UserError, match=r"no valid checkpoint is left; set aside are 1\.unsound, 2\.unsound"):
            resume(workdir)
    assert (workdir / "checkpoints/2.unsound/state").is_dir()


def test_a_restored_valid_copy_is_resumed(workdir, two_steps):
    for step in (1, 2):
        (workdir / f"checkpoints/{step}/about/metadata").unlink()
    with pytest.raises(UserError):
        resume(workdir)
    for name in ("1", "integrity-1.json"):
        (shutil.copytree if name == "1" else shutil.copy)(
            two_steps / "checkpoints" / name, workdir / "checkpoints" / name)
    (step, _), _ = resume(workdir)
    assert step == 1


def test_a_checkpoint_that_does_not_fit_is_left_unchanged(workdir):
    def refuse(step, metadata):
        raise UserError(f"{step} {metadata['config']['of']} does not fit")

    before = tree(workdir)
    with pytest.raises(UserError, match="^2 2 does not fit$"):
        resume(workdir, check=refuse)
    state = make_state(0)
    wider, other = make_state(0, rows=16), state.replace(params=state.params | {"more": jnp.zeros(3)})
    half = state.replace(opt_state=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.opt_state))
    for wanted, words in [(wider, r"opt_state/0/mu is float32\[8,5\] there and float32\[16,5\] in this config"),
                          (other, r"params/more is not in it there and float32\[3\] in this config"),
                          (half, r"opt_state/0/count is int32\[\] there and bfloat16\[\] in this config")]:
        with pytest.raises(UserError, match=f"checkpoint of step 2: {words}"):
            resume(workdir, abstract_of(wanted))
    assert tree(workdir) == before


def test_only_leftovers_of_killed_runs_are_removed(workdir):
    folder = workdir / "checkpoints"
    before = tree(folder)
    shutil.copytree(folder / "2", folder / "3.saving")  # killed before and while its manifest was written
    shutil.copytree(folder / "2", folder / "4.saving")
    (folder / "4.saving.orbax-checkpoint-tmp/state.orbax-checkpoint-tmp/d").mkdir(parents=True)
    (folder / "integrity-4.json").write_text("{}")
    (folder / "integrity-5.json.tmp").write_text("{")
    shutil.copytree(folder / "2", folder / "7.deleting")  # killed while it was being deleted
    (folder / "integrity-7.json").write_text("{}")
    (folder / "13.orbax-checkpoint-tmp").mkdir()
    (folder / "writable.tmp").write_text("")
    own = {"notes.txt": b"mine", "best": None, "best/integrity-9.json": b"{}", "08": None, "3.unsound": None}
    for name, content in own.items():
        (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)
    cluttered = tree(folder)
    with Checkpointer(workdir, read_only=True) as checkpointer:
        assert checkpointer.steps() == [1, 2] and checkpointer.latest_valid() == 2
    assert tree(folder) == cluttered
    (step, _), lines = resume(workdir)
    assert step == 2 and not lines
    assert tree(folder) == before | own


def test_the_checkpoints_of_a_finished_run_are_removed_and_nothing_else(workdir):
    folder = workdir / "checkpoints"
    (folder / "3.saving").mkdir()
    shutil.copytree(folder / "1", folder / "1.unsound")
    (folder / "notes.txt").write_text("mine")
    (workdir / "outside").mkdir()
    (workdir / "outside" / "thesis").write_text("mine")
    (folder / "9").symlink_to(workdir / "outside")
    remove_checkpoints(workdir)
    assert sorted(path.name for path in folder.iterdir()) == ["1.unsound", "notes.txt"]
    shutil.rmtree(folder / "1.unsound")
    (folder / "notes.txt").unlink()
    remove_checkpoints(workdir)
    assert not folder.exists() and (workdir / "outside" / "thesis").read_text() == "mine"
    folder.symlink_to(workdir / "outside")
    (workdir / "outside" / "5").mkdir()
    remove_checkpoints(workdir)
    assert (workdir / "outside" / "5").is_dir()


def test_the_same_state_is_not_saved_twice(workdir):
    before = tree(workdir)
    with Checkpointer(workdir, keep=2) as checkpointer:
        checkpointer.save(2, make_state(2), {})
        checkpointer.wait()
    assert tree(workdir) == before


def test_saving_another_state_of_a_step_sets_the_previous_one_aside(workdir):
    lines = []
    with Checkpointer(workdir, keep=2, log=lines.append) as checkpointer:
        checkpointer.save(2, make_state(3), {})
        checkpointer.wait()
        assert checkpointer.steps() == [1, 2] and len(lines) == 1 and "2.unsound" in lines[0]
    (step, state), _ = resume(workdir)
    assert step == 2
    assert_same_bits(state, make_state(3))


def test_reading_beside_a_live_run_changes_nothing(workdir):
    abstract = abstract_of(make_state(0, 4).params)
    before = tree(workdir)
    with Checkpointer(workdir, read_only=True) as checkpointer:
        assert checkpointer.latest_valid() == 2 and checkpointer.latest_valid(1) == 1
        assert checkpointer.metadata(1)["config"] == {"of": 1}
        assert_same_bits(checkpointer.restore_params(1, abstract), make_state(1, 4).params)
        with pytest.raises(UserError, match=r"no checkpoint of step 3; there are \[1, 2\]"):
            checkpointer.latest_valid(3)
    assert tree(workdir) == before
    (workdir / "checkpoints/2/state/_METADATA").unlink()
    before = tree(workdir)
    with Checkpointer(workdir, read_only=True) as checkpointer:
        assert checkpointer.latest_valid() == 1
        with pytest.raises(UserError, match="checkpoint of step 2 is corrupt: state/_METADATA: missing"):
            checkpointer.latest_valid(2)
    (workdir / "checkpoints/1/state/_METADATA").unlink()
    with Checkpointer(workdir, read_only=True) as checkpointer:
        with pytest.raises(UserError, match=r"checkpoints of steps \[1, 2\] are corrupt"):
            checkpointer.latest_valid()
    assert set(before) - set(tree(workdir)) == {"checkpoints/1/state/_METADATA"}


def test_reading_a_step_that_a_live_run_deletes_is_a_one_line_error(workdir):
    abstract = abstract_of(make_state(0).params)
    with Checkpointer(workdir, read_only=True) as checkpointer:
        chosen = checkpointer.latest_valid()
        shutil.rmtree(workdir / "checkpoints" / str(chosen))
        for read in (lambda: checkpointer.restore_params(chosen, abstract), lambda: checkpointer.metadata(chosen)):
            with pytest.raises(UserError) as caught:
                read()
            assert "\n" not in str(caught.value)
        assert checkpointer.latest_valid() == 1


def test_parameters_that_differ_from_the_saved_ones_are_refused(workdir):
    metadata = workdir / "checkpoints/2/about/metadata"
    metadata.write_text(metadata.read_text().replace('"params/dense/bias": ', '"params/dense/bias": 1'))
    with Checkpointer(workdir, read_only=True) as checkpointer:
        with pytest.raises(UserError, match="params/dense/bias: its values are not those that were saved"):
            checkpointer.restore_params(2, abstract_of(make_state(0).params))
        with pytest.raises(UserError, match=r"params/dense/kernel is float32\[8,5\] there and float32\[4,5\]"):
            checkpointer.restore_params(1, abstract_of(make_state(0, rows=4).params))


def test_reading_without_a_run_creates_nothing(tmp_path):
    with Checkpointer(tmp_path / "none", read_only=True) as checkpointer:
        assert checkpointer.steps() == []
        with pytest.raises(UserError, match="no checkpoint yet"):
            checkpointer.latest_valid()
    assert not (tmp_path / "none").exists()
