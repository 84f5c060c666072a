"""List the configs that come with the package. Their names are taken wherever a config file is.

  spanbert-jax configs
  spanbert-jax train --config quickstart --workdir runs/quickstart
"""
import argparse
import ast

from spanbert_jax.cluster.exit_codes import DONE
from spanbert_jax.commands.config_files import shipped_configs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This command has no arguments."""


def run(args: argparse.Namespace) -> int:
    """Prints the name of each config and the first line of its docstring."""
    files = shipped_configs()
    width = max(map(len, files))
    for name, file in files.items():
        summary = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        print(f"{name:{width}}  {summary.partition(chr(10))[0]}")
    return DONE
