"""A function over many items in worker processes: results in order, memory bounded, a dead worker noticed.

`multiprocessing` imports the caller's script anew in every worker, which breaks scripts that do their work at the top
level, and its pool can wait for ever for a worker that died. Here a worker is a plain Python process at the
other end of two pipes, which close when either side ends in any way.
"""
import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from spanbert_jax.common.errors import UserError

_SERVE = "from spanbert_jax.corpus.processes import serve; serve()"


def map_in_order(make: Callable[[], Callable[[Any], Any]], items: Iterable[Any],
                 workers: int) -> Iterator[tuple[Any, Any]]:
    """Yields (item, result) for every item, in order: as `map_in_processes`, but 1 worker works in this process."""
    if workers > 1:
        yield from map_in_processes(make, items, workers)
        return
    function = make()
    yield from ((item, function(item)) for item in items)


def map_in_processes(make: Callable[[], Callable[[Any], Any]], items: Iterable[Any],
                     workers: int) -> Iterator[tuple[Any, Any]]:
    """Yields (item, result) for every item, in order. Closed or left by an exception it ends its processes at once;
    one whose start an exception cut short ends by itself, as its pipes close.

    Args:
      make: called once in each process, gives the function; it and the items must pickle.
      items: taken one for each worker ahead of the results.
      workers: processes.

    Raises:
      UserError: a worker process died.
    """
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TOKENIZERS_PARALLELISM": "false"}
    processes = []
    try:
        for _ in range(workers):
            # In a session of their own, so that what a terminal sends goes to this process alone.
            processes.append(subprocess.Popen(
                [sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
                start_new_session=True))
            _send(processes[-1], make)
        yield from _round(processes, items)
    except (EOFError, BrokenPipeError, ConnectionResetError, pickle.UnpicklingError):
        raise UserError("a worker process died, perhaps for want of memory: try fewer workers") from None
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()  # closes the pipes and waits


def _round(processes: list[subprocess.Popen], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Hands items to the workers in turn, one each at a time, and takes results in the same turn."""
    pending: list[Any] = []
    taken = 0
    for item in items:
        process = processes[(taken + len(pending)) % len(processes)]
        done = None
        if len(pending) == len(processes):
            done = pending.pop(0), _received(process)
            taken += 1
        _send(process, item)
        pending.append(item)
        if done:
            yield done
    for item in pending:
        yield item, _received(processes[taken % len(processes)])
        taken += 1


def _send(process: subprocess.Popen, item: Any) -> None:
    pickle.dump(item, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
    process.stdin.flush()


def _received(process: subprocess.Popen) -> Any:
    result, error = pickle.load(process.stdout)
    if error:
        raise error
    return result


def serve() -> None:
    """A worker's life: receives what makes the function, then answers each item until a pipe closes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent alone answers, and ends its workers
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints must not get among the answers
    with contextlib.suppress(EOFError, BrokenPipeError):
        function = pickle.load(sys.stdin.buffer)()
        while True:
            item = pickle.load(sys.stdin.buffer)
            try:
                answer = function(item), None
            except Exception as error:  # raised again by the parent
                answer = None, error
            pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()
