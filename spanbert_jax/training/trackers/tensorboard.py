"""TensorBoard event files."""
import pathlib
import socket
import struct
import sys
import time

from spanbert_jax.common.errors import UserError
from spanbert_jax.training.trackers.record_file import Metrics, RecordFile

# Hide torch from tensorboardX, whose import of it would take as long as all other imports together.
_hidden = "torch" not in sys.modules
if _hidden:
    sys.modules["torch"] = None  # type: ignore[assignment]
try:
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import masked_crc32c
finally:
    if _hidden:
        del sys.modules["torch"]

TENSORBOARD_FOLDER = "tensorboard"


class TensorBoard:
    """Writes the numbers among the metrics to WORKDIR/tensorboard, as KIND/NAME."""

    def __init__(self, workdir: pathlib.Path, first_step: int = 0):
        """Writes nothing yet; the first record makes TensorBoard ignore earlier metrics of steps after `first_step`.

        Raises UserError if WORKDIR/tensorboard is a file.
        """
        folder = workdir / TENSORBOARD_FOLDER
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise UserError(f"{folder}: no directory of this run; move it out of the way")
        # TensorBoard reads event files in the order of their names.
        path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._file = RecordFile(path, header=_header(first_step + 1), create_folder=True)

    def write(self, step: int, kind: str, metrics: Metrics) -> None:
        """Appends an event; raises OSError if it cannot be written yet."""
        values = [Summary.Value(tag=f"{kind}/{name}", simple_value=value) for name, value in metrics.items()
                  if isinstance(value, (int, float))]
        self._file.append(_record(Event(wall_time=time.time(), step=step, summary=Summary(value=values))))
        self._file.flush()

    def close(self) -> None:
        """Writes pending events; raises OSError if they cannot be written."""
        self._file.flush()


def _header(first_purged_step: int) -> bytes:
    """The start of an event file: its version, and from which step on earlier files do not count."""
    return b"".join(map(_record, [
        Event(wall_time=time.time(), file_version="brain.Event:2"),
        Event(wall_time=time.time(), step=first_purged_step, session_log=SessionLog(status=SessionLog.START))]))


def _record(event: Event) -> bytes:
    """An event as stored in the file: size, checksum of the size, event, checksum of the event.

    tensorboardX's own writers are not used: they buffer partial records, so that the state of file and buffer is
    unknown after a failed write, and SummaryWriter hangs once its thread has died of one.
    """
    data = event.SerializeToString()
    size = struct.pack("<Q", len(data))
    return b"".join([size, struct.pack("<I", masked_crc32c(size)), data, struct.pack("<I", masked_crc32c(data))])
