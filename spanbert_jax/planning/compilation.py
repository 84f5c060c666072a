"""Compiles in a subprocess, and caches the results on disk."""
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import spanbert_jax
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import cache_folder, write_text
from spanbert_jax.common.json_files import read_json
from spanbert_jax.planning.compiler.devices import environment
from spanbert_jax.planning.hardware import Topology

_TIMEOUT = 3600.0  # seconds; compiling a train step takes minutes
# Packages whose code changes the compiled program, or how it is read.
_PACKAGES = ("model", "masking", "pretraining", "training", "planning/compiler")
# Environment variables with flags for the compilers.
_FLAGS = ("LIBTPU_INIT_ARGS", "XLA_FLAGS", "JAX_EXEC_TIME_OPTIMIZATION_EFFORT", "JAX_MEMORY_FITTING_EFFORT",
          "JAX_OPTIMIZATION_LEVEL", "JAX_MEMORY_FITTING_LEVEL")
# platform: (the module that compiles for it, how it is installed).
_COMPILERS = {"tpu": ("libtpu", "pip install 'jax[tpu]'"),
              "gpu": ("jax_cuda12_plugin", "pip install --no-deps jax-cuda12-plugin=={jax} jax-cuda12-pjrt=={jax}"),
              "cpu": ("jaxlib", "pip install jax")}


def run_compiler(topology: Topology, request: dict[str, Any]) -> dict[str, Any]:
    """The result of `worker.handle` for a request, from the user's cache folder if it is there.

    Args:
      request: see `worker.handle`; "topology" is added here.

    Raises:
      UserError: the topology's compiler is not installed, refused the request, or crashed.
    """
    compiler, how_to_install = _COMPILERS[topology.chip.platform]
    if importlib.util.find_spec(compiler) is None:
        raise UserError(f"topology {topology}: its compiler is not installed; "
                        f"{how_to_install.format(jax=importlib.metadata.version('jax'))}")
    request = {"topology": str(topology), **request}
    cached = cache_folder() / "plans" / f"{_cache_key(request, compiler)}.json"
    with contextlib.suppress(FileNotFoundError, UserError):
        return read_json(cached, dict[str, Any])
    result = _run_worker(topology, request)
    if "error" in result:
        raise UserError(result["error"])
    with contextlib.suppress(OSError):  # without a cache the next call compiles again
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_text(cached, json.dumps(result))
    return result


def _cache_key(request: dict[str, Any], compiler: str) -> str:
    """A hash of everything that the result depends on."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", compiler)}
    flags = {name: os.environ.get(name, "") for name in _FLAGS}
    text = json.dumps([request, versions, flags, _code_hash()], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _run_worker(topology: Topology, request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="spanbert_jax_plan_") as name:
        variables, folder = environment(topology), pathlib.Path(name)
        if "kernel" in request:
            dump = folder / "dump"
            dump.mkdir()
            request |= {"dump": str(dump)}
            variables["LIBTPU_INIT_ARGS"] = (f"{variables.get('LIBTPU_INIT_ARGS', '')} --xla_jf_dump_llo_text=true "
                                             f"--xla_jf_dump_to={dump}")
        (folder / "request").write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "spanbert_jax.planning.compiler.worker",
                   str(folder / "request"), str(folder / "result")]
        try:
            process = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise UserError(f"topology {topology}: the compiler did not finish in {_TIMEOUT / 60:.0f} minutes; try "
                            "config.compute.layers='scanned'") from None
        try:
            return read_json(folder / "result", dict[str, Any])
        except (FileNotFoundError, UserError):
            lines = [line for line in process.stderr.splitlines() if line.strip()] or ["no message"]
            reason = next((line for line in lines if "Check failed" in line), lines[-1])
            raise UserError(f"topology {topology}: the compiler exited with status {process.returncode}: "
                            f"{reason.strip()[:300]}") from None


@functools.cache
def _code_hash() -> str:
    """A hash of the source of `_PACKAGES`."""
    root, digest = pathlib.Path(spanbert_jax.__file__).parent, hashlib.blake2b(digest_size=16)
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
