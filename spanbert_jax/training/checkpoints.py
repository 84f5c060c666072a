"""Checkpoints: Orbax behind one class, so that the rest of the project knows no other format."""
from __future__ import annotations

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN

from spanbert_jax.errors import UserError
from spanbert_jax.training.state import TrainState

FOLDER = "checkpoints"


class Checkpointer:
    """Saves and restores the states of a run, in WORKDIR/checkpoints/STEP.

    A context manager: leaving it waits for what is still being written. A step becomes visible when it is whole.
    """

    def __init__(self, workdir: str | pathlib.Path, *, keep: int = 1, keep_every: int = 0, read_only: bool = False):
        """Opens the checkpoints of a run, making the folder if need be.

        Args:
          workdir: of the run.
          keep: how many of the newest steps are kept.
          keep_every: steps divisible by this are kept for good; 0 keeps none.
          read_only: leave alone what is half-written, which another process may be writing; else it is removed.
        """
        policies = [LatestN(keep)] + ([EveryNSteps(keep_every)] if keep_every else [])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies), cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(
            pathlib.Path(workdir).resolve() / FOLDER, options=options, handler_registry=_handlers())

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The newest step there is, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """The steps that there are, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, config: dict[str, Any]) -> None:
        """Begins to save a state and the config that it came from; the state may be donated at once."""
        self._manager.save(step, force=True, args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(config)))

    def wait(self) -> None:
        """Waits until what is being saved is on disk; raises what went wrong with it."""
        self._manager.wait_until_finished()

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """The state of a step, laid out as the shardings of `abstract` say, on however many devices.

        Raises:
          UserError: when the checkpoint is of a network or an optimiser of another shape.
        """
        _require_same_shapes(step, self._manager.item_metadata(step)["state"].tree, abstract)
        return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]

    def restore_params(self, step: int, abstract: Any) -> Any:
        """The parameters alone, without reading the optimiser's state."""
        item = {"params": abstract}
        with ocp.PyTreeCheckpointer() as reader:
            restored = reader.restore(
                self._manager.directory / str(step) / "state", args=ocp.args.PyTreeRestore(
                    item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True))
        return restored["params"]


def _handlers() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """What reads and writes the two items of a checkpoint; told beforehand, Orbax can look at one it has not saved."""
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    state, config = ocp.StandardCheckpointHandler(), ocp.JsonCheckpointHandler()
    for name, arguments, handler in (
            ("state", ocp.args.StandardSave, state), ("state", ocp.args.StandardRestore, state),
            ("config", ocp.args.JsonSave, config), ("config", ocp.args.JsonRestore, config)):
        registry.add(name, arguments, handler)
    return registry


def _require_same_shapes(step: int, saved: Any, abstract: TrainState) -> None:
    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        # Orbax gives dictionaries and lists for what were classes and tuples; the words of the paths stay.
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
        return {"/".join(_word(key) for key in path): tuple(leaf.shape) for path, leaf in leaves}

    stored, wanted = shapes(saved), shapes(abstract)
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise UserError(
                f"checkpoint of step {step}: {name} is {stored.get(name, 'not in it')} there and "
                f"{wanted.get(name, 'not in it')} in this config; use the config that the run began with, or another "
                "workdir")


def _word(key: Any) -> str:
    return str(next(getattr(key, name) for name in ("key", "name", "idx") if hasattr(key, name)))
