"""Sizes of runs that suit a corpus, a machine and a time; the config for own text."""
import types

import pytest

from spanbert_jax.commands.config_files import as_run_config, load_config
from spanbert_jax.common.errors import UserError
from spanbert_jax.planning.sizing import Machine, fit_to_corpus, this_machine

LAPTOP = Machine(accelerators=0, cores=8)
SIZES = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512), "base": (12, 768),
         "large": (24, 1024)}  # layers and width


def corpus(rows: int, length: int = 512):
    return types.SimpleNamespace(length=length, vocab_size=30_000, num_rows={"train": rows})


def needed(size: str) -> tuple[float, float]:
    """Tokens that a size should see, and operations for each: of layers, attention, and two outputs at 15%."""
    layers, width = SIZES[size]
    parameters = 12 * layers * width**2
    return 20 * parameters, 6 * parameters + 12 * layers * 512 * width + 2 * 0.15 * 6 * width * 30_000


@pytest.mark.parametrize("machine,hours,size", [(LAPTOP, 0.1, "tiny"), (LAPTOP, 10, "mini"), (LAPTOP, 50, "small"),
                                                (Machine(1, 8), 1, "medium"), (Machine(8, 64), 4, "base")])
def test_the_largest_size_is_taken_that_sees_enough_tokens_in_the_time(machine, hours, size):
    fit = fit_to_corpus(corpus(rows=10_000_000), machine, hours)
    operations = 3600 * hours * machine.flops
    enough = [name for name in SIZES if operations / needed(name)[1] >= needed(name)[0]]
    assert fit.size == size == ([*enough[-1:], "tiny"])[0]
    assert fit.steps * fit.batch_size * 512 == pytest.approx(operations / needed(size)[1], rel=0.15)


def test_a_corpus_is_seen_at_most_40_times_in_enough_steps():
    for machine in (LAPTOP, Machine(1, 8)):
        fit = fit_to_corpus(corpus(rows=280), machine, 100)
        assert fit.size == "tiny" and 39 < fit.epochs <= 40 and fit.steps >= 400
        assert fit.epochs == fit.steps * fit.batch_size / 280


def test_batches_divide_over_devices_and_parts():
    for machine in (LAPTOP, Machine(1, 8), Machine(6, 8), Machine(8, 64)):
        for length in (64, 512, 8192):
            fit = fit_to_corpus(corpus(1_000_000, length), machine, 24)
            assert fit.batch_size % (fit.accumulation * (machine.accelerators or 1)) == 0
    # Activations of base: 12 layers, [512, 768], 34 bytes a value, and 12 heads of [512, 512], 5 bytes a value.
    fit = fit_to_corpus(corpus(1_000_000), Machine(8, 64), 8)
    row = 12 * (34 * 512 * 768 + 5 * 12 * 512 * 512)
    assert fit.size == "base" and 4e9 < fit.batch_size / 8 / fit.accumulation * row <= 8e9


def test_this_machine_trains_where_jax_does():
    assert this_machine({"JAX_PLATFORMS": "cpu"}).accelerators == 0 and this_machine({}).cores >= 1


@pytest.mark.parametrize("plugin,files", [("libtpu", "dev/vfio/{}"), ("libtpu", "dev/accel{}"),
                                          ("jax_cuda12_plugin", "dev/nvidia{}")])
def test_the_accelerators_of_this_machine_are_counted(plugin, files, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name == plugin else None)
    for name in (0, 1, 10, "ctl", "vfio"):  # the last two are for the driver itself
        (tmp_path / files.format(name)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / files.format(name)).touch()
    assert this_machine({}, str(tmp_path)).accelerators == 3
    assert this_machine({"JAX_PLATFORMS": "cpu"}, str(tmp_path)).accelerators == 0


def test_the_config_for_own_text_is_sized_by_its_corpus(files, monkeypatch):
    monkeypatch.setattr("spanbert_jax.planning.sizing.this_machine", lambda: Machine(0, 2))
    config = as_run_config(load_config(f"own_text:corpus={files.corpus},hours=0.001"))
    config.validate("config")
    assert (config.data.path, config.model.size, config.model.max_positions) == (str(files.corpus), "tiny", 64)
    assert config.compute.dtype == "float32" and config.model.dropout == 0  # it sees the corpus about once
    with pytest.raises(UserError, match="corpus nowhere: no such directory; make one with"):
        load_config("own_text:corpus=nowhere")
    with pytest.raises(UserError, match=r"hours=0.0: must be above 0"):
        load_config(f"own_text:corpus={files.corpus},hours=0")
    with pytest.raises(UserError, match="other fields follow from data.path; .* as :corpus=VALUE"):
        load_config(f"own_text:corpus={files.corpus}", [f"--config.data.path={files.corpus}"])
