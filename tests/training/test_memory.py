"""Memory of a train step: checked before the first step; a device that runs out of it is reported."""
import types

import jax
import pytest

import spanbert_jax
from spanbert_jax.common.errors import UserError
from spanbert_jax.planning.hardware import parse_topology
from spanbert_jax.pretraining.config import PretrainingConfig
from spanbert_jax.training import host_memory, memory
from spanbert_jax.training.config import TrainSettings


def program(temporary: float, arguments: float = 0, output: float = 0, donated: float = 0):
    """A compiled program that states these bytes."""
    analysis = types.SimpleNamespace(temp_size_in_bytes=temporary, argument_size_in_bytes=arguments,
                                     output_size_in_bytes=output, alias_size_in_bytes=donated)
    return types.SimpleNamespace(memory_analysis=lambda: analysis)


def check(compiled, free, batch_size: int = 64, accumulation: int = 1, ways: int = 1) -> str:
    """The message; "" if the program fits."""
    train = TrainSettings(batch_size=batch_size, accumulation=accumulation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "free_memory", lambda: free)
        try:
            memory.check_memory(compiled, PretrainingConfig(train=train), ways)
        except UserError as error:
            return str(error)
    return ""


def test_a_step_that_fits_is_not_refused():
    assert not check(program(8e9), free=8e9)
    assert not check(program(8e9, arguments=3e9, output=3e9, donated=3e9), free=8e9)  # the state is in memory already
    assert not check(program(8e9), free=None)  # not known


def test_a_step_that_does_not_fit_is_refused_with_the_parts_in_which_it_does():
    told = check(program(64e9), free=8e9)
    assert told == ("config.train.batch_size=64: a step needs 64 GB of memory, and 8 GB are free; set "
                    "train.accumulation=8, which computes the same step in parts, or a smaller train.batch_size or "
                    "model.size")
    # Gradients need 1 GB, however many parts there are; 56 rows have no 5 parts.
    assert "train.accumulation=7," in check(program(33e9, arguments=1e9), free=7.4e9, batch_size=56)
    assert "train.accumulation=16," in check(program(32e9), free=4e9, accumulation=2)
    assert "no train.accumulation helps" in check(program(64e9), free=8e9, ways=16)  # 4 rows a device
    assert "no train.accumulation helps" in check(program(9e9, arguments=8e9), free=8e9)


@pytest.mark.parametrize("files,free", [
    ({"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    7 kB\n"}, 7168),
    ({"/proc/meminfo": "MemAvailable: 7 kB\n", "/sys/fs/cgroup/memory.max": "max\n"}, 7168),
    ({"/proc/meminfo": "MemAvailable: 7 kB\n", "/sys/fs/cgroup/memory.max": "5000\n",
      "/sys/fs/cgroup/memory.current": "4000\n", "/sys/fs/cgroup/memory.stat": "anon 9\ninactive_file 300\n"}, 1300),
    ({"/proc/meminfo": "MemAvailable: 7 kB\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n",
      "/sys/fs/cgroup/memory/memory.usage_in_bytes": "4000\n",
      "/sys/fs/cgroup/memory/memory.stat": "inactive_file 2\ntotal_inactive_file 500\n"}, 1500)])
def test_memory_of_the_host_is_limited_by_its_container(files, free, monkeypatch):
    monkeypatch.setattr(host_memory, "_read", lambda path: files.get(path, ""))
    devices = jax.local_device_count()
    assert memory.free_memory() == parse_topology(f"cpu:{devices}").memory == free / devices  # what `plan` says too
    monkeypatch.setattr(host_memory, "_read", lambda path: "")
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    assert memory.free_memory() == 1000 * 4096 / devices  # all of it


def out_of_memory() -> float:
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1845930742912 bytes.\nMore.")


@pytest.mark.parametrize("free_memory,told", [
    (lambda: -1.0, "a step needs .* of memory, and .* are free; no train.accumulation helps"),
    (out_of_memory, "the device ran out of memory .RESOURCE_EXHAUSTED: Out of memory allocating 1845930742912 bytes. "
     "More.*train.accumulation than 1")])
def test_a_run_without_enough_memory_is_refused_before_its_first_step(free_memory, told, files, tmp_path, monkeypatch):
    # The step computes nothing, so that it compiles at once; its state is never needed.
    monkeypatch.setattr("spanbert_jax.training.run.create_state", lambda model, optimizer, abstract, seed: abstract)
    monkeypatch.setattr("spanbert_jax.training.loop.make_train_step",
                        lambda *_: jax.jit(lambda state, batch, stop: (state, {}, stop), donate_argnums=0))
    monkeypatch.setattr(memory, "free_memory", free_memory)
    config = spanbert_jax.load_config(str(files.folder / "config.py"), [f"--config.data.path={files.corpus}"])
    with pytest.raises(UserError, match=f"config.train.batch_size=8: {told}") as error:
        spanbert_jax.train(config, tmp_path)
    assert "\n" not in str(error.value) and not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_other_errors_of_the_device_are_not_explained():
    with pytest.raises(jax.errors.JaxRuntimeError), memory.explained_in_training(PretrainingConfig()):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")
