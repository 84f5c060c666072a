"""What the last bits of a prediction depend on besides model and input: program, libraries and compiler."""
import contextlib
import hashlib
import inspect
import json
import os
import pathlib

import jax
import jaxlib
import numpy as np
import tokenizers

import spanbert_jax
from spanbert_jax.common.identity import code_digest

_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_OPTIONS = ("jax_default_matmul_precision", "jax_disable_most_optimizations", "jax_enable_x64",
            "jax_optimization_level")


def program_identity(task: type) -> dict[str, str]:
    """Hashes of the program with a class of tasks, and of the compiler: its flags and the kind of device.

    The number of devices is no part of it: it changes no result.
    """
    libraries = {module.__name__: module.__version__ for module in (jax, jaxlib, np, tokenizers)}
    code = {code_digest(pathlib.Path(spanbert_jax.__path__[0]))}
    with contextlib.suppress(OSError, TypeError):  # of a plugin; without a file in an interactive session
        code.add(code_digest(pathlib.Path(inspect.getfile(task))))
    device = jax.local_devices()[0]
    compiler = {name: os.environ.get(name, "").split() for name in _FLAGS}
    options = {name: jax.config.values.get(name) for name in _OPTIONS}
    described = {"program": [spanbert_jax.__version__, libraries, sorted(code)],
                 "compiler": [compiler, options, device.platform, device.device_kind]}
    return {name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
            for name, value in described.items()}
