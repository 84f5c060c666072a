"""What a process of its own is asked: `python -m spanbert_jax.planning.compiler.child REQUEST ANSWER`, files of JSON.

A compiler that does not like what it is given ends the process that it runs in, and its settings are read once when it
is loaded. So every question is asked of a new process.
"""
from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from typing import Any

import jax
import ml_collections

from spanbert_jax.common.errors import UserError
from spanbert_jax.model.attention import AttentionSpec
from spanbert_jax.planning.compiler.devices import reach_devices
from spanbert_jax.planning.compiler.kernels import compile_attention, kernel_cycles
from spanbert_jax.planning.compiler.steps import TooLarge, compile_step
from spanbert_jax.planning.compiler.workload import Facts
from spanbert_jax.planning.hardware import parse_topology
from spanbert_jax.pretraining.config import default_config


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answers a question about a step or about a kernel."""
    topology = parse_topology(request["topology"])
    try:
        devices = reach_devices(topology)
        if "kernel" in request:
            spec = AttentionSpec(**request["spec"])
            compile_attention(request["kernel"], request["length"], spec, devices[0])
            return {"cycles": kernel_cycles(pathlib.Path(request["dump"]))}
        config = default_config()
        config.update(ml_collections.ConfigDict(request["config"]))
        found = compile_step(config, Facts(**request["facts"]), topology, devices)
    except UserError as error:
        return {"error": str(error)}
    return {"too_large" if isinstance(found, TooLarge) else "compiled": dataclasses.asdict(found)}


def main(request: str, to: str) -> None:
    """Reads a request and leaves the answer to it."""
    # What is written for a device that is not there cannot be read again.
    jax.config.update("jax_enable_compilation_cache", False)
    found = answer(json.loads(pathlib.Path(request).read_text(encoding="utf-8")))
    pathlib.Path(to).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
