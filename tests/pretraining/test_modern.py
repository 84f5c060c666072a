"""Small runs of configs/modern.py."""
import json

import pytest

from spanbert_jax import load_config, train
from spanbert_jax.common.errors import UserError
from spanbert_jax.pretraining.config import as_pretraining_config
from spanbert_jax.training.init_from import with_architecture
from tests.runs import ROOT, final_state

SMALL = ("--config.model.num_layers=2", "--config.model.width=64", "--config.model.num_heads=2",
         "--config.compute.layers=scanned", "--config.train.log_every=1", "--config.checkpoint.every=3 steps",
         "--config.evaluation.every=0", "--config.trackers=()")


def modern(files, variant: str, *overrides: str):
    return load_config(f"{ROOT / 'configs' / 'modern.py'}:small=true,{variant}",
                       [f"--config.data.path={files.corpus}", *SMALL, *overrides])


@pytest.fixture(scope="module")
def short(files, tmp_path_factory):
    """The workdir of a first phase, whose batch grows."""
    workdir = tmp_path_factory.mktemp("short")
    overrides = ("--config.train.batch_size=32", "--config.train.accumulation=4", "--config.train.batch_warmup=3 steps",
                 "--config.train.duration=5 steps")
    train(modern(files, "optimizer=muon", *overrides), workdir)
    return workdir


def test_the_batch_grows_and_muon_updates_kernels(short):
    rows = [8, 16, 24, 32, 32]  # of at most 64 tokens
    tokens = [line["tokens"] for line in map(json.loads, open(short / "metrics.jsonl")) if line["kind"] == "train"]
    assert all(32 * size < count <= 64 * size for size, count in zip(rows, tokens, strict=True))
    state = final_state(short)
    momentum = [name for name in state if "muon" in name and "'mu'" in name]
    assert any("['feed_forward_in']['kernel']" in name for name in momentum) and "kernel" in momentum[0]
    assert not any("bias" in name or "embedding" in name for name in momentum)


@pytest.mark.parametrize("asked,base", [(160_000.0, 160_000.0), (0.0, 10_000.0), (5e5, 5e5)])
def test_a_longer_phase_has_its_own_positions_and_rotary_base(files, short, tmp_path, asked, base):
    config = modern(files, "phase=long", f"--config.init_from={short}", f"--config.model.global_rotary_base={asked}",
                    "--config.model.num_layers=0", "--config.model.width=0", "--config.model.num_heads=0")
    model = with_architecture(as_pretraining_config(config), tmp_path).model
    assert (model.max_positions, model.num_layers, model.width) == (4096, 2, 64)
    assert (model.global_rotary_base, model.local_rotary_base) == (base, 10_000.0)


def test_heads_of_an_odd_width_are_refused(files):
    config = modern(files, "", "--config.model.width=60", "--config.model.num_heads=4")
    with pytest.raises(UserError, match="num_heads=4: 4 heads do not divide the width 60 into even widths"):
        as_pretraining_config(config).validate("config")
