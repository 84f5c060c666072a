"""Joining the other processes of a run before any device is used, and leaving them without a hang or an abort.

JAX is imported only where it is used, so that `--help` is fast.
"""
import contextlib
import importlib.util
import os
import re
import socket
import sys
import threading
from typing import NoReturn

from spanbert_jax.cluster.detection import Cluster, Flags, find_cluster, tpu_metadata
from spanbert_jax.cluster.exit_codes import PEER_LOST
from spanbert_jax.cluster.stopping import StopRequest
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.streams import reserve_stdout

# JAX's runtime ends the other processes (with SIGABRT) this long after the last heartbeat of a process.
HEARTBEAT_SECONDS = 10
# Time to wait for the other processes at the start: after a preemption hosts return one by one, and slowly; on one
# machine all processes start together.
JOIN_SECONDS, LOCAL_JOIN_SECONDS = 1800, 60
# Time to wait for the other processes at the end: if all agreed to end, some may still be writing; if only one had an
# error, the others must learn of it soon.
AGREED_SECONDS, ALONE_SECONDS = 55, 3
_NOTICE_SECONDS = 20
_LOCAL = ("127.0.0.1", "localhost", "::1")
# Error messages of Gloo, NCCL, the TPU runtime and JAX's coordination service about a lost process.
_LOST = re.compile(r"^(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED)\b|\b(gloo|nccl|barrier|heartbeats?|peer)\b",
                   re.IGNORECASE)

_joined = False


def join(flags: Flags = Flags()) -> Cluster | None:
    """Joins the other processes of the run, as the flags or the environment describe it. Call it before using a device.

    If the other processes do not join in time, this process ends with PEER_LOST and a message.

    Returns:
      The cluster; None in a run of one process.

    Raises:
      UserError: settings are incomplete or contradict each other, or the coordinator's port is in use.
      Stopped: a stop was requested while waiting for the other processes.
    """
    import jax  # first, because it records in the environment whether it sees TPU chips
    cluster = find_cluster(os.environ, flags, tpu_metadata, importlib.util.find_spec("kubernetes") is not None)
    if cluster is None:
        return None
    if cluster.index == 0 and cluster.address:
        _check_port(cluster)
    # The run handles SIGTERM itself (`stopping`), and its processes must not connect through a proxy.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_check_proxy_envs", False)
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_grpc_proxy"] = ",".join(filter(None, (cluster.host, direct)))  # noqa: SIM112  # gRPC reads this spelling
    reserve_stdout()  # Gloo prints a line there whenever processes connect on CPUs
    global _joined
    _joined = True
    seconds = LOCAL_JOIN_SECONDS if cluster.host in _LOCAL else JOIN_SECONDS
    done = threading.Event()
    threading.Thread(target=_watch, args=(done, cluster, seconds), daemon=True).start()
    try:
        with StopRequest() as stop:
            # Longer than `_watch` waits, because JAX's runtime would end the process with a stack trace.
            stop.interruptible(lambda: _initialize(cluster, seconds + 60))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{cluster.origin}: could not join the run: {' '.join(str(error).split())}") from error
    finally:
        done.set()
    return cluster


def is_joined() -> bool:
    """Returns whether `join` has joined other processes."""
    return _joined


def leave(status: int, agreed: bool) -> int:
    """Ends this process in a run of several processes; in a run of one, returns the status.

    Exit handlers do not run, because JAX's would wait in a barrier for processes that may be lost.

    Args:
      agreed: whether every process ends here and waits for the others. If not, they get a short time to end as well:
        an earlier end of process 0 would abort them.
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
    """Ends the process without waiting for threads or exit handlers. Printed output is flushed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream, a closed pipe, a closed stream
            stream.flush()
    os._exit(status)


def is_lost_peer(error: BaseException | None) -> bool:
    """Returns whether an error means that another process of the run is lost.

    The message decides, because there is no exception type for it: Gloo's failures are a ValueError in one call and a
    JaxRuntimeError in the next.
    """
    while error is not None:
        if isinstance(error, (RuntimeError, ValueError)) and _LOST.search(str(error)):
            return _joined
        error = error.__cause__ or error.__context__
    return False


def _initialize(cluster: Cluster, seconds: int) -> None:
    import jax
    jax.distributed.initialize(
        cluster.address, cluster.count, cluster.index, cluster.local_devices,
        cluster_detection_method=cluster.method, initialization_timeout=seconds,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=AGREED_SECONDS + 5,
        # Otherwise the port is open to the whole network.
        coordinator_bind_address=cluster.address if cluster.host in _LOCAL else None)


def _check_port(cluster: Cluster) -> None:
    """Raises UserError if the coordinator's port is in use, which would crash JAX's runtime."""
    host, port = cluster.host if cluster.host in _LOCAL else "", (cluster.address or "").rpartition(":")[2]
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise UserError(f"{cluster.origin}: port {port} of this machine is in use ({error.strerror}); give all "
                            "processes of the run another one") from None


def _watch(done: threading.Event, cluster: Cluster, seconds: int) -> None:
    """Prints what `join` waits for, and ends the process after the time-out."""
    if done.wait(_NOTICE_SECONDS):
        return
    awaited = "the other processes" if cluster.index == 0 else "process 0"
    prefix = f"spanbert-jax: {cluster.origin}"
    print(f"{prefix}: waiting for {awaited}, up to {seconds} seconds", file=sys.stderr, flush=True)
    if not done.wait(seconds - _NOTICE_SECONDS):
        print(f"{prefix}: {awaited} did not join within {seconds} seconds; if all have the right address, run the same "
              "command again", file=sys.stderr, flush=True)
        end_now(PEER_LOST)
