"""Unbroken runs, to compare broken ones with."""
import pathlib

import pytest

from tests.runs import run


@pytest.fixture(scope="session")
def unbroken(files, tmp_path_factory) -> pathlib.Path:
    """The workdir of a run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("unbroken")
    run(files, workdir)
    return workdir


@pytest.fixture(scope="session")
def unbroken_pair(files, tmp_path_factory) -> pathlib.Path:
    """The workdir of a run of two processes that nothing happened to."""
    workdir = tmp_path_factory.mktemp("pair")
    run(files, workdir, processes=2)
    return workdir


@pytest.fixture
def sweep(request) -> int:
    """How often to kill or to stop a run; 0 for the few times that suffice every day."""
    return request.config.getoption("--sweep")
