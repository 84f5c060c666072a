"""The command `config`: fields, values, help, what differs from the defaults; the reference page of all fields."""
import json
import pathlib
import subprocess
import sys

import pytest

from spanbert_jax.commands.main import main
from spanbert_jax.docs import FOLDER

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def shown(capsys, *arguments: str) -> str:
    assert main(["config", *arguments]) == 0
    return capsys.readouterr().out


def test_fields_are_shown_section_by_section_with_what_differs(capsys):
    lines = shown(capsys, str(CONFIGS / "base.py"), "--config.optimizer.eps=1e-6").splitlines()
    assert max(map(len, lines)) <= 100
    assert "* optimizer.learning_rate = 0.0005  (default: 0.0001)" in lines
    assert "* optimizer.eps = 1e-06  (default: 1e-08)" in lines and "  optimizer.b1 = 0.9" in lines
    where = {line.partition(":")[0]: number for number, line in enumerate(lines) if line and line[0] not in " *"}
    assert list(where) == ["config", "model", "compute", "optimizer", "schedule", "train", "evaluation", "checkpoint",
                           "skip", "mesh", "data", "masking", "objectives"]
    assert where["optimizer"] < lines.index("  optimizer.b1 = 0.9") < where["schedule"]
    at = lines.index("  compute.dtype = 'bfloat16'")
    assert "Allowed are 'bfloat16', 'float32'." in " ".join(line.strip() for line in lines[at + 1:at + 3])


def test_lines_fit_a_narrow_terminal_and_long_values_stay_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    path = "/data/" + "a-long-name/" * 9
    lines = shown(capsys, str(CONFIGS / "base.py"), f"--config.data.path={path}").splitlines()
    assert max(len(line) for line in lines if path not in line) <= 60
    assert any(repr(path) in line for line in lines)


def test_a_task_is_compared_with_its_own_defaults(capsys):
    lines = shown(capsys, str(CONFIGS / "squad.py"), "--config.task.train=train.json").splitlines()
    assert "  optimizer.learning_rate = 2e-05" in lines and "* task.train = 'train.json'  (default: '')" in lines
    assert any(line.startswith("* task.max_answer_length = 30") for line in lines)
    assert "  task.stride = 128" in lines


def test_json_has_value_default_help_and_allowed_values(capsys):
    found = json.loads(shown(capsys, str(CONFIGS / "base.py"), "--json"))
    assert found["optimizer"]["learning_rate"] == {
        "value": 5e-4, "default": 1e-4, "changed": True, "help": "Peak learning rate.", "allowed": "Must be above 0.",
        "note": ""}
    assert found["config"]["seed"]["changed"] is False and found["mesh"]["rules"]["value"][0] == ["batch",
                                                                                                  ["data", "fsdp"]]


def test_without_a_file_all_fields_are_listed(capsys):
    text = shown(capsys)
    assert "  train.batch_size = 256  (in fine-tuning 32)" in text and "task: translation" in text
    assert "\n* " not in text


@pytest.mark.parametrize("arguments,message", [
    (["--config.seed=1"], "--config.seed=1: overrides a field of a config file; name the file first"),
    ([str(CONFIGS / "base.py"), "--markdown"], "--markdown describes the fields of every config"),
    (["nothing.py"], "no such file nothing.py"), ([str(CONFIGS / "base.py"), "--config.sed=1"], "did you mean 'seed'")])
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(["config", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_config_that_train_would_refuse_is_shown_with_the_reason(capsys):
    quickstart = str(CONFIGS / "quickstart.py")
    assert main(["config", quickstart, "--config.masking.scheme=nosuch"]) == 0
    shown, error = capsys.readouterr()
    assert "* masking.scheme = 'nosuch'" in shown
    assert "would refuse this config: config.masking.scheme='nosuch'" in error
    assert main(["config", quickstart]) == 0 and not capsys.readouterr().err


def test_the_reference_page_is_up_to_date():
    page = (FOLDER / "config.md").read_text(encoding="utf-8")
    # In a process of its own, in which no other test has registered anything.
    made = subprocess.run([sys.executable, "-m", "spanbert_jax", "config", "--markdown"], capture_output=True,
                          text=True)
    assert page == made.stdout, "run: spanbert-jax config --markdown > spanbert_jax/docs/config.md"
    for field in ("seed", "data.short_sequence_probability", "compute.gradient_dtype", "masking.span_upper",
                  "task.glue"):
        assert page.count(f"| `{field}` |") == 1
