"""Reading a step. Orbax and tensorstore read numbers and JSON only, so nothing is ever unpickled."""
import pathlib
from typing import Any, TypedDict

import jax
import orbax.checkpoint as ocp
from etils import epath

from spanbert_jax.checkpoints.fingerprint import array_name, difference, fingerprint
from spanbert_jax.checkpoints.folder import METADATA, STATE
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.json_files import read_json


class CorruptCheckpoint(Exception):
    """A step is corrupt. The message is a short reason."""


class _Metadata(TypedDict, total=False):
    """Entries of the metadata; checkpoints of older versions have fewer."""
    config: dict[str, Any]
    corpus: dict[str, Any]
    network: dict[str, Any]
    fingerprint: dict[str, Any]


def read_metadata(step_folder: pathlib.Path) -> dict[str, Any]:
    """Returns the metadata that was saved with a step. Raises CorruptCheckpoint if it cannot be read."""
    try:
        return {**read_json(step_folder / METADATA / "metadata", _Metadata)}
    except (FileNotFoundError, UserError) as error:
        raise CorruptCheckpoint(f"{METADATA}: cannot be read: {error}") from None


def read_state(step_folder: pathlib.Path, abstract: Any) -> Any:
    """Reads the state with the shardings of `abstract`. Raises UserError if model or optimizer have other shapes."""
    handler, folder = ocp.StandardCheckpointHandler(), epath.Path(step_folder / STATE)
    _require_same_arrays(step_folder.name, _arrays(handler.metadata(folder).tree), _arrays(abstract))
    return handler.restore(folder, args=ocp.args.StandardRestore(abstract))


def read_params(step_folder: pathlib.Path, abstract: Any) -> Any:
    """Reads only the parameters. Raises UserError if the model has other shapes."""
    handler, folder, item = ocp.PyTreeCheckpointHandler(), epath.Path(step_folder / STATE), {"params": abstract}
    stored = _arrays(handler.metadata(folder).tree)
    _require_same_arrays(step_folder.name, {name: stored[name] for name in stored if name.startswith("params/")},
                         _arrays(item))
    return handler.restore(folder, args=ocp.args.PyTreeRestore(
        item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True))["params"]


def require_saved(tree: Any, metadata: dict[str, Any]) -> None:
    """Raises CorruptCheckpoint if an array differs from its stored fingerprint. Every process must call this."""
    if reason := difference(metadata.get("fingerprint"), fingerprint(tree)):
        raise CorruptCheckpoint(reason)


def _arrays(tree: Any) -> dict[str, str]:
    """Returns dtype and shape of every array, such as float32[768,3072], by name.

    Orbax restores classes and tuples as dictionaries and lists; the names are the same for both.
    """
    def kind(leaf: Any) -> str:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # stored as its key data
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        return f"{leaf.dtype}{list(leaf.shape)}".replace(" ", "")

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {array_name(path): kind(leaf) for path, leaf in leaves}


def _require_same_arrays(step: str, stored: dict[str, str], wanted: dict[str, str]) -> None:
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise UserError(
                f"checkpoint of step {step}: {name} is {stored.get(name, 'not in it')} there and "
                f"{wanted.get(name, 'not in it')} in this config; use the config and the version of spanbert-jax that "
                "the run began with, or another workdir")
