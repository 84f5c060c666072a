"""Times the train step against Hugging Face's BertForMaskedLM in PyTorch, alternating in one process.

  python -m tests.benchmarks.bench_step --size base --rows 4 --length 512 --repeats 5

Both run forward pass, backward pass and AdamW update on the same shapes in float32. Our step also masks the tokens; it
is timed with the span boundary head and without it, which is the objective of BertForMaskedLM. The share of masking in
the step is printed too, and our model FLOP/s as a share of those of one large matrix product. Needs the extra "torch".
"""
import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console
import rich.table

from spanbert_jax.masking import make_masker
from spanbert_jax.model import SpanBert, train_step_flops
from spanbert_jax.pretraining.config import as_pretraining_config, default_config, pretraining_heads
from spanbert_jax.pretraining.objective import mask_batch, pretraining_objective
from spanbert_jax.text import SpecialIds
from spanbert_jax.training.host_memory import keep_freed_memory
from spanbert_jax.training.mesh import make_mesh, stop_flags
from spanbert_jax.training.optimizers import make_optimizer
from spanbert_jax.training.state import abstract_train_state, create_state
from spanbert_jax.training.step import make_train_step

VOCABULARY = 28_996
PRODUCT = 4096  # rows and columns of the large matrix product


def make_rows(rows: int, length: int) -> dict[str, np.ndarray]:
    """Rows of random tokens, of which four in five start a word."""
    random = np.random.default_rng(0)
    tokens = random.integers(1000, VOCABULARY, (rows, length)).astype(np.int32)
    tokens[:, 0], tokens[:, -1] = 101, 102
    return {"tokens": tokens, "word_starts": (random.random((rows, length)) < 0.8).astype(np.uint8),
            "segments": np.ones((rows, length), np.uint8), "token_types": np.zeros((rows, length), np.uint8),
            "annotations": np.zeros((rows, length), np.uint8), "next_sentence": -np.ones(rows, np.int32)}


class Ours:
    """The train step of a named size, with further fields of the model, on this machine's devices."""

    def __init__(self, args: argparse.Namespace, boundary: bool, dropout: float, attention: str = "auto",
                 dtype: str = "float32", **fields: Any):
        config = default_config()
        config.model.size, config.compute.dtype, config.compute.attention = args.size, dtype, attention
        config.model.update(fields)
        config.model.dropout = config.model.attention_dropout = dropout
        config.compute.layers, config.compute.remat = args.layers, args.remat
        config.objectives.boundary_weight = float(boundary)
        config = as_pretraining_config(config)
        mesh, rules = make_mesh(config.mesh), config.mesh.rules
        self.model = SpanBert(config.model.config(VOCABULARY), pretraining_heads(config), config.compute)
        schedule = optax.constant_schedule(1e-4)
        optimizer = make_optimizer(config.optimizer, schedule)
        masker = make_masker(config.masking, length=args.length, max_blocks=1,
                             special=SpecialIds(0, 100, 101, 102, 103), unigram=np.ones(VOCABULARY, np.int64))
        abstract = abstract_train_state(self.model, optimizer, mesh, rules)
        self.state = create_state(self.model, optimizer, abstract, 0)
        objective = pretraining_objective(self.model, masker, config.objectives, mesh, rules)
        self.step = make_train_step(config, objective, optimizer, schedule, abstract, mesh)
        self.batch = {name: jnp.asarray(values) for name, values in make_rows(args.rows, args.length).items()}
        self.stop_flags = stop_flags(mesh, False)
        self.mask = jax.jit(lambda key, batch: mask_batch(masker, key, batch, mesh, rules))
        self.flops = train_step_flops(self.model.config, args.rows, args.length, masker.max_masked)

    def __call__(self) -> None:
        self.state, *outputs = self.step(self.state, self.batch, self.stop_flags)
        jax.block_until_ready((self.state, outputs))

    def mask_once(self) -> None:
        jax.block_until_ready(self.mask(jax.random.key(0), self.batch))


