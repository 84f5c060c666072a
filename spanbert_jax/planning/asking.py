"""Asking a compiler, in a process of its own, and remembering what it says."""
from __future__ import annotations

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
from spanbert_jax.common.cache import cache_folder
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.planning.compiler.devices import environment
from spanbert_jax.planning.hardware import Topology

_TIMEOUT = 3600.0  # seconds; a step takes minutes
# Rooms whose code makes the program of a step, and the reading of it.
_ROOMS = ("model", "pretraining", "training", "planning/compiler")
# Environment variables with which a user tells the compilers more.
_FLAGS = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")
# What compiles for a platform, how it is installed, and whose version matters.
_COMPILERS = {"tpu": ("libtpu", "pip install 'jax[tpu]'"),
              "gpu": ("jax_cuda12_plugin", "pip install --no-deps jax-cuda12-plugin=={jax} jax-cuda12-pjrt=={jax}"),
              "cpu": ("jaxlib", "pip install jax")}


def ask(topology: Topology, question: dict[str, Any]) -> dict[str, Any]:
    """The answer of `child.answer` to a question about a topology, from the user's cache folder if it is there.

    Raises:
      UserError: the child's, or the topology's compiler is not installed, or it died.
    """
    compiler, how = _COMPILERS[topology.chip.platform]
    if importlib.util.find_spec(compiler) is None:
        raise UserError(f"topology {topology}: its compiler is not installed; "
                        f"{how.format(jax=importlib.metadata.version('jax'))}")
    request = {"topology": str(topology), **question}
    kept = cache_folder() / "plans" / f"{_key(request, compiler)}.json"
    try:
        return json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    answer = _ask_child(topology, request)
    if "error" in answer:
        raise UserError(answer["error"])
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(answer))
    except OSError:
        pass  # a full disk costs another compilation, not this answer
    return answer


def _key(request: dict[str, Any], compiler: str) -> str:
    """A name for all that an answer depends on."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", compiler)}
    flags = {name: os.environ.get(name, "") for name in _FLAGS}
    text = json.dumps([request, versions, flags, _code()], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _ask_child(topology: Topology, request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="spanbert_jax_plan_") as folder:
        variables, place = environment(topology), pathlib.Path(folder)
        if "kernel" in request:
            (place / "dump").mkdir()
            request |= {"dump": str(place / "dump")}
            variables["LIBTPU_INIT_ARGS"] = (f"{variables.get('LIBTPU_INIT_ARGS', '')} --xla_jf_dump_llo_text=true "
                                             f"--xla_jf_dump_to={place / 'dump'}")
        (place / "request").write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "spanbert_jax.planning.compiler.child",
                   *(str(place / name) for name in ("request", "answer"))]
        try:
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise UserError(f"topology {topology}: the compiler was not done after {_TIMEOUT / 60:.0f} minutes; try "
                            "config.model.layers='scanned'") from None
        try:
            return json.loads((place / "answer").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            telling = next((line for line in lines if "Check failed" in line), lines[-1])
            raise UserError(f"topology {topology}: the compiler ended with status {done.returncode}: "
                            f"{telling.strip()[:300]}") from None


@functools.cache
def _code() -> str:
    """A hash of the code that an answer depends on."""
    root, digest = pathlib.Path(spanbert_jax.__file__).parent, hashlib.blake2b(digest_size=16)
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
