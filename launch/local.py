"""Runs a command as several processes with simulated devices on this machine.

  python launch/local.py --processes 2 --devices 2 -- spanbert-jax train --config configs/quickstart.py --workdir runs/q

Each process gets the arguments with which it joins the others (--coordinator, --processes, --process). Each printed
line starts with the index of its process, such as `[1] `; of a line that rewrites itself, such as a progress bar, only
the last state is printed.

The first SIGINT, SIGTERM or SIGHUP is forwarded, so that the processes save and end together; a second SIGINT or
SIGTERM kills them. If a process dies, the others have a few seconds to end by themselves and are then killed. The exit
status is one of `spanbert_jax.cluster.exit_codes`: that of the process that failed first, not of those that failed
because they lost it. If the status permits it, the command is run again, up to --restarts times, and continues from its
last checkpoint.

--dry-run prints the command and the environment variables of each process, and starts none.
"""
import argparse
import contextlib
import ctypes
import io
import os
import queue
import random
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

from spanbert_jax.cluster.exit_codes import DONE, FAILED, MISTAKE, PEER_LOST, STOPPED, retryable
from spanbert_jax.cluster.stopping import SIGNALS
from spanbert_jax.common.streams import protected_streams

# Seconds in which the other processes must end by themselves: after one died, and after all agreed to end.
DEATH_SECONDS, AGREED_SECONDS = 2, 60
_LONGEST_LINE = 1 << 16
_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command, restarts it if necessary, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--devices", type=int, default=1, metavar="M",
                        help="simulated CPU devices of each process (default: %(default)s)")
    parser.add_argument("--restarts", type=int, default=0, metavar="R",
                        help="maximum number of restarts, after exit statuses that permit one (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and run nothing")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="command of each process")
    args = parser.parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("no command given; write it after --")
    if args.processes < 1 or args.devices < 1 or args.restarts < 0:
        parser.error("--processes and --devices must be at least 1, --restarts at least 0")
    launcher = Launcher(command, args.processes, args.devices)
    with protected_streams():  # without a reader of the output, the processes still continue
        if args.dry_run:
            print("\n".join(launcher.plan()))
            return DONE
        return launcher.run(args.restarts)


