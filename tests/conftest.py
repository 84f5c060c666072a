"""Options and fixtures of all tests. Each process simulates eight devices; a test takes as many as it needs."""
import os
import pathlib
import tempfile

import jax
import pytest

from tests.runs import Files, make_files, make_once

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and the processes that tests start inherit these variables
    # Most of the time goes into compiling, and few programs run long enough to be worth optimizing. Without the fusion
    # emitters XLA compiles twice as fast, and with a worker for each core one LLVM module a program is enough.
    os.environ["XLA_FLAGS"] = ("--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
                               + os.environ.get("XLA_FLAGS", ""))
    # The workers share one folder of compiled programs. Set the variable to keep it from one call of pytest to the next.
    if "SPANBERT_TEST_CACHE" not in os.environ:
        _COMPILED = tempfile.TemporaryDirectory()
        os.environ["SPANBERT_TEST_CACHE"] = _COMPILED.name
jax.config.update("jax_compilation_cache_dir", os.environ["SPANBERT_TEST_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


def pytest_addoption(parser):
    parser.addoption("--sweep", type=int, default=0, metavar="N",
                     help="kill and stop runs under tests/faults N times (default: a few times)")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id) -> pathlib.Path:
    """A temporary folder of this call of pytest, the same for all workers."""
    folder = tmp_path_factory.getbasetemp()
    return folder if worker_id == "master" else folder.parent


@pytest.fixture(scope="session")
def files(shared_folder) -> Files:
    """The config and the corpus that runs in processes of their own start from."""
    return Files(make_once(shared_folder / "files", make_files))
