"""What one GPU reaches: each attention backend against the formula, and train steps against transformers, in bfloat16.

  python -m tests.benchmarks.bench_gpu          # under 8 minutes
  python -m tests.benchmarks.bench_gpu --dry    # tiny sizes on the CPU, to see that it runs

Attention is timed forward and backward on two rows, with segments and padding. Errors are shares of the largest value
of the formula's result in float32. "Times as fast" compares with the formula, and transformers with us. A step is
forward pass, backward pass and AdamW update, without dropout; ours also masks the tokens. transformers runs with SDPA,
autocast to bfloat16 and the fused AdamW. Its MFU is of our model FLOPs, which count the head at masked tokens only.
Parts that would begin after 7 minutes are left out. Needs the extra "torch", built for CUDA.
"""
from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too

import jax
import numpy as np
import rich.console
import rich.table

from spanbert_jax.common.formatting import format_plural
from spanbert_jax.model import ARCHITECTURES, ModelConfig
from spanbert_jax.model.attention import BACKENDS, AttentionBackend, AttentionInputs, AttentionSpec
from spanbert_jax.planning.hardware import CHIPS
from tests.benchmarks.bench_step import VOCABULARY, Ours, make_rows, seconds
from tests.model.attention.cases import attend, gradient_above, make_inputs

LAST_START = 420.0  # seconds after the start


@dataclasses.dataclass(frozen=True)
class Case:
    """Rows of one length of a network."""
    architecture: str
    size: str
    length: int
    rows: int  # in a step

    @property
    def model(self) -> ModelConfig:
        return ARCHITECTURES.get(self.architecture).named(self.size, vocab_size=VOCABULARY, max_positions=self.length,
                                                          dropout=0.0, attention_dropout=0.0)

    def __str__(self) -> str:
        return f"{self.architecture} {self.size}, {self.length:,}"


CASES = (Case("bert", "base", 512, 64), Case("modernbert", "base", 1024, 32), Case("modernbert", "base", 8192, 4))
DRY_CASES = (Case("bert", "tiny", 32, 2), Case("modernbert", "tiny", 64, 2), Case("modernbert", "tiny", 256, 1))


class Benchmark:
    """The table and what its parts share."""

    def __init__(self, dry: bool):
        self.repeats, self.dry, self.began = 2 if dry else 10, dry, time.monotonic()
        self.device = jax.devices()[0]
        kind = self.device.device_kind.lower()
        self.peak = next((chip.flops for name, chip in CHIPS.items() if name in kind and chip.flops), 0.0)
        self.table = rich.table.Table("network", "part", "ms", "times as fast", "error", "error of gradients", "MFU",
                                      title=f"{self.device.device_kind}, jax {jax.__version__}, bfloat16")

    def time(self, run: Callable[[], object]) -> float:
        """Median seconds of a call that waits for its result, after two that compile and warm up."""
        run(), run()
        return statistics.median(seconds(run) for _ in range(self.repeats))

    def add(self, case: Case, part: str, run: Callable[[], tuple[float, float, list[float]]], baseline: float) -> float:
        """Runs one part, which returns seconds, FLOPs and errors, and adds its line. Returns the seconds."""
        if time.monotonic() - self.began > LAST_START:
            self.table.add_row(str(case), part, "no time left")
            return 0.0
        try:
            taken, flops, errors = run()
        except Exception as error:  # out of memory, a backend that the GPU refuses, PyTorch without CUDA
            self.table.add_row(str(case), part, f"{type(error).__name__}: {' '.join(str(error).split())[:60]}")
            return 0.0
        utilization = f"{flops / taken / self.peak:.1%}" if self.peak else "-"
        ratio = f"{baseline / taken:.2f}" if baseline else "-"
        self.table.add_row(str(case), part, f"{1e3 * taken:.2f}", ratio, *(f"{each:.1e}" for each in errors or ()),
                           *[""] * (0 if errors else 2), utilization)
        return taken


