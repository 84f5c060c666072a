"""Runs a process whose standard streams fail."""
import os
import subprocess
from collections.abc import Mapping, Sequence

# By name, what a shell does to the streams of a process.
FAULTS = {"stdout closed": ">&-", "stderr closed": "2>&-", "both closed": ">&- 2>&-", "stdout full": ">/dev/full",
          "stderr full": "2>/dev/full", "reader left": "", "ASCII": "", "stdin closed": "<&-"}


def run_with(fault: str, argv: Sequence[str], env: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
    """Runs a process to its end with one of `FAULTS`, or "" for none. The reader has left before it starts."""
    env = {**env, **({"PYTHONUTF8": "0", "PYTHONIOENCODING": "", "LC_ALL": "C"} if fault == "ASCII" else
                     {"PYTHONUTF8": "1"})}
    command = ["sh", "-c", f'exec "$@" {FAULTS.get(fault, "")}', "sh", *argv]
    if fault != "reader left":
        return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
                              errors="surrogateescape")
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE,
                              encoding="utf-8", errors="surrogateescape")
    finally:
        os.close(write)
