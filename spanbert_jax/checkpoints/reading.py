"""Reading a step. Orbax and what lies under it read numbers and JSON: nothing that could run is ever unpickled."""
from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from spanbert_jax.checkpoints.fingerprint import array_name, difference, fingerprint
from spanbert_jax.checkpoints.folder import METADATA, STATE
from spanbert_jax.common.errors import UserError


class CorruptCheckpoint(Exception):
    """Why a step cannot be believed, in a few words."""


def read_metadata(step_folder: pathlib.Path) -> dict[str, Any]:
    """What was stored beside the state.

    Raises:
      CorruptCheckpoint: when there is no such thing to be read.
    """
    try:
        metadata = json.loads((step_folder / METADATA / "metadata").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"{METADATA}: cannot be read: {error}") from None
    if not isinstance(metadata, dict):
        raise CorruptCheckpoint(f"{METADATA}: is no dictionary")
    return metadata


def read_state(step_folder: pathlib.Path, abstract: Any) -> Any:
    """The state, laid out as the shardings of `abstract` say, on however many devices. Waits for no other process.

    Raises:
      UserError: when it is of a network or an optimiser of another shape.
    """
    handler, folder = ocp.StandardCheckpointHandler(), epath.Path(step_folder / STATE)
    _require_same_arrays(step_folder.name, _arrays(handler.metadata(folder).tree), _arrays(abstract))
    return handler.restore(folder, args=ocp.args.StandardRestore(abstract))


def read_params(step_folder: pathlib.Path, abstract: Any) -> Any:
    """The parameters alone, without reading the rest.

    Raises:
      UserError: when they are of a network of another shape.
    """
    handler, folder = ocp.PyTreeCheckpointHandler(), epath.Path(step_folder / STATE)
    item = {"params": abstract}
    stored = _arrays(handler.metadata(folder).tree)
    _require_same_arrays(step_folder.name, {name: stored[name] for name in stored if name.startswith("params/")},
                         _arrays(item))
    return handler.restore(folder, args=ocp.args.PyTreeRestore(
        item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True))["params"]


def require_saved(tree: Any, metadata: dict[str, Any]) -> None:
    """That arrays are what they were on the devices when they were saved. Every process must call.

    Raises:
      CorruptCheckpoint: naming the first that is not.
    """
    if reason := difference(metadata.get("fingerprint"), fingerprint(tree)):
        raise CorruptCheckpoint(reason)


def _arrays(tree: Any) -> dict[str, str]:
    """Type and shape of every array, as in float32[768,3072], by name.

    Orbax gives dictionaries and lists for what were classes and tuples; the words of the paths stay.
    """
    def kind(leaf: Any) -> str:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # which is stored as its numbers
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        return f"{leaf.dtype}{list(leaf.shape)}".replace(" ", "")

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {array_name(path): kind(leaf) for path, leaf in leaves}


def _require_same_arrays(step: str, stored: dict[str, str], wanted: dict[str, str]) -> None:
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise UserError(
                f"checkpoint of step {step}: {name} is {stored.get(name, 'not in it')} there and "
                f"{wanted.get(name, 'not in it')} in this config; use the config that the run began with, or another "
                "workdir")
