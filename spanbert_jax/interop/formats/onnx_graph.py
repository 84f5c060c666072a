"""The network as an ONNX graph.

Written by hand with `onnx.helper`: jax2onnx needs an older orbax-checkpoint than this project, and PyTorch's exporter
needs PyTorch and would follow transformers' code.
"""
from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from spanbert_jax.model.attention.plain import CLAMP, MASKED_SCORE
from spanbert_jax.model.config import ModelConfig

# The first set of operators with an exact Gelu.
OPSET = 20
# Protobuf writes no more than 2^31 - 1 bytes; the rest is for the nodes.
MAX_WEIGHT_BYTES = 2_000_000_000

POSITIONS = ("batch", "sequence")
# name: (value, shape), named as the fields of `spanbert_jax.model.encoder_model.Outputs`
Outputs = dict[str, tuple[str, tuple[str | int, ...]]]


def build(config: ModelConfig, head: str | None, has_pooler: bool,
          tensors: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The encoder and one head, without dropout.

    Inputs are input_ids, attention_mask and token_type_ids, all [B, S] int64. Positions are counted from the start of
    the row whatever is masked; nobody sees a position whose attention_mask is 0. The outputs are named and shaped as in
    `spanbert_jax.model.encoder_model.Outputs`. The boundary head is left out.

    Args:
      config: of the network.
      head: one of `spanbert_jax.model.encoder_model.HEADS`.
      has_pooler: whether there is a pooler; "sequence_classification" and a next-sentence head need one.
      tensors: float32, by Hugging Face's names and in its layouts. The initializers of the graph are those of them that
        the network has, unchanged.
    """
    graph = _Graph(tensors)
    hidden = _encoder(graph, config)
    outputs: Outputs = {"last_hidden_state": (hidden, (*POSITIONS, config.width))}
    if has_pooler:
        outputs["pooler_output"] = (_pool(graph, hidden), ("batch", config.width))
    outputs |= _head(graph, config, head, outputs)
    return graph.model(["input_ids", "attention_mask", "token_type_ids"], outputs)


def save(model: onnx.ModelProto, path: pathlib.Path, *, max_weight_bytes: int = MAX_WEIGHT_BYTES) -> None:
    """Writes a model and has onnx check it.

    Weights that take more than `max_weight_bytes` go to a file beside it, named as it is with ".data" added, and are
    gone from `model` afterwards.

    Raises:
      onnx.checker.ValidationError, onnx.shape_inference.InferenceError: when it is not a valid model.
    """
    weights = model.graph.initializer
    beside = path.with_name(path.name + ".data")
    # onnx adds to the end of a file that is there.
    beside.unlink(missing_ok=True)
    if sum(len(tensor.raw_data) for tensor in weights) > max_weight_bytes:
        for tensor in weights:
            set_external_data(tensor, beside.name)
    onnx.save(model, path)
    onnx.checker.check_model(path, full_check=True)


class _Graph:
    """Nodes and the weights they read, in the order they are added. A value goes by its name."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self._tensors = tensors
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def node(self, op: str, *inputs: str, **attributes) -> str:
        """The one output of a new node."""
        output = f"{op}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(self, name: str) -> str:
        """The tensor of that name."""
        self._weights[name] = numpy_helper.from_array(self._tensors[name], name)
        return name

    def rows(self, name: str) -> int:
        """The length of the first axis of the tensor of that name."""
        return self._tensors[name].shape[0]

    def constant(self, value: np.ndarray) -> str:
        """A value fixed in the graph; a node, since initializers are weights alone."""
        return self.node("Constant", value=numpy_helper.from_array(value))

    def integers(self, *values: int) -> str:
        """A fixed shape or list of axes."""
        return self.constant(np.array(values, np.int64))

    def model(self, inputs: list[str], outputs: Outputs) -> onnx.ModelProto:
        """The model, at the oldest version of the format that has the operators, so that older runtimes read it."""
        names = {value: name for name, (value, _) in outputs.items()}
        for node in self._nodes:
            node.input[:] = [names.get(value, value) for value in node.input]
            node.output[:] = [names.get(value, value) for value in node.output]
        graph = helper.make_graph(
            self._nodes, "spanbert",
            [helper.make_tensor_value_info(name, TensorProto.INT64, POSITIONS) for name in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (_, shape) in outputs.items()],
            list(self._weights.values()))
        return helper.make_model_gen_version(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="spanbert_jax")


def _linear(graph: _Graph, x: str, weight: str, bias: str) -> str:
    # [..., in] -> [..., out]; runtimes transpose the weight once, when they load the model.
    kernel = graph.node("Transpose", graph.weight(weight), perm=[1, 0])
    return graph.node("Add", graph.node("MatMul", x, kernel), graph.weight(bias))


def _dense(graph: _Graph, x: str, name: str) -> str:
    return _linear(graph, x, f"{name}.weight", f"{name}.bias")


def _norm(graph: _Graph, config: ModelConfig, x: str, name: str) -> str:
    return graph.node("LayerNormalization", x, graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias"),
                      axis=-1, epsilon=config.layer_norm_epsilon)


def _encoder(graph: _Graph, config: ModelConfig) -> str:
    # -> [B, S, D]
    x = _embeddings(graph, config)
    # [B, S] -> [B, 1, 1, S], over heads and queries
    mask = graph.node("Unsqueeze", graph.node("Cast", "attention_mask", to=TensorProto.BOOL), graph.integers(1, 2))
    for index in range(config.num_layers):
        x = _layer(graph, config, x, mask, f"bert.encoder.layer.{index}")
    return x


def _embeddings(graph: _Graph, config: ModelConfig) -> str:
    # -> [B, S, D]
    def look_up(name: str, ids: str) -> str:
        return graph.node("Gather", graph.weight(f"bert.embeddings.{name}_embeddings.weight"), ids, axis=0)

    length = graph.node("Shape", "input_ids", start=1, end=2)
    table = graph.weight("bert.embeddings.position_embeddings.weight")
    positions = graph.node("Slice", table, graph.integers(0), length, graph.integers(0))
    x = graph.node("Add", look_up("word", "input_ids"), look_up("token_type", "token_type_ids"))
    return _norm(graph, config, graph.node("Add", x, positions), "bert.embeddings.LayerNorm")


def _layer(graph: _Graph, config: ModelConfig, x: str, mask: str, name: str) -> str:
    # [B, S, D] -> [B, S, D]
    attended = _dense(graph, _attention(graph, config, x, mask, f"{name}.attention.self"),
                      f"{name}.attention.output.dense")
    x = _norm(graph, config, graph.node("Add", attended, x), f"{name}.attention.output.LayerNorm")
    inner = graph.node("Gelu", _dense(graph, x, f"{name}.intermediate.dense"))
    outer = _dense(graph, inner, f"{name}.output.dense")
    return _norm(graph, config, graph.node("Add", outer, x), f"{name}.output.LayerNorm")


def _attention(graph: _Graph, config: ModelConfig, x: str, mask: str, name: str) -> str:
    # [B, S, D] -> [B, S, D], before the output projection
    head_width = config.width // config.num_heads

    def project(part: str, perm: list[int]) -> str:
        # [B, S, D] -> [B, S, N, H], transposed; a 0 keeps the axis
        flat = _dense(graph, x, f"{name}.{part}")
        heads = graph.node("Reshape", flat, graph.integers(0, 0, config.num_heads, head_width))
        return graph.node("Transpose", heads, perm=perm)

    query = graph.node("Mul", project("query", [0, 2, 1, 3]), graph.constant(np.float32(head_width ** -0.5)))
    key, value = project("key", [0, 2, 3, 1]), project("value", [0, 2, 1, 3])
    # [B, N, T, H], [B, N, H, S] -> [B, N, T, S]
    scores = graph.node("MatMul", query, key)
    if config.clamp_attention:
        scores = graph.node("Clip", scores, graph.constant(np.float32(-CLAMP)), graph.constant(np.float32(CLAMP)))
    scores = graph.node("Where", mask, scores, graph.constant(np.float32(MASKED_SCORE)))
    context = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
    return graph.node("Reshape", graph.node("Transpose", context, perm=[0, 2, 1, 3]),
                      graph.integers(0, 0, config.width))


def _pool(graph: _Graph, hidden: str) -> str:
    # [B, S, D] -> [B, D]
    first = graph.node("Gather", hidden, graph.constant(np.array(0)), axis=1)
    return graph.node("Tanh", _dense(graph, first, "bert.pooler.dense"))


def _head(graph: _Graph, config: ModelConfig, head: str | None, encoded: Outputs) -> Outputs:
    # What the head makes of the hidden states and the pooled ones.
    hidden = encoded["last_hidden_state"][0]
    outputs: Outputs = {}
    if head in ("pretraining", "masked_lm"):
        outputs["logits"] = _masked_token_logits(graph, config, hidden)
    if head == "pretraining" and config.next_sentence_head:
        logits = _dense(graph, encoded["pooler_output"][0], "cls.seq_relationship")
        outputs["next_sentence_logits"] = (logits, ("batch", 2))
    if head == "question_answering":
        logits = _dense(graph, hidden, "qa_outputs")
        for index, name in enumerate(("start_logits", "end_logits")):
            chosen = graph.node("Gather", logits, graph.constant(np.array(index)), axis=-1)
            outputs[name] = (chosen, POSITIONS)
    if head == "sequence_classification":
        logits = _dense(graph, encoded["pooler_output"][0], "classifier")
        outputs["logits"] = (logits, ("batch", graph.rows("classifier.bias")))
    if head == "token_classification":
        outputs["logits"] = (_dense(graph, hidden, "classifier"), (*POSITIONS, graph.rows("classifier.bias")))
    return outputs


def _masked_token_logits(graph: _Graph, config: ModelConfig, hidden: str) -> tuple[str, tuple[str | int, ...]]:
    # [B, S, D] -> [B, S, V]
    x = graph.node("Gelu", _dense(graph, hidden, "cls.predictions.transform.dense"))
    x = _norm(graph, config, x, "cls.predictions.transform.LayerNorm")
    logits = _linear(graph, x, "bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
    return logits, (*POSITIONS, graph.rows("cls.predictions.bias"))
