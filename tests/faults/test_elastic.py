"""A run interrupted on some processes and devices resumes on others."""
import shutil

import numpy as np
import pytest

from tests.runs import final_state, losses, run, run_here


def cut_after(workdir, step: int) -> None:
    """Removes the newer checkpoints: the workdir of a run that was killed before it saved them."""
    for path in (workdir / "checkpoints").iterdir():
        if int(path.stem.removeprefix("integrity-")) > step:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("before,processes,devices", [("unbroken_pair", 1, 4), ("unbroken", 2, 2)])
def test_a_run_resumes_on_other_processes_and_devices(files, unbroken, request, tmp_path, before, processes, devices):
    workdir = tmp_path / "run"
    shutil.copytree(request.getfixturevalue(before), workdir)
    done = losses(workdir)
    cut_after(workdir, 10)
    settings = ("--config.mesh.fsdp=2", "--config.evaluation.every=0")  # an evaluation is a program of its own
    output = (run(files, workdir, *settings, processes=processes, devices=devices) if processes > 1 else
              run_here(files, workdir, *settings, devices=devices))
    # The fingerprint would have put a state that differs from the saved one into quarantine.
    assert "Resuming from the checkpoint of step 10 " in output and "set aside" not in output
    got, expected = losses(workdir), losses(unbroken)
    assert list(got) == list(range(1, 21)) and all(got[step] == done[step] for step in range(1, 11))
    np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=1e-5)
    state, whole = final_state(workdir), final_state(unbroken)
    for name in state:
        np.testing.assert_allclose(state[name], whole[name], rtol=1e-2, atol=1e-4, err_msg=name)
