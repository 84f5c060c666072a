"""Time and memory of coreference resolution on texts of different lengths.

  SPANBERT_DATA=../shared/data python -m tests.benchmarks.bench_coreference --model runs/coreference

Each text is the beginning of a novel of LitBank. Each prediction is one command in a process of its own, so that time
and memory include the start of the program and compilation.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import rich.console
import rich.table

from spanbert_jax.interop import load_tokenizer


def main() -> None:
    """Predicts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=pathlib.Path, help="workdir of a trained model")
    parser.add_argument("--tokens", nargs="+", type=int, default=[1_000, 3_000, 15_000, 30_000, 100_000])
    parser.add_argument("--novel", default="1023_bleak_house.txt")
    args = parser.parse_args()
    novels = pathlib.Path(os.environ.get("SPANBERT_DATA", "../shared/data")) / "litbank" / "original"
    text = next(novels.glob(f"*{args.novel}*")).read_text(encoding="utf-8")
    encoding = load_tokenizer(args.model / "model").encode(text[:12 * max(args.tokens)], add_special_tokens=False)
    table = rich.table.Table("tokens", "seconds", "peak GiB", "chains")
    with tempfile.TemporaryDirectory() as folder:
        for count in args.tokens:
            source, output = pathlib.Path(folder) / f"{count}.txt", pathlib.Path(folder) / f"{count}.jsonl"
            source.write_text(text[:encoding.offsets[count - 1][1]], encoding="utf-8")
            seconds, gib = measure(["predict", "--model", str(args.model), "--input", str(source), "--output",
                                    str(output)])
            chains = output.read_text(encoding="utf-8").count("[{")
            table.add_row(f"{count:,}", f"{seconds:.1f}", f"{gib:.2f}", f"{chains:,}")
    rich.console.Console(width=80).print(table)


def measure(arguments: list[str]) -> tuple[float, float]:
    """Wall time in seconds and peak memory in GiB of a command."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "spanbert_jax", *arguments], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)}: status {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss / 2 ** 20


if __name__ == "__main__":
    main()
