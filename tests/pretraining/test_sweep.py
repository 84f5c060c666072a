"""Sweeps over pretraining runs, without training."""
import json
import types

import pytest

from spanbert_jax.commands.config_files import with_overrides
from spanbert_jax.commands.sweep import table_of
from spanbert_jax.pretraining import sweep as module
from spanbert_jax.pretraining.config import default_config
from spanbert_jax.training.config import save_config

LOSSES = {"geometric": 4.0, "token": 5.0, "whole_word": 3.0}


@pytest.fixture
def calls(monkeypatch):
    """Replaces preparation, training and evaluation; returns the calls."""
    done = types.SimpleNamespace(prepared=[], trained=[], evaluated=[])

    def train(config, workdir):
        workdir.mkdir(parents=True)
        save_config(workdir, config)
        done.trained.append((config.masking.scheme, config.seed, config.data.path, config.data.sources))
        return types.SimpleNamespace(finished=True)

    def evaluate(workdir, settings):
        done.evaluated.append(settings)
        scheme = json.loads((workdir / "config.json").read_text())["masking"]["scheme"]
        masking = {name.removeprefix("masking."): value for name, value in settings.items()}
        return {"step": 7, "rows": 1234, "masking": masking, "masked_loss": LOSSES[scheme]}

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "evaluate", evaluate)
    monkeypatch.setattr(module, "find_corpus", lambda config, folder: done.prepared.append(config.data.sources))
    return done


def test_schemes_are_compared_under_the_masking_of_the_config(calls, tmp_path):
    config = default_config()
    config.masking.rate, config.data.sources, config.data.vocab_size = 0.2, ("texts",), 500

    def sweep():
        return module.sweep(lambda overrides: with_overrides(config, overrides),
                            {"masking.scheme": ["token", "whole_word"]}, [0, 1], tmp_path, lambda line: None)

    rows = sweep()
    assert [row.settings["masking.scheme"] for row in rows] == ["whole_word", "token"]  # the lower loss first
    assert rows[0].scores == {"dev": [3.0, 3.0]}
    data = str(tmp_path / "data")  # prepared once, with the seed of the config
    assert calls.trained == [(scheme, seed, data, ()) for scheme in ("token", "whole_word") for seed in (0, 1)]
    assert set(calls.prepared) == {("texts",)}
    assert all(settings["masking.scheme"] == "geometric" and settings["masking.rate"] == 0.2
               and "masking.max_span_positions" not in settings for settings in calls.evaluated)
    evaluated = json.loads((tmp_path / "sweep.json").read_text())["evaluated"]
    table = table_of(rows, 2, "masked_loss", evaluated)
    assert [list(column.cells) for column in table.columns][1] == ["3.000 ± 0.000", "5.000 ± 0.000"]
    assert table.title == "masked_loss, 2 seeds; 1,234 held-out rows, masking scheme=geometric, rate=0.2"
    assert sweep() == rows and len(calls.trained) == 4  # finished runs do not run again
