"""The Dockerfiles, parsed by Docker's own parser. No image is built here."""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted(path.name for path in (ROOT / "launch").glob("Dockerfile.*"))
dockerfile = pytest.importorskip("dockerfile", reason="needs Docker's parser of Dockerfiles (extra dev)")


def instructions(name):
    """The instructions of a file as (name, words), in order."""
    return [(step.cmd, step.value) for step in dockerfile.parse_file(str(ROOT / "launch" / name))]


def entrypoint(name):
    step, = [step for step in dockerfile.parse_file(str(ROOT / "launch" / name)) if step.cmd == "ENTRYPOINT"]
    assert step.json, "else a shell takes it to pieces"
    return step.value


def test_each_accelerator_has_a_dockerfile():
    assert FILES == ["Dockerfile.cpu", "Dockerfile.gpu", "Dockerfile.tpu"]


@pytest.mark.parametrize("name", FILES)
def test_instructions_are_known_and_in_an_order_that_builds(name):
    steps = instructions(name)
    assert {word for word, _ in steps} <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "ENTRYPOINT", "CMD"}
    assert steps[0] == ("FROM", ("python:3.12-slim",))
    order = [word for word, _ in steps]
    assert order.index("USER") > max(at for at, word in enumerate(order) if word == "RUN"), "installs as root"
    (user,), = [words for word, words in steps if word == "USER"]
    assert ("RUN", (f"useradd --create-home --uid 1000 {user}",)) in steps
    for word, words in steps:
        if word == "RUN":
            assert words[0].count("pip install") == words[0].count("--no-cache-dir")
        if word == "COPY":
            assert all((ROOT / source).exists() for source in words[:-1])


def test_extras_are_those_of_the_package():
    setup = (ROOT / "setup.py").read_text()
    for name in ("gpu", "tpu"):
        assert f"'.[{name}]'" in (ROOT / "launch" / f"Dockerfile.{name}").read_text() and f'"{name}": ["jax[' in setup


@pytest.mark.parametrize("name,variable", [("Dockerfile.cpu", ""), ("Dockerfile.gpu", "XLA_FLAGS"),
                                           ("Dockerfile.tpu", "LIBTPU_INIT_ARGS")])
def test_the_entry_point_passes_arguments_and_sets_flags(name, variable, tmp_path):
    program = tmp_path / "spanbert-jax"
    program.write_text(f'#!/bin/bash\nprintf "%s\\n" "$PPID" "${{{variable or "NONE"}:-}}" "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "XLA_FLAGS": "", "LIBTPU_INIT_ARGS": ""}
    done = subprocess.run([*entrypoint(name), "train", "--config=it's a $HOME"], cwd=ROOT, env=environment,
                          capture_output=True, text=True)
    parent, flags, *arguments = done.stdout.splitlines()
    assert arguments == ["train", "--config=it's a $HOME"] and done.returncode == 0
    assert int(parent) == os.getpid(), "no shell stands between: signals reach the run"
    assert ("--xla_" in flags) == bool(variable)


def test_unneeded_files_are_not_in_the_image():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", "tests", "runs", "logs"} <= set(ignored)
    assert not {"launch", "configs", "spanbert_jax", "setup.py", "README.md"} & set(ignored)
