"""Asking compilers: what is kept, and what is told when there is none, when it dies or does not like the config."""
import json
import subprocess

import pytest

from spanbert_jax.commands.main import main
from spanbert_jax.common.errors import UserError
from spanbert_jax.planning import asking
from spanbert_jax.planning.hardware import parse_topology

CPU = parse_topology("cpu:1")


@pytest.fixture
def child(monkeypatch, tmp_path):
    """Stands in for the process that compiles; it answers or dies as told, and its calls are counted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    state = {"calls": 0, "answer": {"cycles": {}}, "stderr": ""}

    def run(command, **_):
        state["calls"] += 1
        if state["answer"] is not None:
            with open(command[-1], "w", encoding="utf-8") as file:
                json.dump(state["answer"], file)
        return subprocess.CompletedProcess(command, -6, "", state["stderr"])

    monkeypatch.setattr(asking.subprocess, "run", run)
    return state


def test_an_answer_is_kept_until_the_question_or_the_code_changes(child, monkeypatch):
    for _ in range(2):
        assert asking.ask(CPU, {"x": 1}) == {"cycles": {}}
    assert child["calls"] == 1
    asking.ask(CPU, {"x": 2})
    assert child["calls"] == 2
    monkeypatch.setattr(asking, "_code", lambda: "of another version")
    asking.ask(CPU, {"x": 1})
    assert child["calls"] == 3


def test_a_mistake_is_told_and_not_kept(child):
    child["answer"] = {"error": "config.mesh: no"}
    for _ in range(2):
        with pytest.raises(UserError, match="config.mesh: no"):
            asking.ask(CPU, {})
    assert child["calls"] == 2


def test_a_compiler_that_dies_is_told_of_with_its_reason(child):
    child |= {"answer": None, "stderr": "F0000 x.cc:1] Check failed: bounds.x <= 16 (32 vs. 16)\n*** stack\n  @ 0x7f\n"}
    with pytest.raises(UserError) as error:
        asking.ask(CPU, {})
    assert "cpu:1: the compiler ended with status -6" in str(error.value)
    assert "Check failed: bounds.x" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("topology,how", [("v5e:2x2", r"pip install 'jax\[tpu\]'"), ("h100:8", "jax-cuda12-plugin==")])
def test_without_its_compiler_one_line_says_how_to_install_it(topology, how, monkeypatch, capsys):
    monkeypatch.setattr(asking.importlib.util, "find_spec", lambda name: None)
    assert main(["plan", "--config", "configs/base.py", "--topology", topology]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"topology {topology}: its compiler is not installed; pip" in said
    assert how.replace("\\", "") in said


def test_a_cpu_is_planned_for_and_says_what_it_would_take(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = ["plan", "--config", "configs/quickstart.py", "--config.data.length=32", "--config.train.batch_size=4",
               "--config.model.layers=scanned"]
    assert main([*command, "--topology", "cpu:2"]) == 0
    said = capsys.readouterr().out
    assert "cpu:2: 2 devices" in said and "4 rows of 32 tokens a step, 2 a device at a time" in said
    assert "all-reduce over 2" in said
    assert main([*command, "--topology", "cpu:3"]) == 2
    assert "4 rows do not divide over the 3 devices" in capsys.readouterr().err
    assert main([*command, "--topology", "cpu:2", "--config.evaluation.batch_size=7"]) == 2
    assert "config.evaluation.batch_size: 7 rows do not divide over the 2 devices" in capsys.readouterr().err
    assert main([*command, "--topology", "cpu:2", "--config.train.duration=2 epochs"]) == 2
    assert "config.train.duration='2 epochs': how long an epoch is cannot be known" in capsys.readouterr().err