def add_attention(benchmark: Benchmark, case: Case) -> None:
    """Adds all backends for each kind of layer."""
    model = case.model
    for spec in model.attention_specs:
        inputs = make_inputs(spec, case.length, model.num_heads, "bfloat16", rotary=case.architecture == "modernbert")
        inputs = jax.tree.map(lambda array: array[:2], inputs)  # without the row of padding only
        exact = inputs._replace(projections=tuple(flat.astype("float32") for flat in inputs.projections))
        above = gradient_above(inputs)
        with jax.default_matmul_precision("highest"):
            right = jax.device_get(attention_program(BACKENDS.get("plain"), spec)(exact, above.astype("float32")))
        baseline = 0.0
        for name in reversed(BACKENDS.names()):  # the formula is last
            backend = BACKENDS.get(name)
            if backend.unsupported_reason(benchmark.device.platform, case.length, model.num_heads, [spec], "bfloat16"):
                continue
            taken = benchmark.add(case, f"{name}, window {spec.window}" if spec.window else name,
                                  lambda backend=backend: run_attention(benchmark, backend, inputs, spec, above, right),
                                  baseline)
            baseline = baseline or taken


def attention_program(backend: AttentionBackend, spec: AttentionSpec) -> Callable[..., tuple[jax.Array, ...]]:
    """The context, and from its gradient those of queries, keys and values."""
    def run(inputs: AttentionInputs, above: jax.Array) -> tuple[jax.Array, ...]:
        context, pull = jax.vjp(lambda *flat: attend(backend, inputs._replace(projections=flat), spec),
                                *inputs.projections)
        return context, *pull(above)

    return jax.jit(run)


def run_attention(benchmark: Benchmark, backend: AttentionBackend, inputs: AttentionInputs, spec: AttentionSpec,
                  above: jax.Array, right: tuple[np.ndarray, ...]) -> tuple[float, float, list[float]]:
    """Seconds, model FLOPs and errors of one backend."""
    program = attention_program(backend, spec)
    real = np.asarray(inputs.segments)[..., None] > 0
    errors = [float(np.abs(real * (np.asarray(got, np.float32) - exact)).max() / np.abs(real * exact).max())
              for got, exact in zip(program(inputs, above), right, strict=True)]
    rows, length, width = above.shape
    keys = min(length, spec.window + 1) if spec.window else length
    taken = benchmark.time(lambda: jax.block_until_ready(program(inputs, above)))
    return taken, 3 * 4.0 * rows * length * keys * width, [errors[0], max(errors[1:])]


def add_steps(benchmark: Benchmark, case: Case) -> None:
    """Adds a step of transformers and one of ours."""
    def ours() -> tuple[float, float, list[float]]:
        args = argparse.Namespace(size=case.size, rows=case.rows, length=case.length, layers="unrolled", remat="none")
        step = Ours(args, False, 0.0, dtype="bfloat16", architecture=case.architecture, max_positions=case.length)
        flops.append(step.flops)
        return benchmark.time(step), step.flops, []

    def transformers() -> tuple[float, float, list[float]]:
        return benchmark.time(transformers_step(case, benchmark.dry)), flops[0], []

    flops: list[float] = []
    own = benchmark.add(case, f"step, {format_plural(case.rows, 'row')}", ours, 0.0)
    jax.clear_caches()
    if own:
        benchmark.add(case, "the same in transformers", transformers, own)


def transformers_step(case: Case, dry: bool) -> Callable[[], None]:
    """The step of the same network in transformers."""
    import torch
    import transformers
    model, device = case.model, "cpu" if dry else "cuda"
    kind = {"bert": "Bert", "modernbert": "ModernBert"}[case.architecture]
    options: dict[str, Any] = {"reference_compile": False} if kind == "ModernBert" else {
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY, hidden_size=model.width, num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads, intermediate_size=model.feed_forward, pad_token_id=0,
        max_position_embeddings=case.length, attn_implementation="sdpa", **options)
    network = getattr(transformers, f"{kind}ForMaskedLM")(config).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.01, fused=not dry)
    tokens = torch.tensor(make_rows(case.rows, case.length)["tokens"], dtype=torch.long, device=device)
    masked = torch.rand(tokens.shape, device=device) < 0.15
    inputs, labels = torch.where(masked, 103, tokens), torch.where(masked, tokens, -100)

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = network(inputs, attention_mask=torch.ones_like(inputs), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for the device
        if not dry:
            torch.cuda.synchronize()

    return step


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU")
    args = parser.parse_args()
    if args.dry:
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        parser.error(f"the devices are {jax.default_backend().upper()}s; run it where JAX finds a GPU, or with --dry")
    benchmark = Benchmark(args.dry)
    for case in DRY_CASES if args.dry else CASES:
        add_attention(benchmark, case)
    for case in DRY_CASES if args.dry else CASES:
        add_steps(benchmark, case)
    rich.console.Console(width=120).print(benchmark.table)


if __name__ == "__main__":
    main()
