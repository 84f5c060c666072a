"""Uninterrupted runs, to compare interrupted ones with."""
import pathlib

import pytest

from tests.runs import PAIR, make_once, run


@pytest.fixture(scope="session")
def unbroken(files, shared_folder) -> pathlib.Path:
    """The workdir of an uninterrupted run."""
    return make_once(shared_folder / "unbroken", lambda workdir: run(files, workdir))


@pytest.fixture(scope="session")
def unbroken_pair(files, shared_folder) -> pathlib.Path:
    """The workdir of an uninterrupted run of two processes."""
    return make_once(shared_folder / "unbroken_pair", lambda workdir: run(files, workdir, *PAIR, processes=2))


@pytest.fixture
def sweep(request) -> int:
    """How often to kill or stop a run; 0 for the few times of an ordinary test run."""
    return request.config.getoption("--sweep")