class Launcher:
    """Starts, follows, stops and restarts the processes of a command."""

    def __init__(self, command: Sequence[str], processes: int, devices: int):
        """Starts nothing yet; `run` does."""
        self.command, self.count, self.devices = command, processes, devices
        # (index, exit status) of a process that ended, or (None, number) of a signal.
        self.events: queue.SimpleQueue[tuple[int | None, int]] = queue.SimpleQueue()
        self.printing = threading.Lock()
        self.stopping = False

    def run(self, restarts: int) -> int:
        """Runs the command, and restarts it up to `restarts` times while its exit status permits it."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` leaves SIGHUP
                signal.signal(number, lambda number, frame: self.events.put((None, number)))
        status = self._attempt()
        for restart in range(1, restarts + 1):
            if self.stopping or not retryable(status):
                break
            self._log(f"status {status}: restart {restart} of {restarts}")
            status = self._attempt()
        for number in SIGNALS:  # the end of Python would give them their default handlers, which change the status
            signal.signal(number, signal.SIG_IGN)
        return status

    def plan(self) -> list[str]:
        """The shell commands that `run` would start, one per process; each start chooses another port."""
        port = free_port()
        variables = [f"{name}={value}" for name, value in self._variables().items()]
        return [shlex.join(["env", *variables, *self._arguments(index, port)]) for index in range(self.count)]

    def _attempt(self) -> int:
        """Runs the command once, until its last process ends. Returns its exit status."""
        port = free_port()
        children: list[subprocess.Popen] = []
        readers: list[threading.Thread] = []
        try:
            for index in range(self.count):
                children.append(self._start(index, port))  # noqa: PERF401  # an error must find those that started
            # After the last start: `preexec_fn` is only safe in a process of one thread.
            for index, child in enumerate(children):
                readers += self._follow(index, child)
            return self._wait(children)
        except OSError as error:
            self._log(f"{self.command[0]}: cannot be run: {error.strerror}")
            return MISTAKE
        finally:
            kill(children)
            for reader in readers:
                # A process started by them may keep their output open.
                reader.join(timeout=1)

    def _start(self, index: int, port: int) -> subprocess.Popen:
        # In a new session, so that Ctrl-C reaches only the launcher, which forwards it once.
        return subprocess.Popen(self._arguments(index, port), env={**os.environ, **self._variables()},
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True, preexec_fn=_die_with(os.getpid()))

    def _arguments(self, index: int, port: int) -> list[str]:
        return [*self.command, f"--coordinator=127.0.0.1:{port}", f"--processes={self.count}", f"--process={index}"]

    def _variables(self) -> dict[str, str]:
        """Environment variables of each process, besides the launcher's; thread counts that are set already remain."""
        threads = str(max(1, (os.cpu_count() or 1) // self.count))
        defaults = {"NPROC": threads, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
        return {**{name: os.environ.get(name, value) for name, value in defaults.items()},
                "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(self.devices)}

    def _follow(self, index: int, child: subprocess.Popen) -> list[threading.Thread]:
        """Prints a process's output and waits for its end, in threads; returns the threads that print."""
        threading.Thread(target=lambda: self.events.put((index, child.wait())), daemon=True).start()
        readers = [threading.Thread(target=self._print, args=(f"[{index}] ".encode(), source, sink.buffer), daemon=True)
                   for source, sink in ((child.stdout, sys.stdout), (child.stderr, sys.stderr))]
        for reader in readers:
            reader.start()
        return readers

    def _print(self, prefix: bytes, source: io.BufferedReader, sink: BinaryIO) -> None:
        """Prints whole lines until the source ends."""
        rest = b""
        while data := source.read1():
            *lines, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            self._put(sink, prefix, lines)
        self._put(sink, prefix, [rest] if rest else [])

    def _put(self, sink: BinaryIO, prefix: bytes, lines: list[bytes]) -> None:
        with self.printing:
            for line in lines:
                sink.write(prefix + line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n")
            sink.flush()

    def _wait(self, children: list[subprocess.Popen]) -> int:
        """Waits until all have ended, and kills the rest some time after the first. Returns the status of the run."""
        statuses: list[int] = []
        deadline, killed = float("inf"), False
        while len(statuses) < len(children):
            try:
                index, value = self.events.get(timeout=None if deadline == float("inf") else
                                               max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self._log("killing the remaining processes")
                killed, deadline = True, float("inf")
                kill(children)
                continue
            if index is None:
                killed = self._forward(value, children) or killed
                continue
            if self.stopping and -value in SIGNALS:
                value = STOPPED  # it had no signal handler yet, so nothing to save
            statuses.append(PEER_LOST if killed else value)
            agreed = value in (DONE, STOPPED)
            if not (agreed or killed):
                self._log(f"process {index} ended with "
                          f"{f'status {value}' if value >= 0 else signal.Signals(-value).name}")
            deadline = min(deadline, time.monotonic() + (AGREED_SECONDS if agreed else DEATH_SECONDS))
        return run_status(statuses)

    def _forward(self, number: int, children: list[subprocess.Popen]) -> bool:
        """Sends the first signal to each process; a second one kills them, but for SIGHUP. Returns whether it does."""
        if not self.stopping:
            self.stopping = True
            for child in children:
                child.send_signal(number)
        elif number != signal.SIGHUP:  # shells and services send it in addition
            kill(children)
            return True
        return False

    def _log(self, text: str) -> None:
        self._put(sys.stderr.buffer, b"launch: ", [text.encode()])


def run_status(statuses: Sequence[int]) -> int:
    """The exit status of a run, from those of its processes in the order in which they ended.

    It is the first that is not just a consequence of another process's end. PEER_LOST is one, and so is SIGABRT, with
    which JAX's runtime ends a process that lost its peers. Signals become the corresponding exit status.
    """
    statuses = [128 - status if status > 128 else status for status in statuses]
    failures = [status for status in statuses if status != DONE]
    for status in failures:
        if status not in (PEER_LOST, -signal.SIGABRT):
            return status if status > 0 else PEER_LOST if retryable(status) else FAILED
    return PEER_LOST if failures else DONE


def free_port() -> int:
    """A port that is not in use, outside the range from which systems take ports for outgoing connections."""
    while True:
        port = random.randrange(20000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def kill(children: Sequence[subprocess.Popen]) -> None:
    """Kills processes, stopped ones too, and the processes that they started."""
    for child in children:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def _die_with(parent: int) -> Callable[[], None] | None:
    """On Linux, a function for a new process: the kernel will kill it when the launcher dies."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(FAILED)

    return ask


if __name__ == "__main__":
    sys.exit(main())
