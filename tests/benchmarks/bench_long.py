"""Times train steps on one long row, ours against transformers' and against our own with attention by its formula.

  python -m tests.benchmarks.bench_long --lengths 512 2048 4096 8192 --repeats 3

Networks have 6 layers of width 384 without dropout, float32. A step is forward pass, backward pass and AdamW update;
ours also masks the tokens. Each network runs in a process of its own, and the processes of one length take turns, so
that another load on the machine slows all of them down. A cell has the median time, the processor time of the process,
which such a load changes less, and the peak memory of the process. Needs the extra "torch".
"""
import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import rich.console
import rich.table

from spanbert_jax.training.host_memory import keep_freed_memory

VOCABULARY = 28_996
SHAPE = dict(num_layers=6, width=384, num_heads=6)


def ours(architecture: str, feed_forward: int, attention: str, length: int) -> Callable[[], object]:
    """A step of ours, with an attention backend."""
    from tests.benchmarks.bench_step import Ours
    # Without recomputation, attention by its formula keeps all scores of every layer for the backward pass.
    remat = "names" if attention == "plain" and length > 4096 else "none"
    args = argparse.Namespace(size="tiny", rows=1, length=length, layers="unrolled", remat=remat)
    fields = dict(architecture=architecture, feed_forward=feed_forward, max_positions=length, **SHAPE)
    return Ours(args, False, 0.0, attention, **fields)


def theirs(architecture: str, feed_forward: int, attention: str, length: int) -> Callable[[], object]:
    """A step of transformers', with an attention implementation."""
    import torch
    import transformers
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=VOCABULARY, hidden_size=SHAPE["width"], num_hidden_layers=SHAPE["num_layers"],
        num_attention_heads=SHAPE["num_heads"], intermediate_size=feed_forward, max_position_embeddings=length,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0, attn_implementation=attention)
    model = getattr(transformers, f"{architecture}ForMaskedLM")(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    tokens = torch.randint(1000, VOCABULARY, (1, length))
    masked = torch.rand(tokens.shape) < 0.15
    inputs, labels = torch.where(masked, 103, tokens), torch.where(masked, tokens, -100)

    def step() -> None:
        loss = model(inputs, attention_mask=torch.ones_like(inputs), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def local_layer(length: int) -> Callable[[], object]:
    """Forward and backward pass of one local layer of our ModernBERT."""
    import jax
    import jax.numpy as jnp

    from spanbert_jax.model import ComputeConfig
    from spanbert_jax.model.architectures.modernbert import LayerInputs, ModernBertConfig, ModernBertLayer, rotary
    config = ModernBertConfig(vocab_size=1, feed_forward=576, **SHAPE)
    layer = ModernBertLayer(config, ComputeConfig(dtype="float32"), is_global=False)
    x = jax.random.normal(jax.random.key(0), (1, length, config.width))
    angles = rotary(jnp.arange(length)[None], config.width // config.num_heads, config.local_rotary_base)
    inputs = LayerInputs(jnp.ones((1, length), jnp.uint8), angles, angles)
    params = jax.jit(layer.init)(jax.random.key(0), x, inputs, None)  # jitted, it computes no layer
    step = jax.jit(jax.grad(lambda params, x: jnp.sum(layer.apply(params, x, inputs, None)[0]), argnums=(0, 1)))
    return lambda: jax.block_until_ready(step(params, x))


# Columns of the table: function and arguments before the length.
NETWORKS: dict[str, dict[str, tuple[Any, ...]]] = {
    "BERT": {"ours": (ours, "bert", 1536, "auto"), "plain": (ours, "bert", 1536, "plain"),
             "transformers": (theirs, "Bert", 1536, "sdpa")},
    "ModernBERT": {"ours": (ours, "modernbert", 576, "auto"), "plain": (ours, "modernbert", 576, "plain"),
                   "transformers": (theirs, "ModernBert", 576, "sdpa")},
    "local layer": {"ours": (local_layer,)}}


class Process:
    """A network in a process of its own."""

    def __init__(self, network: str, column: str, length: int):
        command = [sys.executable, "-m", "tests.benchmarks.bench_long", "--worker", network, column, str(length)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._times: list[tuple[float, float]] = []
        self.peak = float("nan")  # GB

    def step(self) -> None:
        """Runs one step, after the first which compiles. A process that ended, for want of memory, has no more."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write("step\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return
        if answer := self._process.stdout.readline():
            *times, self.peak = json.loads(answer)
            self._times.append(times)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def seconds(self) -> list[float]:
        """Median time of a step without the first, and of its processors; NaN if it has not run."""
        return [statistics.median(times) for times in zip(*self._times[1:] or [(float("nan"),) * 2], strict=True)]


def worker(network: str, column: str, length: str) -> None:
    """Answers each line of the standard input with both times of a step and the peak memory so far, in GB."""
    keep_freed_memory()  # as in training, for all
    make, *arguments = NETWORKS[network][column]
    run = make(*arguments, int(length))
    for _ in sys.stdin:
        began, busy = time.perf_counter(), time.process_time()
        run()
        print(json.dumps([time.perf_counter() - began, time.process_time() - busy,
                          resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]), flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048, 4096, 8192])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--columns", nargs="+", default=["ours", "transformers"],
                        help="of ours, plain (attention by its formula) and transformers")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", nargs=3)
    args = parser.parse_args()
    if args.worker:
        worker(*args.worker)
        return
    console = rich.console.Console(width=120)
    table = rich.table.Table("network", "tokens", *(f"{column}: s, CPU s, GB" for column in args.columns),
                             *(f"{column} / {args.columns[0]}" for column in args.columns[1:]), "µs per token")
    for network in args.networks:
        columns = [column for column in args.columns if column in NETWORKS[network]]
        for length in args.lengths:
            runs = {column: Process(network, column, length) for column in columns}
            for _ in range(1 + args.repeats):
                for run in runs.values():
                    run.step()
            for run in runs.values():
                run.close()
            cells = {column: (*run.seconds(), run.peak) for column, run in runs.items()}
            first = cells[columns[0]]
            ratios = {column: [value / one for value, one in zip(cell, first)] for column, cell in cells.items()}
            table.add_row(network, f"{length:,}", *(_text(cells.get(column)) for column in args.columns),
                          *(_text(ratios.get(column)) for column in args.columns[1:]),
                          f"{1e6 * first[0] / length:.0f}")
    console.print(table)


def _text(values: Sequence[float] | None) -> str:
    """Numbers of a cell."""
    return ", ".join(f"{value:.2f}" for value in values or ())


if __name__ == "__main__":
    main()
