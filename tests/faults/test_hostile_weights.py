"""Hostile models, archives and JSON files end in one line, quickly, and leave nothing elsewhere.

With --sweep N, N artefacts run in processes whose memory and time are limited.
"""
import json
import shutil
import subprocess
import sys

import pytest

from tests.faults.hostile_weights import ATTACKS, attack
from tests.runs import ROOT

SECONDS = 10
PER_PROCESS = 45


def check(found: dict) -> None:
    """One line of an error or none, in time, and nothing made anywhere but in the cache."""
    about = f"artefact {found['number']}, {found['kind']}"
    assert not found["bug"], f"{about}: {found['bug']}"
    assert found["error"] is None or (found["error"].isprintable() and len(found["error"]) < 10_000), about
    assert found["seconds"] < SECONDS and not found["elsewhere"], f"{about}: {found}"
    assert found["left"] <= 100 * found["size"] + (1 << 20), f"{about}: {found}"


@pytest.mark.parametrize("kind", range(len(ATTACKS)), ids=lambda kind: ATTACKS[kind].__name__)
def test_hostile_artefacts_end_in_one_line(kind, tmp_path, monkeypatch):
    errors = 0
    for number in range(kind, 6 * len(ATTACKS), len(ATTACKS)):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.chdir(folder)
        found = attack(folder, number)
        check(found)
        errors += found["error"] is not None
        shutil.rmtree(folder)
    assert errors or ATTACKS[kind].__name__ == "lock_files"  # the attacks are attacks


def test_a_sweep_of_hostile_artefacts(sweep, tmp_path):
    if not sweep:
        pytest.skip("takes minutes: --sweep N")
    start = peak = None
    for first in range(0, sweep, PER_PROCESS):
        last = min(sweep, first + PER_PROCESS)
        done = subprocess.run([sys.executable, "-m", "tests.faults.hostile_weights", tmp_path, str(first), str(last)],
                              cwd=ROOT, capture_output=True, text=True, timeout=600)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [one["number"] for one in found] == list(range(first, last)), done.stderr[-3000:]
        for one in found:
            check(one)
        start, peak = found[0]["peak"], found[-1]["peak"]
        assert peak - start < 1 << 30, f"artefacts {first} to {last}: {peak >> 20} MiB after {start >> 20} MiB"
