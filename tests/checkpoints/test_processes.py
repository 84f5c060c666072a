"""Two processes save and restore one state; a failure of one is known to both at once."""
import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("failing", [0, 1])
def test_processes_agree(tmp_path, failing):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.checkpoints.one_of_two"]
    processes = [subprocess.Popen(
        [*command, str(process), str(port), tmp_path, str(failing)], cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True) for process in range(2)]
    try:
        # Far less than the 20 minutes that a process would wait for another one in a commit.
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_out, errors) in zip(processes, outputs):
        assert process.returncode == 0, errors
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in outputs)
    reason = "File too large" if failing == 0 else "process 1: File too large"
    assert first["failed"].startswith(f"step 2 could not be saved (1 in a row failed): {reason}; ")
    assert len(first["lines"]) == 2  # the failed save, and the step that was set aside
    assert second.pop("lines") == []  # only process 0 logs
    del first["lines"]
    assert first == second
    assert first["failures"] == 1 and first["steps"] == [1, 3]
    assert first["resumed"] == [3, 1] and first["latest_valid"] == 1
    assert first["metadata"] == [0]  # as stored by process 0, on both
