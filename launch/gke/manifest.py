"""The JobSet of a run, from a YAML file in this folder with the run's arguments filled in."""
import argparse
import math
import pathlib
import re
from typing import Any

import yaml

SHARE = "/mnt/spanbert"
# GKE's name of each kind of TPU, and the number of dimensions of its topologies.
TPU_TYPES = {"v4": ("tpu-v4-podslice", 3), "v5e": ("tpu-v5-lite-podslice", 2), "v5p": ("tpu-v5p-slice", 3),
             "v6e": ("tpu-v6e-slice", 2)}
_CHIPS_PER_HOST = 4
_PORT = 8476


class ArgumentError(ValueError):
    """A wrong argument: one line with its name, what is allowed and what to do."""


def render(args: argparse.Namespace) -> dict[str, Any]:
    """The JobSet for the arguments of `submit`. Raises ArgumentError if one of them is not allowed."""
    _check(args)
    jobset = yaml.safe_load((pathlib.Path(__file__).parent / f"jobset-{args.accelerator}.yaml").read_text())
    jobset["metadata"]["name"] = args.name
    if args.namespace:
        jobset["metadata"]["namespace"] = args.namespace
    if args.queue:
        jobset["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": args.queue}
    jobset["spec"]["failurePolicy"]["maxRestarts"] = args.restarts
    replicated, = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    container, = pod["containers"]
    container["image"] = args.image
    # Kubernetes replaces $(NAME) by the value of a variable; arguments must arrive unchanged.
    container["args"] = [word.replace("$(", "$$(") for word in args.command]
    pod["volumes"][0]["persistentVolumeClaim"]["claimName"] = args.claim
    fill = _fill_tpu if args.accelerator == "tpu" else _fill_gpu
    fill(args, replicated, job, pod, container)
    if args.spot:
        pod["nodeSelector"]["cloud.google.com/gke-spot"] = "true"
        pod["tolerations"] = [{"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true",
                               "effect": "NoSchedule"}]
    return jobset


def hosts_and_chips(kind: str, topology: str) -> tuple[int, int]:
    """Number of hosts of a TPU slice, and of chips per host. Raises ArgumentError if the type has no such topology."""
    dimensions = TPU_TYPES[kind][1]
    if not re.fullmatch("x".join([r"[1-9]\d*"] * dimensions), topology):
        raise ArgumentError(f"--topology {topology}: {kind} needs {dimensions} numbers, such as "
                            f"{'x'.join('4' * dimensions)}")
    chips = math.prod(map(int, topology.split("x")))
    if chips > _CHIPS_PER_HOST and chips % _CHIPS_PER_HOST:
        raise ArgumentError(f"--topology {topology}: {chips} chips are not a multiple of {_CHIPS_PER_HOST} per host; "
                            f"use a topology such as {'x'.join('4' * dimensions)}")
    return max(1, chips // _CHIPS_PER_HOST), min(chips, _CHIPS_PER_HOST)


def _check(args: argparse.Namespace) -> None:
    # JobSet and Kubernetes append to the name, and a host's name has at most 63 characters.
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", args.name):
        raise ArgumentError(f"--name {args.name}: use up to 40 lower-case letters, digits and hyphens, starting with a "
                            "letter")
    if not args.command:
        raise ArgumentError(f"no command; write -- train --config FILE --workdir {SHARE}/runs/NAME")
    words = " ".join(args.command).replace("=", " ").split()
    if f"--workdir {SHARE}/" not in " ".join(words):
        raise ArgumentError(f"--workdir: must be under {SHARE}, where the claim is mounted; a pod's own disk is lost "
                            "with the pod")
    for name in ("slices", "nodes", "gpus"):
        if getattr(args, name, 1) < 1:
            raise ArgumentError(f"--{name} {getattr(args, name)}: must be at least 1")


def _fill_tpu(args: argparse.Namespace, replicated: dict, job: dict, pod: dict, container: dict) -> None:
    hosts, chips = hosts_and_chips(args.type, args.topology)
    replicated["replicas"] = args.slices
    job["parallelism"] = job["completions"] = hosts
    pod["nodeSelector"] = {"cloud.google.com/gke-tpu-accelerator": TPU_TYPES[args.type][0],
                           "cloud.google.com/gke-tpu-topology": args.topology}
    container["resources"] = {kind: {"google.com/tpu": chips} for kind in ("requests", "limits")}


def _fill_gpu(args: argparse.Namespace, replicated: dict, job: dict, pod: dict, container: dict) -> None:
    job["parallelism"] = job["completions"] = args.nodes
    pod["nodeSelector"] = {"cloud.google.com/gke-accelerator": args.type}
    container["resources"] = {kind: {"nvidia.com/gpu": args.gpus} for kind in ("requests", "limits")}
    values = {"JAX_COORDINATOR_ADDRESS": f"{args.name}-workers-0-0.{args.name}:{_PORT}",
              "JAX_NUM_PROCESSES": str(args.nodes)}
    container["env"] = [{"name": name, "value": value} for name, value in values.items()]
