"""The README.md of an exported model."""
import textwrap
from collections.abc import Mapping
from typing import Any

from spanbert_jax.interop.configuration import transformers_class
from spanbert_jax.model import EncoderModel

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
        # int64 [batch, sequence] each
        outputs = session.run(None, {{"input_ids": ..., "attention_mask": ..., "token_type_ids": ...}})
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
_TO_FILL = "(to be filled in)"


def model_card(name: str, model: EncoderModel, format: str, facts: Mapping[str, Any] | None) -> str:
    """Returns a description, usage, training, scores, and fields for the author to fill in.

    `facts` of the training run are None, or "step", "config", "corpus" and, after an evaluation, "evaluation".
    """
    config, facts = model.config, facts or {}
    parts = [
        "---", "library_name: transformers" if format == "huggingface" else f"tags: [{format}]",
        "license: other  # to be filled in", "---", "", f"# {name}", "",
        f"{model.head.description} of the architecture {config.architecture!r}, exported by spanbert-jax.", "",
        f"{config.num_layers} layers of width {config.width} with {config.num_heads} attention heads, "
        f"{config.vocab_size:,} vocabulary entries, texts of up to {config.max_positions} tokens.", "", "## Use", ""]
    for use in (_USE[format], _OURS if format in ("huggingface", "reference", "stablehlo") else ""):
        head = f'"{model.head.name}"' if model.head.name else None
        parts += [textwrap.dedent(use).strip().format(architecture=transformers_class(model), head=head), ""]
    return "\n".join([*parts, "## Training", "", *_training(facts), "", "## Scores", "", *_scores(facts), "",
                      "## Licence", "", f"- of these weights: {_TO_FILL}", f"- of the training data: {_TO_FILL}",
                      f"- contact: {_TO_FILL}", ""])


def _training(facts: Mapping[str, Any]) -> list[str]:
    if not facts:
        return [f"- data: {_TO_FILL}", f"- steps: {_TO_FILL}"]
    data, corpus, train = facts["config"]["data"], facts["corpus"], facts["config"]["train"]
    sources = ", ".join(f"`{source}`" for source in data["sources"]) or f"`{data['path']}`"
    optimizer = facts["config"]["optimizer"]
    initial = facts["config"].get("init_from")
    # Runs of earlier versions have the schedule's name in the optimizer's section.
    schedule = facts["config"].get("schedule", {}).get("name") or optimizer["schedule"]
    return [
        f"- data: {sources}, {corpus['training_rows']:,} rows of {corpus['length']} tokens",
        f"- steps: {facts['step']:,} of {train['batch_size']:,} rows each"
        + (f", initialized from `{initial}`" if initial else ""),
        f"- masking: {facts['config']['masking']['scheme']}, {facts['config']['masking']['rate']:.0%} of the tokens",
        f"- optimiser: {optimizer['name']}, learning rate {optimizer['learning_rate']:g}, schedule {schedule}"]


def _scores(facts: Mapping[str, Any]) -> list[str]:
    figures = facts.get("evaluation")
    if not figures:
        return [f"- {_TO_FILL}"]
    lines = [f"- masked tokens of held-out documents: loss {figures['masked_loss']:.3f} nats, perplexity "
             f"{figures['perplexity']:.1f}, accuracy {figures['masked_accuracy']:.1%} (step {figures['step']:,})"]
    if "boundary_loss" in figures:
        lines.append(f"- the same tokens from their span's boundaries: loss {figures['boundary_loss']:.3f} nats, "
                     f"accuracy {figures['boundary_accuracy']:.1%}")
    return lines
