"""Static checks of the package, the configs and launch/: ruff for lint and import order, mypy for types."""
import configparser
import pathlib
import re
import subprocess
import sys

import pytest

import spanbert_jax
from tests.runs import ROOT


def test_ruff_finds_nothing():
    ruff = _run("ruff", "check", "--no-cache", "--output-format=concise", "--quiet", ".")
    assert not ruff, ruff


SNIPPET = "snippet.py"


@pytest.fixture(scope="module")
def mypy_lines(pytestconfig, tmp_path_factory) -> list[str]:
    """What mypy prints about all files and a snippet that uses each public name."""
    snippet = tmp_path_factory.mktemp("types") / SNIPPET
    snippet.write_text("import spanbert_jax\nspanbert_jax.train(no_such_argument=1)\n"
                       + "".join(f"reveal_type(spanbert_jax.{name})\n" for name in spanbert_jax.__all__))
    config = configparser.ConfigParser()
    config.read(ROOT / ".mypy.ini")
    # pytest's own cache folder, so that only the first call on a machine checks every file.
    return _run("mypy", f"--cache-dir={pytestconfig.cache.mkdir('mypy')}", "--no-error-summary",
                *config["mypy"]["files"].split(", "), str(snippet)).splitlines()


def test_mypy_finds_nothing(mypy_lines):
    found = [line for line in mypy_lines if SNIPPET not in line]
    assert not found, "\n".join(found)


def test_public_names_keep_their_types(mypy_lines):
    names, output = spanbert_jax.__all__, "\n".join(mypy_lines)
    assert 'Unexpected keyword argument "no_such_argument" for "train"' in output
    types = re.findall(r'Revealed type is "(.*)"', output)
    assert len(types) == len(names)
    for name, revealed in zip(names, types):
        assert revealed.startswith("def "), f"{name}: {revealed}"


def test_public_names_are_those_for_type_checkers():
    source = pathlib.Path(spanbert_jax.__file__).read_text()
    typed = re.findall(r"^    from (\S+) import (.+)$", source, re.MULTILINE)
    assert {name: module for module, names in typed for name in names.split(", ")} == spanbert_jax._PUBLIC


def test_package_is_marked_as_typed():
    assert (pathlib.Path(spanbert_jax.__file__).parent / "py.typed").exists()


def _run(module: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr
