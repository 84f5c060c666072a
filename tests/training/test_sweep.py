"""Where the runs of a sweep lie: each in one folder below the sweep's, whatever the values are."""
import dataclasses
import json
import os
import types

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import Settings
from spanbert_jax.training.sweep import Sweep


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    model: str = ""


def sweep(workdir, values, tidy=lambda workdir: None):
    """Runs a grid of one field; returns the workdirs of its runs."""
    used = []

    def run(config, workdir):
        used.append(workdir)
        workdir.mkdir(parents=True)
        (workdir / "results.json").write_text(json.dumps({"step": 1, "dev": {"loss": 1.0}}))
        return True

    of_kind = Sweep(lambda overrides: Config(), lambda workdir: Config(), run, lambda config: "loss", tidy=tidy)
    of_kind(lambda overrides: types.SimpleNamespace(overrides=overrides), {"init_from": values}, [0], workdir,
            lambda line: None)
    return used


@pytest.mark.parametrize("value", ["../outside", "../../outside", "/etc/passwd", "..", "a/../../../b", "a\0b",
                                   "x" * 300, "é" * 200, os.fsdecode(b"\xff/\xfe"), "%2F", "models/base"])
def test_each_run_has_one_folder_below_the_workdir(value, tmp_path):
    workdir = tmp_path / "in" / "sweep"
    workdir.mkdir(parents=True)
    found, = sweep(workdir, [value])
    assert found.parent == workdir and len(os.fsencode(found.name)) <= 240
    assert os.listdir(tmp_path) == ["in"] and os.listdir(tmp_path / "in") == ["sweep"]
    assert not sweep(workdir, [value])  # finished before


def test_different_values_have_different_folders(tmp_path):
    values = ["a/b", "a%2Fb", "a%252Fb", "ab", "x" * 300, "x" * 301]
    assert len(set(sweep(tmp_path, values))) == len(values)


def test_links_out_of_the_workdir_are_not_followed(tmp_path):
    workdir, precious = tmp_path / "sweep", tmp_path / "precious"
    workdir.mkdir()
    precious.mkdir()
    (workdir / "init_from=a").symlink_to(precious)
    found, = sweep(workdir, ["a/b"])
    assert found == workdir / "init_from=a%2Fb,seed=0"
    (workdir / "init_from=c,seed=0").symlink_to(precious)
    with pytest.raises(UserError, match="seed=0: is a link"):
        sweep(workdir, ["c"])
    assert not list(precious.iterdir())


def test_plain_values_are_readable_and_folders_of_earlier_versions_are_used(tmp_path):
    found, = sweep(tmp_path, ["1e-5"])
    assert found == tmp_path / "init_from=1e-5,seed=0"
    earlier = tmp_path / "init_from=models/base,seed=0"
    earlier.mkdir(parents=True)
    (earlier / "results.json").write_text(json.dumps({"step": 1, "dev": {"loss": 1.0}}))
    assert not sweep(tmp_path, ["models/base"])
