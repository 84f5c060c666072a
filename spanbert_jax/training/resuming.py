"""Which config fields may change when a run resumes from a checkpoint."""
import functools
import json
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from spanbert_jax.cluster.agreement import any_process, broadcast_from_zero
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_change
from spanbert_jax.common.settings import to_dict
from spanbert_jax.training.config import RunConfig, usual_values
from spanbert_jax.training.renames import rename_fields

# Sections and fields that may change: they determine where, how fast and how often something happens, but not what a
# step computes. `corpus` in the checkpoint's metadata identifies the data, wherever `data` finds it.
CHANGEABLE = ("data", "mesh", "evaluation", "checkpoint", "skip", "profile", "trackers", "plugins", "train.log_every",
              "compute.attention", "compute.layers", "compute.remat", "task.train", "task.dev", "task.test",
              "task.cache")


def describe(config: RunConfig, identity: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a checkpoint, as JSON gives it back.

    Args: identity: fingerprint of data and tokenizer; model: from `model.describe_model`.
    """
    return json.loads(json.dumps({"config": to_dict(config), "corpus": identity, "network": model}))


def check_changes(step: int, before: Mapping[str, Any], now: Mapping[str, Any], force: bool,
                  defaults: Mapping[str, Any]) -> list[str]:
    """The changes since a checkpoint, each as `format_change` says it.

    Args:
      before, now: metadata as `describe` returns it. Field names in `before` may be old ones.
      force: allow changes of fields that are not in `CHANGEABLE`.
      defaults: default config, for fields that an older checkpoint lacks.

    Raises:
      UserError: naming all changes that are not allowed, unless forced; another tokenizer is never allowed.
    """
    has_metadata = all(isinstance(before.get(section), Mapping) for section in ("config", "corpus"))
    if not has_metadata or "tokenizer" not in before["corpus"]:
        raise UserError(f"checkpoint of step {step}: it has no metadata about its config and corpus, so it is not a "
                        "checkpoint of spanbert-jax; give another workdir")
    if before["corpus"]["tokenizer"] != now["corpus"]["tokenizer"]:
        raise UserError(f"checkpoint of step {step}: it was trained with another tokenizer than that of this corpus, "
                        "to which its ids mean nothing; use its own corpus, or another workdir")
    config = _flat(now["config"])
    usual = {f"model.{name}": value for name, value in usual_values(config["model.architecture"]).items()}
    defaults = {field: value for field, value in (_flat(defaults) | usual).items() if field in config}
    old_config, config = ({field: usual.get(field) if value is None else value for field, value in flat.items()}
                          for flat in (defaults | _flat(rename_fields(before["config"], warn=False)), config))
    changes, refused = [], []
    for section, old, new in (("config", old_config, config),
                              ("corpus", _flat(before["corpus"]), _flat(now["corpus"]))):
        for field, change in _differences(old, new).items():
            changes.append(f"{section}.{change}")
            if section == "corpus" or not _is_changeable(field, now["config"]):
                refused.append(changes[-1])
    if refused and not force:
        raise UserError(
            f"checkpoint of step {step}: with these changes the run would continue as a different one: "
            f"{'; '.join(refused)}; use the config that the run began with, another workdir, or --force")
    return changes


def require_same_everywhere(now: Mapping[str, Any], force: bool) -> None:
    """Checks that all processes have the same settings, before they compute together. Every process must call it.

    `now` is metadata as `describe` returns it; the location of the data may differ. Raises UserError on all processes
    if one differs from process 0; the message there names the fields.
    """
    given = {"config": {**now["config"], "data": None}, "corpus": now["corpus"], "force": force}
    differences = list(_differences(_flat(broadcast_from_zero(given)), _flat(given)).values())
    if any_process(bool(differences)):
        raise UserError(f"the processes of this run were started with different settings ({'; '.join(differences)}"
                        f"{'' if differences else 'another process says which'}); start all with the same command")


_flat = functools.partial(flatten_dict, sep=".")  # {"a": {"b": 1}} -> {"a.b": 1}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Every field that differs, with `format_change` of it."""
    return {field: format_change(field, old.get(field), new.get(field)) for field in sorted(old.keys() | new.keys())
            if json.dumps(old.get(field)) != json.dumps(new.get(field))}


def _is_changeable(field: str, config: Mapping[str, Any]) -> bool:
    if field == "train.duration":  # other schedules, and a warmup in percent, depend on it
        return config["schedule"]["name"] == "constant" and "percent" not in config["schedule"]["warmup"]
    return any(field == name or field.startswith(f"{name}.") for name in CHANGEABLE)
