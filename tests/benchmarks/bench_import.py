"""Loading a base-size safetensors file: time and memory, against transformers.

  python -m tests.benchmarks.bench_import [--rounds 5]

Each measurement runs in a new process, alternating, with the file in the page cache:

  process   from the start of Python to the loaded model, imports included
  call      from_pretrained alone. transformers maps the file without reading it; ours reads, checks and arranges all
            parameters for the accelerator
  usable    from_pretrained and reading every parameter once, so that both have read the file
  memory    peak of the resident memory above that before the call, as a share of the file's size
"""
from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import transformers

_OURS = """
import jax
jax.config.update("jax_platforms", "cpu")
import spanbert_jax
spanbert_jax.from_pretrained
jax.numpy.ones(3).block_until_ready()
def load():
    return jax.block_until_ready(spanbert_jax.from_pretrained(sys.argv[1], "masked_lm"))
def look(loaded):
    for leaf in jax.tree.leaves(loaded[1]):
        numpy.asarray(leaf).max()
"""
_THEIRS = """
import torch, transformers
transformers.logging.set_verbosity_error()
transformers.BertForMaskedLM
torch.ones(3)
def load():
    return transformers.BertForMaskedLM.from_pretrained(sys.argv[1])
def look(loaded):
    for parameter in loaded.parameters():
        parameter.detach().numpy().max()
"""
_MEASURE = """
import json, numpy, sys, threading, time

PREPARE
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = peak = resident()
done = False
def watch():
    global peak
    while not done:
        peak = max(peak, resident())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
start = time.perf_counter()
loaded = load()
call = time.perf_counter() - start
look(loaded)
usable = time.perf_counter() - start
done = True
watcher.join()
print(json.dumps({"call": call, "usable": usable, "memory": peak - before}))
"""


def measure(prepare: str, folder: pathlib.Path) -> dict[str, float]:
    """Measurements of one process: seconds, and bytes."""
    command = [sys.executable, "-c", _MEASURE.replace("PREPARE", prepare), str(folder)]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    return {"process": seconds, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=28_996)).save_pretrained(folder)
        size = (pathlib.Path(folder) / "model.safetensors").stat().st_size
        figures = [(measure(_OURS, folder), measure(_THEIRS, folder)) for _ in range(rounds + 1)][1:]
    print(f"{size / 1e6:.0f} MB, transformers {transformers.__version__}, medians of {rounds}")
    for name in ("process", "call", "usable", "memory"):
        ours, theirs = (statistics.median(pair[side][name] for pair in figures) for side in (0, 1))
        unit = 1 if name != "memory" else 1 / size
        print(f"{name:8} ours {ours * unit:.2f}  transformers {theirs * unit:.2f}  "
              f"{'seconds' if name != 'memory' else 'of the file'}")


if __name__ == "__main__":
    main()
