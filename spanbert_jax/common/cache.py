"""The folder of what can be made again."""
import os
import pathlib


def cache_folder() -> pathlib.Path:
    """Ours in the user's cache folder; it need not exist."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "spanbert_jax"
