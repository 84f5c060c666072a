"""Joining the other processes of a run before any device is touched, and leaving them without hanging or breaking them.

JAX is imported only where it is used, so that the command line's `--help` does not wait for it.
"""
from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
from typing import NoReturn

from spanbert_jax.cluster.detection import Cluster, Flags, find_cluster, has_kubernetes_package, tpu_metadata
from spanbert_jax.cluster.exit_codes import PEER_LOST
from spanbert_jax.cluster.stopping import StopRequest
from spanbert_jax.common.errors import UserError

# After that long without a sign of life from a process the others end (with SIGABRT, by JAX's runtime).
HEARTBEAT_SECONDS = 10
# How long to wait for the others at the start: hosts come back one by one after a preemption, and take their time; on
# one machine they come together or never.
JOIN_SECONDS, LOCAL_JOIN_SECONDS = 1800, 60
# How long a process waits for the others at its end: where all agreed to end, some may still have something to write;
# where one alone may have met a mistake, the others must soon learn of it.
AGREED_SECONDS, ALONE_SECONDS = 55, 3
_NOTICE_SECONDS = 20
_LOCAL = ("127.0.0.1", "localhost", "::1")
# What Gloo, NCCL, the TPU runtime and JAX's coordination service say of a peer that is gone.
_LOST = re.compile(r"^(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED)\b|\b(gloo|nccl|barrier|heartbeats?|peer)\b",
                   re.IGNORECASE)

_joined = False


def join(flags: Flags = Flags()) -> Cluster | None:
    """Joins the other processes of the run that the flags or the environment tell of; to be called before any device.

    Returns:
      What was joined; None in a run of one process.

    Raises:
      UserError: on settings that contradict each other or lack a part, and when the coordinator's port is taken.
      Stopped: on SIGINT or SIGTERM while the others are waited for.

    When the others do not come in time, the process ends with PEER_LOST and a line.
    """
    import jax  # before looking around: it notes in the environment whether it sees TPU chips
    cluster = find_cluster(os.environ, flags, tpu_metadata, has_kubernetes_package())
    if cluster is None:
        return None
    if cluster.index == 0 and cluster.address:
        _check_free(cluster)
    # The run takes SIGTERM itself (`stopping`), and no proxy may stand between its processes.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_check_proxy_envs", False)
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_grpc_proxy"] = ",".join(filter(None, (cluster.host, direct)))
    global _joined
    _joined = True
    seconds = LOCAL_JOIN_SECONDS if _is_local(cluster) else JOIN_SECONDS
    done = threading.Event()
    threading.Thread(target=_watch, args=(done, cluster, seconds), daemon=True).start()
    try:
        with StopRequest() as stop:
            # Longer than `_watch` waits: JAX's runtime ends the process with a stack trace.
            stop.interruptible(lambda: _initialize(cluster, seconds + 60))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{cluster.origin}: could not join the run: {' '.join(str(error).split())}") from error
    finally:
        done.set()
    return cluster


def is_joined() -> bool:
    """Whether `join` has made this process one of many."""
    return _joined


def leave(status: int, agreed: bool) -> int:
    """This process's end in a run of many, which it does not return from; in a run of one, only hands on the status.

    No exit handler runs: JAX's would wait in a barrier for processes that may be gone.

    Args:
      status: to end with.
      agreed: whether every process ends here and is waited for; if not, they are given the time to end alike. The
        process must not vanish before: the first one's end would abort the others.
    """
    if not _joined:
        return status
    import jax
    if status != PEER_LOST:
        disconnecting = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        disconnecting.start()
        disconnecting.join(AGREED_SECONDS if agreed else ALONE_SECONDS)
    end_now(status)


def end_now(status: int) -> NoReturn:
    """Ends the process without waiting for a thread or an exit handler; what was printed is not lost."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a closed pipe, a closed stream
            stream.flush()
    os._exit(status)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process of the run is gone.

    There is no type of its own for it: Gloo's failures come as ValueError from one call and as JaxRuntimeError from the
    next, so the words decide.
    """
    while error is not None:
        if isinstance(error, (RuntimeError, ValueError)) and _LOST.search(str(error)):
            return _joined
        error = error.__cause__ or error.__context__
    return False


def _is_local(cluster: Cluster) -> bool:
    return cluster.host in _LOCAL


def _initialize(cluster: Cluster, seconds: int) -> None:
    import jax
    jax.distributed.initialize(
        cluster.address, cluster.count, cluster.index, cluster.local_devices,
        cluster_detection_method=cluster.method, initialization_timeout=seconds,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=AGREED_SECONDS + 5,
        # Else the port is open to the whole network.
        coordinator_bind_address=cluster.address if _is_local(cluster) else None)


def _check_free(cluster: Cluster) -> None:
    """JAX's runtime dies of a segmentation fault on a taken port."""
    host, port = cluster.host if _is_local(cluster) else "", cluster.address.rpartition(":")[2]
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise UserError(f"{cluster.origin}: port {port} of this machine is taken ({error.strerror}); all processes "
                            "of the run need another one") from None


def _watch(done: threading.Event, cluster: Cluster, seconds: int) -> None:
    """Says what is waited for, and ends the process when it was in vain."""
    if done.wait(_NOTICE_SECONDS):
        return
    awaited = "the other processes" if cluster.index == 0 else "the first process"
    about = f"spanbert-jax: {cluster.origin}"
    print(f"{about}: waiting for {awaited}, up to {seconds} seconds", file=sys.stderr, flush=True)
    if not done.wait(seconds - _NOTICE_SECONDS):
        print(f"{about}: {awaited} did not come within {seconds} seconds; if all were given the right address, run the "
              "same command again", file=sys.stderr, flush=True)
        end_now(PEER_LOST)
