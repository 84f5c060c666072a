"""Options and fixtures of all tests. Each process simulates eight devices; a test takes as many as it needs."""
import gc
import os
import pathlib
import signal
import tempfile

import jax
import pytest

from tests.runs import Files, make_files, make_once, run, visible_devices

# Tests send these signals, which a program that is started in the background or by nohup would inherit as ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and the processes that tests start inherit these variables
    # Most of the time goes into compiling, and few programs run long enough to be worth optimizing. Without the fusion
    # emitters XLA compiles twice as fast, and with a worker for each core one LLVM module a program is enough.
    emitters = "--xla_cpu_use_fusion_emitters=false " if jax.__version_info__ < (0, 12) else ""  # unknown from 0.12 on
    os.environ["XLA_FLAGS"] = (f"{emitters}--xla_cpu_parallel_codegen_split_count=1 "
                               + os.environ.get("XLA_FLAGS", ""))
    # Threads of torch that wait for each other keep their cores busy, and the networks here are too small for two.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The workers share one folder of compiled programs. Set the variable to keep it from one call of pytest to the
    # next.
    if "SPANBERT_TEST_CACHE" not in os.environ:
        _COMPILED = tempfile.TemporaryDirectory()
        os.environ["SPANBERT_TEST_CACHE"] = _COMPILED.name
jax.config.update("jax_compilation_cache_dir", os.environ["SPANBERT_TEST_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


TESTS = pathlib.Path(__file__).parent
# `pytest -m fast` runs these files and single tests, in less than 90 seconds on two cores.
FAST = """
checkpoints/test_fingerprint.py checkpoints/test_manifest.py checkpoints/test_retention.py
commands/test_config_files.py commands/test_configs.py
corpus/test_blocks.py corpus/test_loader.py corpus/test_pairs.py corpus/test_rows.py interop/test_location.py
interop/test_torch_file.py interop/test_vocabulary.py masking/test_budgets.py masking/test_masking.py
masking/test_replacement.py masking/test_spans.py model/test_functions.py pretraining/test_objective.py
tasks/test_answers.py tasks/test_classification_metrics.py tasks/test_packing_pairs.py tasks/test_packing.py
tasks/test_question_metrics.py tasks/test_relation_metrics.py tasks/test_rouge.py test_mutations.py
text/test_sentences.py text/test_tokenizer.py training/test_durations.py training/test_optimizers.py
training/test_resuming.py training/test_schedules.py
training/test_step.py::test_losses_fall_when_rows_repeat training/test_step.py::test_tokens_are_counted_without_padding
""".split()
# The files that take longest come first, so that no worker is left with one of them at the end.
SLOW = """
planning/test_tpu.py finetuning/test_seq2seq_run.py faults/test_stops.py finetuning/test_run.py training/test_run.py
faults/test_peers.py training/test_step.py generation/test_search.py faults/test_kills.py launch/test_local.py
faults/test_elastic.py training/test_profiling.py faults/test_damage.py docs/test_examples.py training/test_zero1.py
inference/test_encoder_decoders.py inference/test_prediction.py training/test_init_from.py
""".split()


def pytest_addoption(parser):
    parser.addoption("--sweep", type=int, default=0, metavar="N",
                     help="kill and stop runs under tests/faults N times (default: a few times)")


def pytest_configure(config):
    config.addinivalue_line("markers", "fast: a selection from most areas that takes less than 90 seconds on two cores")


def pytest_ignore_collect(collection_path, config):
    # Importing the other files would take longer than running the selection.
    files = {TESTS / name.split("::")[0] for name in FAST}
    if config.option.markexpr == "fast" and collection_path.name.startswith("test_") and collection_path not in files:
        return True
    return None


def pytest_collection_modifyitems(items):
    fast, slow = ({(TESTS / file).as_posix(): place for place, file in enumerate(files)} for files in (FAST, SLOW))
    for item in items:
        if fast.keys() & {item.path.as_posix(), f"{item.path.as_posix()}::{item.originalname}"}:
            item.add_marker("fast")
    items.sort(key=lambda item: slow.get(item.path.as_posix(), len(slow)))


def pytest_collection_finish():
    # Imported libraries are many objects, and tracing makes more: collecting garbage would take a tenth of the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id) -> pathlib.Path:
    """A temporary folder of this call of pytest, the same for all workers."""
    folder = tmp_path_factory.getbasetemp()
    return folder if worker_id == "master" else folder.parent


@pytest.fixture(scope="session")
def files(shared_folder) -> Files:
    """The config and the corpus that runs in processes of their own start from."""
    return Files(make_once(shared_folder / "files", make_files))


@pytest.fixture(scope="session")
def start(shared_folder) -> str:
    """The small random model with a tokenizer that tests of tasks begin from."""
    from tests.tasks.small import make_start  # takes seconds, which few files need
    return str(make_once(shared_folder / "network", make_start) / "start")


@pytest.fixture(scope="module")
def one_device():
    """Runs of the module's tests see one device."""
    with visible_devices(1):
        yield


@pytest.fixture(scope="session")
def unbroken(files, shared_folder) -> pathlib.Path:
    """The workdir of an uninterrupted run of 20 steps with checkpoints of the steps 10 and 20."""
    return make_once(shared_folder / "unbroken", lambda workdir: run(files, workdir))


@pytest.fixture(scope="session")
def unbroken_pair(files, shared_folder) -> pathlib.Path:
    """The workdir of the same run by two processes, with traces of the steps 2 and 3, and its output in output.txt."""
    def make(workdir: pathlib.Path) -> None:
        (workdir / "output.txt").write_text(run(files, workdir, "--config.profile=2-3", processes=2))

    return make_once(shared_folder / "unbroken_pair", make)
