"""Generation against transformers: tokens per second with the same weights, sources and settings.

  python -m tests.benchmarks.bench_generate
  python -m tests.benchmarks.bench_generate --width 768 --layers 12 --batch 8 --tokens 64

Both generate the same number of tokens for every source, greedily and with beam search, in float32 on all cores of the
CPU; their outputs must be equal. Weights are random. Calls alternate, after a first call of each that is not timed, in
which ours compiles. The machine should be idle.
"""
from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import jax
import numpy as np
import rich.console
import rich.table

from spanbert_jax.generation.incremental import IncrementalDecoder, unstack_layers
from spanbert_jax.generation.search import generate
from spanbert_jax.generation.settings import GenerationSettings
from spanbert_jax.interop.encoder_decoder import load_encoder_decoder

START, END, PAD = 1, 2, 0


def make_network(folder: str, args: argparse.Namespace):
    """A random EncoderDecoderModel of transformers, saved in a folder."""
    import torch
    import transformers

    torch.manual_seed(0)
    fields = dict(vocab_size=args.vocabulary, hidden_size=args.width, num_attention_heads=args.width // 64,
                  num_hidden_layers=args.layers, intermediate_size=4 * args.width)
    both = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.BertConfig(**fields), transformers.BertConfig(**fields, is_decoder=True, add_cross_attention=True))
    network = transformers.EncoderDecoderModel(both).eval()
    network.save_pretrained(folder)
    return network


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("width", 384), ("layers", 6), ("vocabulary", 30_522), ("batch", 16), ("length", 64),
                        ("tokens", 32), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--beams", type=lambda text: [int(word) for word in text.split(",")], default=[1, 4])
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        theirs = make_network(folder, args)
        model, params = load_encoder_decoder(folder)
    tokens = np.random.default_rng(0).integers(1000, args.vocabulary, (args.batch, args.length))
    table = rich.table.Table("beams", "side", "tokens/s", "speedup over transformers", "equal outputs")
    for beams in args.beams:
        sides = {"transformers": make_theirs(theirs, args, beams), "ours": make_ours(model, params, args, beams)}
        results = {side: run(tokens) for side, run in sides.items()}
        seconds = {side: [] for side in sides}
        for _ in range(args.repeats):
            for side, run in sides.items():
                began = time.perf_counter()
                run(tokens)
                seconds[side].append(time.perf_counter() - began)
        speeds = {side: args.batch * args.tokens / statistics.median(times) for side, times in seconds.items()}
        same = np.mean((results["ours"] == results["transformers"]).all(axis=1))
        for side, speed in speeds.items():
            table.add_row(str(beams), side, f"{speed:,.0f}", f"{speed / speeds['transformers']:.2f}",
                          f"{same:.0%} of the texts")
    rich.console.Console(width=110).print(table)


def make_theirs(network, args: argparse.Namespace, beams: int):
    """A function from sources to the outputs of transformers."""
    import torch

    def run(tokens: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs = network.generate(
                torch.tensor(tokens), attention_mask=torch.ones(tokens.shape, dtype=torch.int64), num_beams=beams,
                do_sample=False, min_new_tokens=args.tokens, max_new_tokens=args.tokens, decoder_start_token_id=START,
                eos_token_id=END, pad_token_id=PAD)
        return outputs.numpy()[:, 1:]

    return run


def make_ours(model, params, args: argparse.Namespace, beams: int):
    """A function from sources to our outputs."""
    settings = GenerationSettings(START, END, PAD, args.tokens, min_length=args.tokens, beams=beams)
    params = jax.jit(unstack_layers)(params)
    program = jax.jit(lambda params, tokens, real: generate(IncrementalDecoder(model, params), tokens, real, settings))
    return lambda tokens: np.asarray(program(params, tokens, np.ones_like(tokens))[0])


if __name__ == "__main__":
    main()
