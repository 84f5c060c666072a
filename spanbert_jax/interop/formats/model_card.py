"""The README.md of an exported model."""
import textwrap
from collections.abc import Mapping
from typing import Any

from spanbert_jax.common.formatting import format_metric, format_plural
from spanbert_jax.interop.configuration import transformers_class
from spanbert_jax.model import EncoderDecoder, EncoderModel

_USE = {
    "huggingface": """
        ```python
        from transformers import AutoTokenizer, {architecture}
        tokenizer = AutoTokenizer.from_pretrained("DIR")
        model = {architecture}.from_pretrained("DIR")
        ```
        """,
    "reference": "Give the directory to the original's scripts as `--model`, or read it here again.\n",
    "tensorflow": """
        ```python
        import tensorflow as tf
        run = tf.saved_model.load("DIR").signatures["serving_default"]
        outputs = run(input_ids=..., attention_mask=..., token_type_ids=...)  # int32 [batch, sequence]
        ```
        """,
    "onnx": """
        ```python
        import onnxruntime
        session = onnxruntime.InferenceSession("DIR/model.onnx")
        # int64 [batch, sequence] each{note}
        outputs = session.run(None, {{"input_ids": ..., "attention_mask": ...{types}}})
        ```
        """,
    "stablehlo": """
        ```python
        import jax, safetensors.flax
        exported = jax.export.deserialize(bytearray(open("DIR/model.stablehlo", "rb").read()))
        weights = safetensors.flax.load_file("DIR/params.safetensors")
        outputs = exported.call(weights, input_ids, attention_mask, token_type_ids)  # int32 [batch, sequence]
        ```
        """,
}
_OURS = """
    ```python
    import spanbert_jax
    model, params = spanbert_jax.from_pretrained("DIR", head={head})
    ```
    """
_PIPELINE = """
    ```python
    import spanbert_jax
    predict = spanbert_jax.pipeline("{task}", "DIR")
    ```
    """
# Of models that tell the texts of a pair apart, in the usage of "onnx".
_TYPES = {"types": ', "token_type_ids": ...', "note": "; token_type_ids are zeros for single texts"}
_TO_FILL = "(to be filled in)"


def model_card(name: str, model: EncoderModel | EncoderDecoder, format: str, facts: Mapping[str, Any] | None) -> str:
    """Returns a description, usage, training, scores, and fields for the author to fill in.

    Args:
      model: a model of another kind is described by its `config`, an encoder's.
      facts: of pretraining: "step", "config", "corpus" and, after an evaluation, "evaluation". Of a fine-tuned model:
        "task" and, if known, "data", "examples" (by part), "step", "batch_size", "init_from", "optimizer",
        "learning_rate", "schedule" and "scores" (by part). None if nothing is known.
    """
    config, facts = model.config, facts or {}
    description, architecture = _kind(model)
    ours = _PIPELINE if "task" in facts and format == "huggingface" else _OURS
    head = f'"{model.head.name}"' if isinstance(model, EncoderModel) and model.head.name else None
    parts = [
        "---", "library_name: transformers" if format == "huggingface" else f"tags: [{format}]",
        "license: other  # to be filled in", "---", "", f"# {name}", "",
        f"{description} of the architecture {config.architecture!r}, "
        + (f"fine-tuned for {facts['task'].replace('_', ' ')} and " if "task" in facts else "")
        + "exported by spanbert-jax.", "",
        f"{format_plural(config.num_layers, 'layer')} of width {config.width} with "
        f"{format_plural(config.num_heads, 'attention head')}, {config.vocab_size:,} vocabulary entries, texts of up "
        f"to {config.max_positions} tokens.", "", "## Use", ""]
    types = _TYPES if config.token_types > 1 else dict.fromkeys(_TYPES, "")
    for use in (_USE[format], ours if format in ("huggingface", "reference", "stablehlo") else ""):
        task = facts.get("task", "").replace("_", "-")
        parts += [textwrap.dedent(use).strip().format(architecture=architecture, head=head, task=task, **types), ""]
    return "\n".join([*parts, "## Training", "", *_training(facts), "", "## Scores", "", *_scores(facts), "",
                      "## Licence", "", f"- of these weights: {_TO_FILL}", f"- of the training data: {_TO_FILL}",
                      f"- contact: {_TO_FILL}", ""])


def _kind(model: Any) -> tuple[str, str]:
    """A model in words, and its class in transformers."""
    if isinstance(model, EncoderDecoder):
        return "An encoder with a decoder", "EncoderDecoderModel"
    encoder = model if isinstance(model, EncoderModel) else EncoderModel(model.config)
    return encoder.head.description, transformers_class(encoder)


def _training(facts: Mapping[str, Any]) -> list[str]:
    if "step" not in facts:
        return [f"- data: {_TO_FILL}", f"- steps: {_TO_FILL}"]
    if "task" in facts:
        return [f"- data: `{facts['data']}`, {format_plural(facts['examples']['train'], 'example')}",
                f"- steps: {facts['step']:,} of {format_plural(facts['batch_size'], 'example')} each, initialized from "
                f"`{facts['init_from']}`", _optimizer(facts["optimizer"], facts["learning_rate"], facts["schedule"])]
    data, corpus, train = facts["config"]["data"], facts["corpus"], facts["config"]["train"]
    sources = ", ".join(f"`{source}`" for source in data["sources"]) or f"`{data['path']}`"
    optimizer = facts["config"]["optimizer"]
    initial = facts["config"].get("init_from")
    # Runs of earlier versions have the schedule's name in the optimizer's section.
    schedule = facts["config"].get("schedule", {}).get("name") or optimizer["schedule"]
    return [
        f"- data: {sources}, {format_plural(corpus['training_rows'], 'row')} of {corpus['length']} tokens",
        f"- steps: {facts['step']:,} of {format_plural(train['batch_size'], 'row')} each"
        + (f", initialized from `{initial}`" if initial else ""),
        f"- masking: {facts['config']['masking']['scheme']}, {facts['config']['masking']['rate']:.0%} of the tokens",
        _optimizer(optimizer["name"], optimizer["learning_rate"], schedule)]


def _optimizer(name: str, rate: float, schedule: str) -> str:
    return f"- optimiser: {name}, learning rate {rate:g}, schedule {schedule}"


def _scores(facts: Mapping[str, Any]) -> list[str]:
    if parts := facts.get("scores"):
        return [f"- {part}, {format_plural(facts['examples'][part], 'example')}: "
                + ", ".join(f"{name} {format_metric(name, value)}" for name, value in scores.items()
                            if isinstance(value, float) and "/" not in name) for part, scores in parts.items()]
    figures = facts.get("evaluation")
    if not figures:
        return [f"- {_TO_FILL}"]
    lines = [f"- masked tokens of held-out documents: loss {figures['masked_loss']:.3f} nats, perplexity "
             f"{figures['perplexity']:.1f}, accuracy {figures['masked_accuracy']:.1%} (step {figures['step']:,})"]
    if "boundary_loss" in figures:
        lines.append(f"- the same tokens from their span's boundaries: loss {figures['boundary_loss']:.3f} nats, "
                     f"accuracy {figures['boundary_accuracy']:.1%}")
    return lines
