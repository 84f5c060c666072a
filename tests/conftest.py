"""Eight simulated devices for every test of this process; a test takes as many of them as it needs."""
import os
import tempfile

import jax
import pytest

from tests.runs import Files, make_files

# Compiling is most of what the tests do, and few programs run long enough to be worth optimising.
jax.config.update("jax_disable_most_optimizations", True)
# With SPANBERT_TEST_CACHE compiled programs are kept in that folder from one call of pytest to the next.
_COMPILED = tempfile.TemporaryDirectory()
jax.config.update("jax_compilation_cache_dir", os.environ.get("SPANBERT_TEST_CACHE") or _COMPILED.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


def pytest_addoption(parser):
    parser.addoption("--sweep", type=int, default=0, metavar="N",
                     help="kill and stop runs under tests/faults N times instead of the few that suffice every day")


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Files:
    """What runs in processes of their own start from."""
    return make_files(tmp_path_factory.mktemp("files"))
