"""The subprocess that compiles: `python -m spanbert_jax.planning.compiler.worker REQUEST RESULT`, two JSON files.

Each request gets a new process: a compiler may end its process, and it reads its settings only when it is loaded.
"""
import dataclasses
import json
import pathlib
import sys
from typing import Any

import jax

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.common.settings import from_dict
from spanbert_jax.model.attention import AttentionSpec
from spanbert_jax.planning.compiler.corpus_shape import CorpusShape
from spanbert_jax.planning.compiler.devices import get_devices
from spanbert_jax.planning.compiler.kernels import compile_attention, kernel_cycles
from spanbert_jax.planning.compiler.steps import OutOfMemory, compile_step
from spanbert_jax.planning.hardware import parse_topology
from spanbert_jax.pretraining.config import PretrainingConfig


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Compiles a train step or an attention kernel.

    Args:
      request: "topology", and either "config" and "corpus" (a `CorpusShape`) of a step, or "kernel" (its name),
        "length", "spec" (an `AttentionSpec`), "rotary" and "dump" (the folder that the compiler dumps its schedule to).

    Returns:
      "compiled" (a `CompiledStep`) or "out_of_memory" of a step, "cycles" of a kernel, or "error", a message.
    """
    topology = parse_topology(request["topology"])
    try:
        devices = get_devices(topology)
        if "kernel" in request:
            spec = AttentionSpec(**request["spec"])
            compile_attention(request["kernel"], request["length"], spec, request["rotary"], devices[0])
            return {"cycles": kernel_cycles(pathlib.Path(request["dump"]))}
        config = from_dict(PretrainingConfig, request["config"])
        load_plugins(config.plugins)
        step = compile_step(config, CorpusShape(**request["corpus"]), topology, devices)
    except UserError as error:
        return {"error": str(error)}
    return {"out_of_memory" if isinstance(step, OutOfMemory) else "compiled": dataclasses.asdict(step)}


if __name__ == "__main__":
    # A program compiled for an absent device cannot be loaded from JAX's own cache.
    jax.config.update("jax_enable_compilation_cache", False)
    request_file, result_file = map(pathlib.Path, sys.argv[1:])
    result = handle(json.loads(request_file.read_text(encoding="utf-8")))
    result_file.write_text(json.dumps(result), encoding="utf-8")
