"""How often the tests kill and stop runs."""
import pytest


@pytest.fixture(scope="session")
def sweep(request) -> int:
    """How often to kill or stop a run; 0 for the few times of an ordinary test run."""
    return request.config.getoption("--sweep")
