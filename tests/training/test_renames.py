"""Renamed config fields: old names in config files, overrides, grids and stored configs."""
import json
import logging

import pytest

from spanbert_jax import default_config
from spanbert_jax.commands.config_files import as_run_config, load_config
from spanbert_jax.common.errors import UserError
from spanbert_jax.training.config import load_values
from spanbert_jax.training.renames import RENAMED, rename_fields

# Old name -> new name and a value that is no default, as users of the first version had them.
OLD = {"model.dtype": ("compute.dtype", "float32"), "model.attention": ("compute.attention", "plain"),
       "model.layers": ("compute.layers", "scanned"), "model.remat": ("compute.remat", "names"),
       "train.gradient_dtype": ("compute.gradient_dtype", "bfloat16"), "optimizer.schedule": ("schedule.name", "wsd"),
       "optimizer.warmup": ("schedule.warmup", "7 steps"), "optimizer.decay": ("schedule.decay", "9 percent"),
       "optimizer.final_fraction": ("schedule.final_fraction", 0.25)}


@pytest.fixture(autouse=True)
def nothing_warned_yet(monkeypatch):
    monkeypatch.setattr("spanbert_jax.training.renames._warned", set())


def value_of(config, field: str):
    section, name = field.split(".")
    return getattr(getattr(config, section), name)


def test_every_old_name_is_covered():
    assert {old: new for old, (new, _) in OLD.items()} == RENAMED


@pytest.mark.parametrize("old", OLD)
def test_overrides_take_old_names_with_a_warning(old, caplog):
    new, value = OLD[old]
    with caplog.at_level(logging.WARNING, "spanbert_jax"):
        config = as_run_config(load_config("configs/quickstart.py", [f"--config.{old}={value}"]))
    assert value_of(config, new) == value
    assert caplog.messages == [f"config.{old} is now config.{new}; please use the new name"]


def test_config_files_may_set_old_names(tmp_path, caplog):
    lines = [f"    config.{old} = {value!r}" for old, (_, value) in OLD.items()]
    (tmp_path / "old.py").write_text("from spanbert_jax import default_config\n\ndef get_config():\n"
                                     "    config = default_config()\n" + "\n".join(lines) + "\n    return config\n")
    with caplog.at_level(logging.WARNING, "spanbert_jax"):
        loaded = load_config(str(tmp_path / "old.py"), ["--config.schedule.warmup=8 steps"])
    assert len(caplog.messages) == len(OLD)
    config = as_run_config(loaded)
    assert {new: value_of(config, new) for new, _ in OLD.values()} == {**dict(OLD.values()),
                                                                       "schedule.warmup": "8 steps"}


@pytest.mark.parametrize("lines", [["optimizer.warmup = '5 steps'", "schedule.warmup = '7 steps'"],
                                   ["schedule.warmup = '7 steps'", "optimizer.warmup = '5 steps'"]])
@pytest.mark.parametrize("start", ["default_config()", "default_task_config('text_classification')"])
def test_the_new_name_counts_where_a_file_sets_both(lines, start, tmp_path):
    body = "".join(f"    config.{line}\n" for line in lines)
    (tmp_path / "both.py").write_text("from spanbert_jax import default_config, default_task_config\n\n"
                                      f"def get_config():\n    config = {start}\n{body}    return config\n")
    assert as_run_config(load_config(str(tmp_path / "both.py"))).schedule.warmup == "7 steps"


def test_the_new_name_counts_where_a_stored_config_has_both():
    both = {"optimizer": {"warmup": "5 steps"}, "schedule": {"warmup": "10k steps"}}
    assert rename_fields(both, warn=False) == {"optimizer": {}, "schedule": {"warmup": "10k steps"}}


def test_configs_made_in_python_may_have_old_names(caplog):
    config = default_config()
    config.model.dtype = "float32"
    with caplog.at_level(logging.WARNING, "spanbert_jax"):
        assert as_run_config(config).compute.dtype == "float32"
    assert caplog.messages == ["config.model.dtype is now config.compute.dtype; please use the new name"]


def test_a_wrong_value_of_an_old_name_is_told_by_the_new_one(tmp_path):
    (tmp_path / "old.py").write_text("from spanbert_jax import default_config\n\ndef get_config():\n"
                                     "    config = default_config()\n    config.model.dtype = 32\n    return config\n")
    with pytest.raises(UserError, match="config.compute.dtype=32: must be of type str"):
        load_config(str(tmp_path / "old.py"))


def test_stored_configs_are_read_without_a_warning(tmp_path, caplog):
    stored = {"seed": 3, "model": {"size": "tiny", "dtype": "float32"}, "optimizer": {"schedule": "cosine"},
              "train": {}, "data": {}}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with caplog.at_level(logging.WARNING, "spanbert_jax"):
        values = load_values(tmp_path)
    assert values == {"seed": 3, "model": {"size": "tiny"}, "optimizer": {}, "compute": {"dtype": "float32"},
                      "schedule": {"name": "cosine"}, "train": {}, "data": {}}
    assert not caplog.messages


def test_a_name_is_warned_of_once(caplog):
    with caplog.at_level(logging.WARNING, "spanbert_jax"):
        for _ in range(3):
            load_config("configs/quickstart.py", ["--config.model.dtype=float32"])
    assert len(caplog.messages) == 1


def test_other_fields_stay_as_they_are():
    assert rename_fields({"model": {"width": 8}, "seed": 1, "schedule": {"name": "wsd"}}) == {
        "model": {"width": 8}, "seed": 1, "schedule": {"name": "wsd"}}
