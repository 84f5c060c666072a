"""Writing models in other formats, for `import` and `export`."""
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from spanbert_jax.common.formatting import format_bytes, format_plural
from spanbert_jax.common.paths import user_path
from spanbert_jax.inference.encoder_decoders import convert
from spanbert_jax.inference.model_folder import StoredTask, task_files
from spanbert_jax.interop.exporting import Comparison, export
from spanbert_jax.interop.pretrained import NoTokenizer, Pretrained, find_tokenizer, load_params


@dataclasses.dataclass(frozen=True)
class Converted:
    """A model that was written."""
    out: pathlib.Path  # the directory
    description: str  # what the model is
    comparison: Comparison | None  # of the written model with the original

    def print(self) -> None:
        """Prints what the model is, the comparison, and the files."""
        print(*filter(None, (self.description, self.comparison)), f"Written: {self.out}", sep="\n")
        for path in sorted(self.out.rglob("*")):
            if path.is_file():
                print(f"  {path.relative_to(self.out)}  {format_bytes(path.stat().st_size)}")


def convert_encoder(pretrained: Pretrained, out: str | pathlib.Path, format: str, tokenizer: str | pathlib.Path | None,
                    facts: dict[str, Any] | None, original: pathlib.Path | None = None,
                    stored: StoredTask | None = None) -> Converted:
    """Writes an encoder model in a format.

    Args:
      tokenizer: file of the tokenizer, if the model comes without one.
      facts: about the model's training, stored next to it.
      original: a directory for transformers to compare the outputs with.
      stored: the model's task, if it is fine-tuned, which is written too if `predict` reads the format.
    """
    model, files = pretrained.model(pretrained.head.name), {}
    if stored:
        facts = stored.facts
        if stored.task.head and model.head.name == stored.task.head:
            model = model.clone(head=stored.task.make_head())  # earlier versions stored no problem type
        if format == "huggingface":
            files = task_files(stored, pretrained.path)
    config, step = model.config, f", step {facts['step']:,}" if facts and "step" in facts else ""
    lines = [f"{pretrained.path}{step}: {format_plural(config.num_layers, 'layer')} of width {config.width}, "
             f"{format_plural(config.num_heads, 'attention head')}, {config.vocab_size:,} vocabulary entries, "
             f"{config.max_positions:,} positions; {', '.join(model.head.parts)}"]
    found, why_none = find_tokenizer(pretrained, tokenizer)
    if why_none and stored:
        raise NoTokenizer(why_none)
    if why_none:
        lines.append(f"without a tokenizer: {why_none}")
    params = load_params(pretrained, model)
    comparison = export(model, params, out, format, found, facts, original=original, files=files)
    return Converted(user_path(out), "\n".join(lines), comparison)


def convert_encoder_decoder(path: pathlib.Path, out: str | pathlib.Path, task: str | None,
                            tokenizer: str | pathlib.Path | None,
                            settings: Mapping[str, Any] | None = None) -> Converted:
    """Writes an encoder-decoder model by `inference.encoder_decoders.convert`."""
    fine_tuned, comparison = convert(path, out, task, tokenizer, settings)
    encoder, decoder = fine_tuned.model.config, fine_tuned.model.decoder_config
    description = (f"{path}: {fine_tuned.name}, encoder of {format_plural(encoder.num_layers, 'layer')} of width "
                   f"{encoder.width} and {encoder.vocab_size:,} vocabulary entries, decoder of "
                   f"{format_plural(decoder.num_layers, 'layer')} of width {decoder.width} and "
                   f"{decoder.vocab_size:,} vocabulary entries")
    return Converted(user_path(out), description, comparison)
