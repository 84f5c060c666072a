"""A run stopped on some processes and devices resumes on others."""
import pathlib
import shutil
import signal

import numpy as np
import pytest

from spanbert_jax.cluster.exit_codes import STOPPED
from tests.runs import Process, final_state, losses, run

STEPS = 20
SETTINGS = ("--config.train.duration=34 steps", "--config.evaluation.every=0")


@pytest.fixture(scope="module")
def runs(files, tmp_path_factory) -> pathlib.Path:
    """A folder of runs: "unbroken", and "1" and "2" of so many processes, stopped with more than 20 steps left."""
    folder = tmp_path_factory.mktemp("elastic")
    run(files, folder / "unbroken", *SETTINGS)
    for processes in (1, 2):
        workdir = folder / str(processes)
        with Process(files, workdir, *SETTINGS, processes=processes) as process:
            process.until("step 6/")
            process.send(signal.SIGTERM)
            assert process.wait() == STOPPED, process.output
        assert max(losses(workdir)) < 34 - STEPS
    return folder


@pytest.mark.parametrize("before,processes,devices,fsdp", [(2, 1, 4, 2), (1, 2, 1, 1)])
def test_a_run_resumes_on_other_processes_and_devices(files, runs, tmp_path, before, processes, devices, fsdp):
    workdir = tmp_path / "run"
    shutil.copytree(runs / str(before), workdir)
    done = losses(workdir)
    output = run(files, workdir, *SETTINGS, f"--config.mesh.fsdp={fsdp}", processes=processes, devices=devices)
    # The fingerprint would have put a state that differs from the saved one into quarantine.
    assert f"Resuming from the checkpoint of step {max(done)} " in output and "set aside" not in output
    got, expected = losses(workdir), losses(runs / "unbroken")
    assert got.keys() == expected.keys() and done.items() <= got.items()
    for step in sorted(got)[:len(done) + STEPS]:
        np.testing.assert_allclose(got[step], expected[step], rtol=1e-5)
    state, whole = final_state(workdir), final_state(runs / "unbroken")
    for name in state:
        np.testing.assert_allclose(state[name], whole[name], rtol=1e-2, atol=1e-4, err_msg=name)
