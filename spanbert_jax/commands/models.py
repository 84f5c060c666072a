"""What the verbs that bring networks in and out say of them."""
from __future__ import annotations

import pathlib

from spanbert_jax.common.formatting import format_bytes
from spanbert_jax.interop.exporting import Comparison
from spanbert_jax.model import EncoderModel


def describe(model: EncoderModel) -> str:
    """A network in a line."""
    config = model.config
    return (f"{config.num_layers} layers of width {config.width}, {config.num_heads} attention heads, "
            f"{config.vocab_size:,} pieces, {config.max_positions:,} positions; {', '.join(model.head.parts)}")


def carry_writer(path: pathlib.Path, out: str, task: str | None, tokenizer: str | None) -> int:
    """Brings a network that writes in or out, and says so; `task` and `tokenizer` as `inference.encoder_decoders.convert` has
    them."""
    from spanbert_jax.inference.encoder_decoders import convert
    fine_tuned, comparison = convert(path, out, task, tokenizer)
    config, decoder = fine_tuned.model.config, fine_tuned.model.decoder_config
    print(f"{path}: {fine_tuned.name}, {config.num_layers} layers of width {config.width} that read and "
          f"{decoder.num_layers} of width {decoder.width} that write, {config.vocab_size:,} and {decoder.vocab_size:,} "
          "pieces")
    say_what_was_written(out, comparison, "")
    return 0


def say_what_was_written(out: str | pathlib.Path, comparison: Comparison | None, why_no_tokenizer: str) -> None:
    """The last lines of such a verb."""
    if why_no_tokenizer:
        print(f"no tokenizer goes along: {why_no_tokenizer}")
    if comparison:
        print(comparison)
    print(f"Written: {out}")
    for path in sorted(pathlib.Path(out).rglob("*")):
        if path.is_file():
            print(f"  {path.relative_to(out)}  {format_bytes(path.stat().st_size)}")
