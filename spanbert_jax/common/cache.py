"""The folder for files that can be made again."""
import os
import pathlib


def cache_folder() -> pathlib.Path:
    """Returns this package's folder in the user's cache folder. It may not exist yet."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "spanbert_jax"
