"""Maps a function over items in worker processes: results in order, bounded memory, dead workers detected.

`multiprocessing` imports the caller's script in every worker, which breaks scripts without a main guard, and its pool
can wait forever for a dead worker. A worker here is a Python process with two pipes, which close when a side ends.
"""
import collections
import contextlib
import ctypes
import itertools
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from typing import Any

from spanbert_jax.cluster.stopping import SIGNALS
from spanbert_jax.common.errors import RunFailed, UserError, describe_panic, is_panic
from spanbert_jax.common.streams import protected_streams

_PR_SET_PDEATHSIG = 1
_SERVE = "from spanbert_jax.corpus.processes import serve; serve()"


def cpu_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(make_function: Callable[[], Callable[[Any], Any]], items: Iterable[Any],
                 workers: int) -> Generator[tuple[Any, Any]]:
    """Yields (item, result) in order, like `map_in_processes`; with one worker, the work is done in this process."""
    if workers > 1:
        yield from map_in_processes(make_function, items, workers)
        return
    function = make_function()
    yield from ((item, function(item)) for item in items)


def map_in_processes(make_function: Callable[[], Callable[[Any], Any]], items: Iterable[Any],
                     workers: int) -> Generator[tuple[Any, Any]]:
    """Yields (item, result) for every item, in order. Raises UserError if a worker process dies.

    When the generator is closed or an exception leaves it, its processes end at once. A process whose start was
    interrupted ends by itself when its pipes close.

    Args:
      make_function: called once in each process; returns the function. It and the items must be picklable.
      items: read ahead of the results by one item per worker.
    """
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TOKENIZERS_PARALLELISM": "false"}
    processes = []
    try:
        for _ in range(workers):
            # In a new session, so that signals of the terminal reach only this process.
            processes.append(subprocess.Popen(
                [sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
                start_new_session=True))
            _send(processes[-1], make_function)
        yield from _round_robin(processes, items)
    except (EOFError, BrokenPipeError, ConnectionResetError, pickle.UnpicklingError):
        raise UserError("a worker process died, perhaps because memory ran out: try fewer workers") from None
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()  # closes the pipes and waits


def _round_robin(processes: list[subprocess.Popen], items: Iterable[Any]) -> Generator[tuple[Any, Any]]:
    """Sends items to the workers in turn, one at a time each, and receives the results in the same order."""
    pending = collections.deque[tuple[subprocess.Popen, Any]]()
    for process, item in zip(itertools.cycle(processes), items):
        done = None
        if len(pending) == len(processes):
            done = pending.popleft()[1], _receive(process)
        _send(process, item)
        pending.append((process, item))
        if done:
            yield done
    for process, item in pending:
        yield item, _receive(process)


def _send(process: subprocess.Popen, item: Any) -> None:
    assert process.stdin is not None
    pickle.dump(item, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
    process.stdin.flush()


def _receive(process: subprocess.Popen) -> Any:
    assert process.stdout is not None
    result, error = pickle.load(process.stdout)
    if error:
        raise error
    return result


def serve() -> None:
    """Main function of a worker: receives `make_function`, then returns a result per item until a pipe closes."""
    if sys.platform == "linux":  # the kernel ends it with its parent, also while it is busy
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the parent handles them and ends its workers
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # printed text must not get into the results
    with protected_streams(), contextlib.suppress(EOFError, BrokenPipeError):
        function = pickle.load(sys.stdin.buffer)()
        while True:
            item = pickle.load(sys.stdin.buffer)
            try:
                result: tuple[Any, Exception | None] = function(item), None
            except Exception as error:  # raised again by the parent
                result = None, error
            except BaseException as error:
                if not is_panic(error):
                    raise
                result = None, RunFailed(describe_panic(error))
            pickle.dump(result, results, protocol=pickle.HIGHEST_PROTOCOL)
            results.flush()
