"""What a run may change between the checkpoint that it goes on from and the steps to come."""
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spanbert_jax.cluster.agreement import any_process, broadcast_from_zero
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import to_dict
from spanbert_jax.training.config import RunConfig
from spanbert_jax.training.renames import rename_fields

# Sections and fields that decide how, where and how often something is done, but not what a good step computes. The
# data is judged by the corpus, wherever it lies.
_HARMLESS = ("data", "mesh", "evaluation", "checkpoint", "skip", "profile", "plugins", "train.log_every",
             "compute.attention", "compute.layers", "compute.remat", "task.train", "task.dev", "task.test")


def describe(config: RunConfig, identity: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint remembers of its run, as JSON gives it back.

    "config", under "corpus" the identity of what is learned from, and under "network" the description of the model
    (`model.describe_model`), so that its parameters can be read without them.
    """
    return json.loads(json.dumps({"config": to_dict(config), "corpus": identity, "network": model}))


def check_changes(step: int, before: Mapping[str, Any], now: Mapping[str, Any], force: bool,
                  defaults: Mapping[str, Any]) -> list[str]:
    """The changes since a checkpoint, as "field: before -> now".

    Args:
      step: of the checkpoint.
      before, now: as `describe` gives them.
      force: allow changes after which the run is no longer the one that began.
      defaults: of the fields of the config, for those that an older checkpoint lacks.

    Raises:
      UserError: naming all harmful changes, unless forced; another tokenizer is never allowed.
    """
    told = all(isinstance(before.get(section), Mapping) for section in ("config", "corpus"))
    if not told or "tokenizer" not in before["corpus"]:
        raise UserError(f"checkpoint of step {step}: nothing in it says what config and corpus it came from, so it is "
                        "not one of this program's; give another workdir")
    config = _flat(now["config"])
    defaults = {field: value for field, value in _flat(defaults).items() if field in config}
    fields = {"config": (defaults | _flat(rename_fields(before["config"], warn=False)), config),
              "corpus": (_flat(before["corpus"]), _flat(now["corpus"]))}
    if before["corpus"]["tokenizer"] != now["corpus"]["tokenizer"]:
        raise UserError(f"checkpoint of step {step}: it was trained with another tokenizer than that of this corpus, "
                        "to which its ids mean nothing; use its own corpus, or another workdir")
    changes, harmful = [], []
    for section, (old, new) in fields.items():
        for field, change in _differences(old, new).items():
            changes.append(f"{section}.{change}")
            if section == "corpus" or not _is_harmless(field, now["config"]):
                harmful.append(changes[-1])
    if harmful and not force:
        raise UserError(
            f"checkpoint of step {step}: the rest of the run would not be that of the run that began: "
            f"{'; '.join(harmful)}; use the config that the run began with, another workdir, or --force")
    return changes


def require_same_everywhere(now: Mapping[str, Any], force: bool) -> None:
    """That all processes were started alike, before they compute anything together. Every process must ask.

    Args:
      now: as `describe` gives it; where the data lies may differ.
      force: as given to this process.

    Raises:
      UserError: on all processes, when one of them differs from the first; on that one it names the fields.
    """
    given = {"config": {**now["config"], "data": None}, "corpus": now["corpus"], "force": force}
    differences = list(_differences(_flat(broadcast_from_zero(given)), _flat(given)).values())
    if any_process(bool(differences)):
        raise UserError(f"the processes of this run were started with different settings ({'; '.join(differences)}"
                        f"{'' if differences else 'another process says which'}); start all with the same command")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """The fields that differ, each with "field: old -> new"."""
    return {field: f"{field}: {old.get(field)!r} -> {new.get(field)!r}" for field in sorted(old.keys() | new.keys())
            if json.dumps(old.get(field)) != json.dumps(new.get(field))}


def _is_harmless(field: str, config: Mapping[str, Any]) -> bool:
    if field == "train.duration":  # every other schedule is stretched over it, and so is a share of it
        return config["schedule"]["name"] == "constant" and "percent" not in config["schedule"]["warmup"]
    return any(field == harmless or field.startswith(f"{harmless}.") for harmless in _HARMLESS)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
