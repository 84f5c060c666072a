"""Exit statuses of the command line.

Launchers (the scripts under launch/, a scheduler) decide by them whether to run the command again.
"""
import signal

DONE = 0
# A bug, or a run that cannot continue, such as one with a loss that is not finite. Running it again would not help.
FAILED = 1
# An invalid field, file or flag: one line names it, and nothing was changed.
MISTAKE = 2
# Another process of the run died or was lost (EX_SOFTWARE). The same command continues from the last checkpoint.
PEER_LOST = 70
# Checkpoints, or the result of another command, could not be written (EX_IOERR). Make room or fix the disk, then run
# the same command again.
NOT_WRITTEN = 74
# Stopped by SIGTERM, SIGINT, SIGHUP or the time limit; the state is saved (EX_TEMPFAIL). The same command continues.
STOPPED = 75


def retryable(status: int) -> bool:
    """Returns whether the same command continues the run without any fix.

    This is so for a stopped run, a lost process, and a process ended by a signal: SIGKILL comes from preemption or lack
    of memory, SIGABRT from JAX's runtime when it misses the heartbeat of another process.

    Args:
      status: exit status as a shell reports it, or the negative signal number as `subprocess` reports it.
    """
    killed = -status if status < 0 else status - 128
    return status in (PEER_LOST, STOPPED) or killed in (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGHUP)
