"""Costs of a checkpoint: how long a save blocks training, when it is complete, and how fast it is verified.

  python -m tests.benchmarks.bench_checkpoint --size base --every 10000
  python -m tests.benchmarks.bench_checkpoint --step-seconds 0.25 --workdir /mnt/fast

The time between saves is the number of steps between them times that of a step, which is given or measured on a few
rows. Verification reads the new files from the page cache; its speed per core is bytes over processor time.
"""
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable

import jax
import rich.console
import rich.table

from spanbert_jax.checkpoints import FOLDER, Checkpointer
from spanbert_jax.checkpoints.fingerprint import fingerprint
from spanbert_jax.checkpoints.folder import manifest_path
from spanbert_jax.checkpoints.manifest import verify
from spanbert_jax.common.manifest import file_sizes
from spanbert_jax.training.host_memory import keep_freed_memory
from spanbert_jax.training.state import TrainState
from tests.benchmarks.bench_step import Ours, seconds, step_parser


def time_save(checkpointer: Checkpointer, folder: pathlib.Path, step: int, state: TrainState) -> dict[str, float]:
    """Seconds from the call until it returns, until Orbax has committed, and until the manifest exists."""
    began, clock = time.perf_counter(), time.time()
    checkpointer.save(step, state, {"config": {}})
    returned = time.perf_counter() - began
    checkpointer.wait()
    return {"save() returns": returned,
            "Orbax has committed": (folder / str(step) / "commit_success.txt").stat().st_mtime - clock,
            "the manifest is there": manifest_path(folder, step).stat().st_mtime - clock,
            "the step before is deleted": time.perf_counter() - began}


def time_reading(read: Callable[[], object], size: int) -> tuple[float, float]:
    """GB/s by the clock, and by processor time. The best of three."""
    speeds = []
    for _ in range(3):
        began, used = time.perf_counter(), time.process_time()
        read()
        speeds.append((size / 1e9 / (time.perf_counter() - began), size / 1e9 / (time.process_time() - used)))
    return max(clock for clock, _ in speeds), max(core for _, core in speeds)


def read_all(folder: pathlib.Path) -> None:
    """Reads the files of a folder and does nothing with them."""
    buffer = memoryview(bytearray(1 << 20))
    for name in file_sizes(folder):
        with open(folder / name, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def main() -> None:
    """Prints two tables."""
    parser = step_parser(__doc__)
    parser.add_argument("--every", type=int, default=10_000, help="steps between saves")
    parser.add_argument("--step-seconds", type=float, help="seconds of a train step (default: measured on --rows)")
    parser.add_argument("--workdir", default=tempfile.gettempdir(), help="on the disk to be measured")
    args = parser.parse_args()
    keep_freed_memory()
    trainer = Ours(args, boundary=True, dropout=0.1)
    step_seconds = args.step_seconds or statistics.median([seconds(trainer) for _ in range(4)][1:])
    state = trainer.state
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    first = seconds(lambda: fingerprint(state))
    marks = statistics.median(seconds(lambda: fingerprint(state)) for _ in range(args.repeats))

    workdir = pathlib.Path(tempfile.mkdtemp(dir=args.workdir))
    folder = workdir / FOLDER
    try:
        with Checkpointer(workdir) as checkpointer:
            time_save(checkpointer, folder, 1, state)
            times = [time_save(checkpointer, folder, step, state) for step in range(2, 2 + args.repeats)]
            step = checkpointer.steps()[-1]
            path, on_disk = folder / str(step), sum(file_sizes(folder / str(step)).values())
            verified = time_reading(lambda: verify(path, manifest_path(folder, step), step), on_disk)
            read = time_reading(lambda: read_all(path), on_disk)
            abstract = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
            resumed = seconds(lambda: checkpointer.resume(abstract, lambda step, metadata: None))
    finally:
        shutil.rmtree(workdir)

    between = args.every * step_seconds
    table = rich.table.Table(
        "after the call of save()", "median ms", "worst ms", "of the time between saves",
        title=f"{args.size}, {size / 1e9:.2f} GB in {len(jax.tree.leaves(state))} arrays, {args.repeats} saves; "
              f"{args.every:,} steps of {step_seconds:.3f} s between them; jax {jax.__version__} on "
              f"{jax.devices()[0].device_kind}")
    for what in times[0]:
        median, worst = statistics.median(each[what] for each in times), max(each[what] for each in times)
        table.add_row(what, f"{median * 1e3:,.0f}", f"{worst * 1e3:,.0f}", f"{median / between:.4%}")
    table.add_row("fingerprint, part of save()", f"{marks * 1e3:,.0f}", f"{first * 1e3:,.0f} (the first)", "")
    speeds = rich.table.Table("reading", "GB/s", "GB/s a core", title=f"{on_disk / 1e9:.2f} GB on disk, in page cache")
    for what, (clock, core) in {"verification": verified, "plain read, one thread": read}.items():
        speeds.add_row(what, f"{clock:.2f}", f"{core:.2f}")
    speeds.add_row("resume(): verified, restored, compared", f"{on_disk / 1e9 / resumed:.2f}", f"({resumed:.1f} s)")
    console = rich.console.Console(width=120)
    console.print(table)
    console.print(speeds)


if __name__ == "__main__":
    main()
