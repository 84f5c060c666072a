"""A run stopped on some processes and devices goes on with others."""
import shutil
import signal

import numpy as np
import pytest

from spanbert_jax.cluster.exit_codes import STOPPED
from tests.runs import Process, final_state, losses, run

STEPS = 20
SETTINGS = ("--config.train.duration=34 steps", "--config.evaluation.every=0")


@pytest.fixture(scope="module")
def stopped(files, tmp_path_factory):
    """Workdirs of two runs of 2 processes with 2 devices each: one stopped with more than 20 steps to go, one whole."""
    folder = tmp_path_factory.mktemp("elastic")
    run(files, folder / "unbroken", *SETTINGS, processes=2, devices=2)
    with Process(files, folder / "stopped", *SETTINGS, processes=2, devices=2) as process:
        process.until("step 6/")
        process.send(signal.SIGTERM)
        assert process.wait() == STOPPED, process.output
    assert max(losses(folder / "stopped")) < 34 - STEPS
    return folder


@pytest.mark.parametrize("processes,devices,mesh", [
    (1, 4, "--config.mesh.fsdp=2"), (4, 1, "--config.mesh.data=-1"), (1, 1, "--config.mesh.data=1")])
def test_a_run_goes_on_with_other_processes_and_devices(files, stopped, tmp_path, processes, devices, mesh):
    workdir = tmp_path / "run"
    shutil.copytree(stopped / "stopped", workdir)
    before = losses(workdir)
    output = run(files, workdir, *SETTINGS, mesh, processes=processes, devices=devices)
    # A state restored otherwise than it was saved would have been set aside, by its fingerprint.
    assert f"Going on from the checkpoint of step {max(before)} " in output and "set aside" not in output
    got, expected = losses(workdir), losses(stopped / "unbroken")
    assert got.keys() == expected.keys() and before.items() <= got.items()
    for step in sorted(got)[:len(before) + STEPS]:
        np.testing.assert_allclose(got[step], expected[step], rtol=1e-5)
    state, whole = final_state(workdir), final_state(stopped / "unbroken")
    for name in state:
        np.testing.assert_allclose(state[name], whole[name], rtol=1e-2, atol=1e-4, err_msg=name)
