"""Sweeps over seeds and grids: each runs once, can be stopped and continued, and gives a correct table."""
import json
import statistics

import pytest

from spanbert_jax.commands.main import main
from spanbert_jax.common.errors import UserError
from spanbert_jax.finetuning import sweep as module
from spanbert_jax.finetuning.sweep import sweep
from spanbert_jax.training.sweep import Row
from tests.tasks.small import texts, write

pytestmark = pytest.mark.usefixtures("one_device")

CONFIG = '''
from tests.tasks.small import small_config

def get_config():
    config = small_config("text_classification", {start!r}, {train!r}, dev_fraction=0.2, test_fraction=0.2)
    config.train.duration, config.evaluation.every = "4 steps", "2 steps"
    config.evaluation.batch_size = config.train.batch_size = 8
    return config
'''


@pytest.fixture(scope="module")
def config_file(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    train = write(folder / "train.jsonl", texts(60))
    (folder / "config.py").write_text(CONFIG.format(start=start, train=train))
    return str(folder / "config.py")


def test_a_grid_with_seeds_runs_once_and_prints_a_table(config_file, tmp_path, capsys, monkeypatch):
    command = ["sweep", "--config", config_file, "--workdir", str(tmp_path), "--seeds", "2",
               "--grid", "optimizer.learning_rate=1e-3,5e-3"]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "accuracy in percent, 2 seeds" in table
    stored = json.loads((tmp_path / "sweep.json").read_text())
    assert stored["metric"] == "accuracy" and stored["seeds"] == [0, 1] and len(stored["rows"]) == 2
    means = []
    for row in stored["rows"]:
        runs = [tmp_path / f"optimizer.learning_rate={row['settings']['optimizer.learning_rate']},seed={seed}"
                for seed in (0, 1)]
        results = [json.loads((run / "results.json").read_text()) for run in runs]
        assert row["scores"] == {part: [result[part]["accuracy"] for result in results] for part in ("dev", "test")}
        mean, deviation = statistics.mean(row["scores"]["dev"]), statistics.stdev(row["scores"]["dev"])
        assert f"{mean:.2f} ± {deviation:.2f}" in table
        means.append(mean)
        assert all((run / "model" / "task.json").is_file() and not (run / "checkpoints").exists() for run in runs)
    assert means == sorted(means, reverse=True)
    # Seeds change the run and not what is held back.
    ids = [[json.loads(line)["id"] for line in (run / "predictions" / "dev" / "predictions.jsonl").open()]
           for run in tmp_path.iterdir() if run.is_dir()]
    assert len(ids) == 4 and all(one == ids[0] for one in ids)
    monkeypatch.setattr(module, "finetune", None)  # is not called again
    assert main(command) == 0 and capsys.readouterr().out == table


def test_a_stopped_sweep_continues(config_file, tmp_path, monkeypatch):
    from spanbert_jax.commands.config_files import load_config
    real, done = module.finetune, []

    def stopping(config, workdir):
        done.append(workdir.name)
        return real(config, workdir) if len(done) != 2 else type("Stopped", (), {"finished": False})

    monkeypatch.setattr(module, "finetune", stopping)

    def make_config(overrides):
        return load_config(config_file, overrides)

    said = []
    assert sweep(make_config, {}, [0, 1], tmp_path, said.append) is None and done == ["seed=0", "seed=1"]
    row, = sweep(make_config, {}, [0, 1], tmp_path, said.append)
    assert done[2:] == ["seed=1"] and len(row.scores["dev"]) == 2 and said[-1] == "Run 2 of 2: seed=1"
    with pytest.raises(UserError, match="seed=0: finished with another config .*train"):
        sweep(lambda overrides: make_config([*overrides, "--config.train.log_every=2"]), {}, [0], tmp_path)


def test_mistakes_are_rejected_before_any_run(config_file, tmp_path, capsys):
    command = ["sweep", "--config", config_file, "--workdir", str(tmp_path / "new")]
    assert main([*command, "--grid", "optimizer.learning_rate=1e-3,-1"]) == 2
    assert "config.optimizer.learning_rate=-1.0" in capsys.readouterr().err
    assert main([*command, "--grid", "optimizer.rate=1"]) == 2
    assert "has no field 'rate'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_failed_setting_does_not_stop_the_others(config_file, tmp_path, capsys):
    command = ["sweep", "--config", config_file, "--workdir", str(tmp_path),
               "--grid", "optimizer.learning_rate=1e-3,1e35"]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "failed: step 1: not finite" in table and "(1 failed)" in table
    rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert [row["settings"]["optimizer.learning_rate"] for row in rows] == ["1e-3", "1e35"]
    assert rows[1]["scores"] == {"dev": [], "test": []}


@pytest.mark.parametrize("grid", [["optimizer.learning_rate=1e-3", "optimizer.learning_rate=1e-4"], ["seed=1,2"],
                                  ["optimizer.warmup=1 steps", "schedule.warmup=2 steps"]])
def test_fields_occur_once_and_seeds_have_their_own_flag(grid, config_file, tmp_path, capsys):
    flags = [word for one in grid for word in ("--grid", one)]
    assert main(["sweep", "--config", config_file, "--workdir", str(tmp_path), *flags]) == 2
    assert "give each field once" in capsys.readouterr().err


def test_mean_and_deviation():
    row = Row({}, {"dev": [70.0, 72.0, 77.0], "test": [50.0]})
    assert row.mean("dev") == 73 and row.deviation("dev") == pytest.approx(13 ** 0.5) and row.deviation("test") is None


