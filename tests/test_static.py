"""Static checks of the package, the configs and launch/: ruff for lint and import order, mypy for types."""
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


@pytest.fixture(scope="module")
def mypy_cache(pytestconfig) -> pathlib.Path:
    """pytest's own cache folder, so that only the first call on a machine checks every file."""
    return pytestconfig.cache.mkdir("mypy")


def test_mypy_finds_nothing(mypy_cache):
    mypy = _run("mypy", f"--cache-dir={mypy_cache}", "--no-error-summary")
    assert not mypy, mypy


def test_public_names_keep_their_types(mypy_cache, tmp_path):
    names = spanbert_jax.__all__
    snippet = tmp_path / "snippet.py"
    snippet.write_text("import spanbert_jax\nspanbert_jax.train(no_such_argument=1)\n"
                       + "".join(f"reveal_type(spanbert_jax.{name})\n" for name in names))
    output = _run("mypy", f"--cache-dir={mypy_cache}", str(snippet))
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
