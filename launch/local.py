"""Runs a command as several processes of simulated devices on this machine, as it would run on many.

  python launch/local.py --processes 2 --devices 2 -- spanbert-jax train --config configs/quickstart.py --workdir runs/q

Each process gets the flags by which it joins the others (--coordinator, --processes, --process). Each line they print
comes with its process, as `[1] `; of a line that rewrites itself, such as a progress bar, only its last state is shown.

SIGINT and SIGTERM are handed on once, for the processes to save and end together; a second one kills them. When a
process dies, the others are given a few seconds to end by themselves and then killed. The exit status is one of
`spanbert_jax.cluster.exit_codes`: of the process that says why, not of those that ended for want of it. After a status
that asks for it the command is run again, up to --restarts times, and goes on from its last checkpoint.

--dry-run prints the command and the variables of each process, and starts none.
"""
from __future__ import annotations

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
from types import FrameType
from typing import BinaryIO

from spanbert_jax.cluster.exit_codes import DONE, FAILED, MISTAKE, PEER_LOST, STOPPED, retryable

# How long the others may take to end by themselves: after a death, and after an end that all agreed on.
DEATH_SECONDS, AGREED_SECONDS = 2, 60
_LONGEST_LINE = 1 << 16
_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command, again if need be, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--devices", type=int, default=1, metavar="M",
                        help="simulated CPU devices of each process (default: %(default)s)")
    parser.add_argument("--restarts", type=int, default=0, metavar="R",
                        help="run the command again so often, if its status asks for it (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be run, and run nothing")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what each process runs")
    args = parser.parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("no command given; write it behind --")
    if args.processes < 1 or args.devices < 1 or args.restarts < 0:
        parser.error("--processes and --devices must be at least 1, --restarts at least 0")
    launcher = Launcher(command, args.processes, args.devices)
    if args.dry_run:
        print("\n".join(launcher.plan()))
        return DONE
    return launcher.run(args.restarts)


class Launcher:
    """The processes of a command, and what they are told."""

    def __init__(self, command: Sequence[str], processes: int, devices: int):
        """Starts nothing yet."""
        self.command, self.count, self.devices = command, processes, devices
        # What happens, as it happens: (index, exit status) of a process that ended, or (None, signal).
        self.events: queue.SimpleQueue[tuple[int | None, int]] = queue.SimpleQueue()
        self.printing = threading.Lock()
        self.told_to_stop = False

    def run(self, restarts: int) -> int:
        """Runs the command until its status asks for no more, or has been run again `restarts` times."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
        status = self._attempt()
        for restart in range(1, restarts + 1):
            if self.told_to_stop or not retryable(status):
                break
            self._say(f"status {status}: restart {restart} of {restarts}")
            status = self._attempt()
        return status

    def plan(self) -> list[str]:
        """What `run` would start, as a line of shell for each process; the port is drawn anew at each start."""
        port = free_port()
        variables = [f"{name}={value}" for name, value in self._variables().items()]
        return [shlex.join(["env", *variables, *self._arguments(index, port)]) for index in range(self.count)]

    def _attempt(self) -> int:
        """Runs the command once, from the start of its processes to the end of the last. Returns its exit status."""
        port = free_port()
        children: list[subprocess.Popen] = []
        readers: list[threading.Thread] = []
        try:
            for index in range(self.count):
                children.append(self._start(index, port))
            # Not before the last has started: `preexec_fn` is safe only in a process of one thread.
            for index, child in enumerate(children):
                readers += self._follow(index, child)
            return self._attend(children)
        except OSError as error:
            self._say(f"{self.command[0]}: cannot be run: {error.strerror}")
            return MISTAKE
        finally:
            kill(children)
            for reader in readers:
                # No longer where something they started still holds their output.
                reader.join(timeout=1)

    def _start(self, index: int, port: int) -> subprocess.Popen:
        # A session of its own: Ctrl-C reaches only the launcher, which hands it on once.
        return subprocess.Popen(self._arguments(index, port), env={**os.environ, **self._variables()},
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True, preexec_fn=_die_with(os.getpid()))

    def _arguments(self, index: int, port: int) -> list[str]:
        return [*self.command, f"--coordinator=127.0.0.1:{port}", f"--processes={self.count}", f"--process={index}"]

    def _variables(self) -> dict[str, str]:
        """What the environment of each process has beside that of the launcher, whose number of threads goes before."""
        threads = str(max(1, (os.cpu_count() or 1) // self.count))
        defaults = {"NPROC": threads, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
        return {**{name: os.environ.get(name, value) for name, value in defaults.items()},
                "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(self.devices)}

    def _follow(self, index: int, child: subprocess.Popen) -> list[threading.Thread]:
        """Prints what a process prints and notes its end, in threads; returns those that print."""
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
        # Whoever reads may be gone; the processes go on.
        with self.printing, contextlib.suppress(OSError, ValueError):
            for line in lines:
                sink.write(prefix + line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n")
            sink.flush()

    def _attend(self, children: list[subprocess.Popen]) -> int:
        """Waits until all have ended, and sees to it that they do once one has. Returns the status of the whole."""
        statuses: list[int] = []
        deadline, killed = float("inf"), False
        while len(statuses) < len(children):
            try:
                index, value = self.events.get(timeout=None if deadline == float("inf") else
                                               max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self._say("killing the processes that are left")
                killed, deadline = True, float("inf")
                kill(children)
                continue
            if index is None:
                killed = killed or self.told_to_stop
                self._hand_on(value, children)
                continue
            if self.told_to_stop and value in (-signal.SIGINT, -signal.SIGTERM):
                value = STOPPED  # before it listened to signals, so before it had anything to save
            statuses.append(PEER_LOST if killed else value)
            agreed = value in (DONE, STOPPED)
            if not (agreed or killed):
                self._say(f"process {index} ended with {describe(value)}")
            deadline = min(deadline, time.monotonic() + (AGREED_SECONDS if agreed else DEATH_SECONDS))
        return telling(statuses)

    def _hand_on(self, number: int, children: list[subprocess.Popen]) -> None:
        """The first signal to each process; at the second they are killed."""
        if self.told_to_stop:
            kill(children)
            return
        self.told_to_stop = True
        for child in children:
            child.send_signal(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.events.put((None, number))

    def _say(self, text: str) -> None:
        self._put(sys.stderr.buffer, b"launch: ", [text.encode()])


def telling(statuses: Sequence[int]) -> int:
    """The exit status of a run, of those of its processes in the order in which they ended.

    The first that is not a mere consequence of another process's end: that is what a lost peer and SIGABRT, by which
    JAX's runtime ends a process without its peers, are. Signals become the exit code that they amount to.
    """
    statuses = [128 - status if status > 128 else status for status in statuses]
    failures = [status for status in statuses if status != DONE]
    for status in failures:
        if status not in (PEER_LOST, -signal.SIGABRT):
            return status if status > 0 else PEER_LOST if retryable(status) else FAILED
    return PEER_LOST if failures else DONE


def describe(status: int) -> str:
    """An exit status in words."""
    return f"status {status}" if status >= 0 else signal.Signals(-status).name


def free_port() -> int:
    """A port nobody listens on, outside the range from which systems take ports for connections."""
    while True:
        port = random.randrange(20000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def kill(children: Sequence[subprocess.Popen]) -> None:
    """Ends processes there and then, stopped ones too, with what they have started."""
    for child in children:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def _die_with(parent: int) -> Callable[[], None] | None:
    """What a new process does first, on Linux: asks to be killed when the launcher dies, however it dies."""
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
