"""The command `configs`, and the configs in a wheel."""
import ast
import runpy

import setuptools

import spanbert_jax
from spanbert_jax.commands.config_files import load_config, shipped_configs
from spanbert_jax.commands.main import main
from tests.runs import ROOT


def test_every_config_is_listed_with_the_first_line_of_its_docstring(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(file.stem for file in (ROOT / "configs").glob("*.py"))
    assert any(line.split(maxsplit=1) == ["books", "A small SpanBERT pretrained on novels and speeches with the cased "
                                          "BERT vocabulary, on a laptop."] for line in lines)


def test_commands_of_docstrings_are_shown_as_they_are_written():
    """A backslash at the end of a line that is not doubled would join the lines."""
    for file in (ROOT / "configs").glob("*.py"):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")), clean=False) or ""
        assert all(len(line) <= 120 for line in docstring.splitlines()), file


def test_a_wheel_has_the_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = {}
    monkeypatch.setattr(setuptools, "setup", arguments.update)
    runpy.run_path("setup.py")
    build = setuptools.Distribution({**arguments, "packages": []}).get_command_obj("build_py")
    build.build_lib = str(tmp_path)
    build.ensure_finalized()
    build.run()
    expected = {name: load_config(str(file)) for name, file in shipped_configs().items() if name in ("base", "large")}
    monkeypatch.setattr(spanbert_jax, "__file__", str(tmp_path / "spanbert_jax" / "__init__.py"))
    assert {file.parent for file in shipped_configs().values()} == {tmp_path / "spanbert_jax" / "configs"}
    assert {name: load_config(name) for name in expected} == expected
