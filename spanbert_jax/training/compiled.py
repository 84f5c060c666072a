"""Calls of jitted functions whose compilation is timed and can be interrupted."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from spanbert_jax.cluster.stopping import StopRequest
from spanbert_jax.training.goodput import Goodput


class CompiledFunctions:
    """Compiles each jitted function at its first call and keeps the program.

    Every function must be called with arguments of the same shapes each time.
    """

    def __init__(self, mesh: Mesh, goodput: Goodput, stop: StopRequest):
        """Args: mesh: to compile for; goodput: counts compilation as "compile"; stop: interrupts it."""
        self._mesh, self._goodput, self._stop = mesh, goodput, stop
        self._programs: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a jitted function.

        Raises:
          Stopped: a stop was requested during compilation, in a run of one process.
        """
        def compile() -> Callable[..., Any]:
            with jax.set_mesh(self._mesh):  # the setting belongs to the thread
                return function.lower(*arguments).compile()  # type: ignore[attr-defined]

        if function not in self._programs:
            with self._goodput.during("compile"):
                alone = jax.process_count() == 1
                self._programs[function] = self._stop.interruptible(compile) if alone else compile()
        return self._programs[function](*arguments)