class HuggingFace:
    """The usual PyTorch step of BertForMaskedLM: logits at every position, label -100 at those that are not masked."""

    def __init__(self, args: argparse.Namespace, dropout: float):
        import torch
        import transformers

        from spanbert_jax.model import BertConfig
        layers, width, heads = map(BertConfig.sizes[args.size].get, ("num_layers", "width", "num_heads"))
        config = transformers.BertConfig(
            vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=4 * width, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        self.model = transformers.BertForMaskedLM(config).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01)
        rows = make_rows(args.rows, args.length)
        self.tokens = torch.tensor(rows["tokens"], dtype=torch.long)
        masked = torch.rand(self.tokens.shape) < 0.15
        self.labels = torch.where(masked, self.tokens, -100)
        self.inputs = torch.where(masked, 103, self.tokens)
        self.attention_mask = torch.ones_like(self.tokens)

    def __call__(self) -> None:
        loss = self.model(self.inputs, attention_mask=self.attention_mask, labels=self.labels).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss.item()


class MatrixProduct:
    """A product of two square float32 matrices."""

    def __init__(self) -> None:
        self.flops = 2 * PRODUCT ** 3
        self._matrix = jnp.ones((PRODUCT, PRODUCT))
        self._multiply = jax.jit(jnp.matmul)

    def __call__(self) -> None:
        jax.block_until_ready(self._multiply(self._matrix, self._matrix))


def seconds(run: Callable[[], object]) -> float:
    """Time of a call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def step_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of `Ours`, and the number of repeats."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", default="unrolled")
    parser.add_argument("--remat", default="none")
    return parser


def main() -> None:
    """Prints the table."""
    parser = step_parser(__doc__)
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.1, 0.0])
    args = parser.parse_args()
    keep_freed_memory()  # as in training, for both
    import torch
    import transformers
    console = rich.console.Console(width=120)
    title = (f"{args.size}, {args.rows} rows of {args.length}, float32, {args.repeats} repeats; "
             f"jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__} "
             f"with {torch.get_num_threads()} threads, transformers {transformers.__version__}")
    table = rich.table.Table("dropout", "step", "median s", "tokens/s", "GFLOP/s", "of a matrix product",
                             "speedup over Hugging Face (median of pairs)", title=title)
    product = MatrixProduct()
    for dropout in args.dropout:
        runs = {"Hugging Face": HuggingFace(args, dropout), "ours": Ours(args, False, dropout),
                "ours with boundary head": Ours(args, True, dropout)}
        for run in (product, *runs.values()):
            run()
            run()
        times, products = {name: list[float]() for name in runs}, list[float]()
        for _ in range(args.repeats):
            products.append(seconds(product))
            for name, run in runs.items():
                times[name].append(seconds(run))
        for name, run in runs.items():
            median = statistics.median(times[name])
            ratio = statistics.median(theirs / own for theirs, own in zip(times["Hugging Face"], times[name]))
            flops = share = "-"
            if isinstance(run, Ours):
                flops = f"{run.flops / median / 1e9:.0f}"
                shares = [run.flops / own * one / product.flops for own, one in zip(times[name], products)]
                share = f"{statistics.median(shares):.0%}"
            table.add_row(f"{dropout}", name, f"{median:.2f}", f"{args.rows * args.length / median:,.0f}", flops,
                          share, f"{ratio:.2f}")
        ours = runs["ours with boundary head"]
        ours.mask_once()
        masking = statistics.median(seconds(ours.mask_once) for _ in range(20))
        share = f"{masking / statistics.median(times['ours with boundary head']):.2%} of our step"
        table.add_row(f"{dropout}", "masking alone", f"{masking:.4f}", f"{args.rows * args.length / masking:,.0f}", "-",
                      "-", share)
        del runs, run, ours
    console.print(table)


if __name__ == "__main__":
    main()
