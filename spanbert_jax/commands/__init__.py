"""The command line: one file a verb. Knows every other room and is known by none."""
from spanbert_jax.commands.main import main

__all__ = ["main"]
