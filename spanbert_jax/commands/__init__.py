"""The command line, one file per command. Imports every other package; no package imports it."""
from spanbert_jax.commands.main import main

__all__ = ["main"]
