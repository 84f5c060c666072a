"""Exit statuses of the command line, and which of them ask to be run again.

Everything that starts runs (what lies under launch/, a scheduler, a script) decides by these.
"""
from __future__ import annotations

import signal

DONE = 0
# A bug, or a run that cannot go on, as when its loss is no longer finite. The same command would end the same way.
FAILED = 1
# A wrong field, file or flag: one line says which, and nothing was changed.
MISTAKE = 2
# Another process of the run died or was lost (EX_SOFTWARE). Run the same command again: it goes on from its checkpoint.
PEER_LOST = 70
# Checkpoints could not be saved (EX_IOERR). Make room or mend the disk, then run the same command again.
SAVES_FAILED = 74
# Stopped by SIGTERM, SIGINT or the time limit, what was done is saved (EX_TEMPFAIL). Run the same command again.
STOPPED = 75


def retryable(status: int) -> bool:
    """Whether the same command, run again with nothing mended, goes on.

    Args:
      status: as a shell gives it, or negative for a signal as `subprocess` gives it.

    True for a stopped run, for a lost peer, and for what a signal ended: SIGKILL is a machine that was taken away or
    had no memory left, SIGABRT is how JAX's runtime ends a process whose peer's heartbeat it misses.
    """
    killed = -status if status < 0 else status - 128
    return status in (PEER_LOST, STOPPED) or killed in (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGHUP)
