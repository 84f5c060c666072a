"""A model as an ONNX graph.

Built with `onnx.helper`: jax2onnx needs an older orbax-checkpoint than this project, and PyTorch's exporter needs
PyTorch. An architecture is an `OnnxArchitecture` with a name in `_ARCHITECTURES`, a head a function in `_HEADS`.
"""
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.registry import Registry
from spanbert_jax.model import BertConfig, Head, ModelConfig
from spanbert_jax.model.attention.plain import CLAMP, MASKED_SCORE
from spanbert_jax.model.heads import POOLED

OPSET = 20  # the first operator set with an exact Gelu
MAX_WEIGHT_BYTES = 2_000_000_000  # Protobuf is limited to 2^31 - 1 bytes; the rest is for the nodes

POSITIONS = ("batch", "sequence")
# name: (value, shape), named as the fields of `spanbert_jax.model.encoder_model.Outputs`
Outputs = dict[str, tuple[str, tuple[str | int, ...]]]


def build(config: ModelConfig, head: Head, tensors: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Returns the encoder and one head, without dropout and without the boundary head.

    Inputs are input_ids, attention_mask and, for architectures with token types, token_type_ids, all [B, S] int64. Of a
    model with one token type, token_type_ids has a default. Elsewhere it has none: runtimes do not list inputs with
    defaults, so that libraries would not pass the types of pairs; and inputs of an optional type cannot be bound.
    Positions are counted from the start of the row; no token attends to a position whose attention_mask is 0. The
    outputs are named and shaped as in
    `spanbert_jax.model.encoder_model.Outputs`. Of the `tensors`, float32 in Hugging Face's names and layouts, those
    that the model has become the graph's initializers. Raises UserError if there is no ONNX graph for the architecture
    or the head.
    """
    for name, known, what in ((config.architecture, _ARCHITECTURES.names(), "architecture"),
                              (head.name, _HEADS, "head")):
        if name not in known:
            raise UserError(f"{what} {name!r} cannot be exported to ONNX; allowed are {', '.join(map(repr, known))}")
    graph, architecture = Graph(tensors), _ARCHITECTURES.get(config.architecture)
    hidden = architecture.encoder(graph, config)
    outputs: Outputs = {"last_hidden_state": (hidden, (*POSITIONS, config.width))}
    if POOLED in head.inputs:
        outputs["pooler_output"] = (architecture.pool(graph, config, hidden), ("batch", config.width))
    outputs |= _HEADS[head.name](graph, architecture, config, head, outputs)
    types = ["token_type_ids"] if config.token_types else []
    if config.token_types == 1:
        graph.default("token_type_ids", np.zeros((1, 1), np.int64))
    return graph.model(["input_ids", "attention_mask", *types], outputs)


def save(model: onnx.ModelProto, path: pathlib.Path, *, max_weight_bytes: int = MAX_WEIGHT_BYTES) -> None:
    """Writes a model. Weights above `max_weight_bytes` move to PATH.data. Raises an error of onnx if it is invalid."""
    weights, beside = model.graph.initializer, path.with_name(path.name + ".data")
    beside.unlink(missing_ok=True)  # onnx adds to the end of a file that is there
    if sum(len(tensor.raw_data) for tensor in weights) > max_weight_bytes:
        for tensor in weights:
            set_external_data(tensor, beside.name)
    onnx.save(model, path)
    onnx.checker.check_model(path, full_check=True)


class Graph:
    """Nodes and the weights that they read, in order. A value is given by its name."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self._tensors = tensors
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node and returns its output."""
        output = f"{op}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def nodes(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Adds a node with several outputs and returns them."""
        outputs = [f"{op}_{len(self._nodes)}_{index}" for index in range(count)]
        self._nodes.append(helper.make_node(op, inputs, outputs, name=f"{op}_{len(self._nodes)}", **attributes))
        return outputs

    def weight(self, name: str) -> str:
        """The tensor of a name."""
        self._weights[name] = numpy_helper.from_array(self._tensors[name], name)
        return name

    def default(self, name: str, value: np.ndarray) -> None:
        """Sets the value of an input that is not given; its shape may differ from that of the input."""
        self._weights[name] = numpy_helper.from_array(value, name)

    def constant(self, value: np.ndarray | np.generic) -> str:
        """A constant; a node, since initializers are only weights."""
        return self.node("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def integers(self, *values: int) -> str:
        """A constant shape or list of axes."""
        return self.constant(np.array(values, np.int64))

    def model(self, inputs: list[str], outputs: Outputs) -> onnx.ModelProto:
        """The model, in the oldest version of the format that has the operators, for older runtimes."""
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


class OnnxArchitecture(NamedTuple):
    """How an architecture and the inputs of its heads are added to a graph. Hidden states are [B, S, D]."""
    encoder: Callable[[Graph, Any], str]  # adds the encoder, returns its hidden states
    pool: Callable[[Graph, Any, str], str]  # from hidden states to the vector of each text [B, D]
    masked_token_transform: Callable[[Graph, Any, str], str]  # hidden states as the masked-token output reads them
    position_transform: Callable[[Graph, Any, str], str]  # hidden states as classifiers of positions read them
    embedding: str  # the token embedding, which is the masked-token output too
    output_bias: str  # bias of the masked-token output
    question_answering: str  # the projection of the question answering head


def linear(graph: Graph, x: str, weight: str, bias: str | None) -> str:
    """Adds a projection, [..., in] -> [..., out]; runtimes transpose the weight once, when they load the model."""
    product = graph.node("MatMul", x, graph.node("Transpose", graph.weight(weight), perm=[1, 0]))
    return product if bias is None else graph.node("Add", product, graph.weight(bias))


def _dense(graph: Graph, x: str, name: str) -> str:
    return linear(graph, x, f"{name}.weight", f"{name}.bias")


def norm(graph: Graph, config: ModelConfig, x: str, name: str, bias: bool = True) -> str:
    """Adds a layer norm."""
    weights = [graph.weight(f"{name}.{leaf}") for leaf in ("weight", "bias")[:1 + bias]]
    return graph.node("LayerNormalization", x, *weights, axis=-1, epsilon=config.layer_norm_epsilon)


def _bert_encoder(graph: Graph, config: BertConfig) -> str:
    # -> [B, S, D]
    x = _embeddings(graph, config)
    # [B, S] -> [B, 1, 1, S], over heads and queries
    mask = graph.node("Unsqueeze", graph.node("Cast", "attention_mask", to=TensorProto.BOOL), graph.integers(1, 2))
    for index in range(config.num_layers):
        x = _layer(graph, config, x, mask, f"bert.encoder.layer.{index}")
    return x


def _embeddings(graph: Graph, config: BertConfig) -> str:
    # -> [B, S, D]
    def table_of(name: str) -> str:
        return graph.weight(f"bert.embeddings.{name}_embeddings.weight")

    length = graph.node("Shape", "input_ids", start=1, end=2)
    positions = graph.node("Slice", table_of("position"), graph.integers(0), length, graph.integers(0))
    types = table_of("token_type")  # of one type, [1, D], which all tokens have
    if config.token_types > 1:
        types = graph.node("Gather", types, "token_type_ids", axis=0)
    x = graph.node("Add", graph.node("Gather", table_of("word"), "input_ids", axis=0), types)
    return norm(graph, config, graph.node("Add", x, positions), "bert.embeddings.LayerNorm")


def _layer(graph: Graph, config: BertConfig, x: str, mask: str, name: str) -> str:
    # [B, S, D] -> [B, S, D]
    attended = _dense(graph, _attention(graph, config, x, mask, f"{name}.attention.self"),
                      f"{name}.attention.output.dense")
    x = norm(graph, config, graph.node("Add", attended, x), f"{name}.attention.output.LayerNorm")
    inner = graph.node("Gelu", _dense(graph, x, f"{name}.intermediate.dense"))
    outer = _dense(graph, inner, f"{name}.output.dense")
    return norm(graph, config, graph.node("Add", outer, x), f"{name}.output.LayerNorm")


def _attention(graph: Graph, config: BertConfig, x: str, mask: str, name: str) -> str:
    # [B, S, D] -> [B, S, D], before the output projection
    head_width = config.width // config.num_heads

    def project(part: str, perm: list[int]) -> str:
        # [B, S, D] -> [B, S, N, H], transposed; a 0 keeps the axis
        flat = _dense(graph, x, f"{name}.{part}")
        heads = graph.node("Reshape", flat, graph.integers(0, 0, config.num_heads, head_width))
        return graph.node("Transpose", heads, perm=perm)

    key = project("key", [0, 2, 3, 1])
    return attend(graph, config, project("query", [0, 2, 1, 3]), key, project("value", [0, 2, 1, 3]), mask)


def attend(graph: Graph, config: ModelConfig, query: str, key: str, value: str, mask: str) -> str:
    """Adds attention of queries [B, N, T, H] to keys [B, N, H, S] and values [B, N, S, H] -> [B, T, D]."""
    spec = config.attention_spec
    scaled = graph.node("Mul", query, graph.constant(np.float32(spec.head_width ** -0.5)))
    scores = graph.node("MatMul", scaled, key)
    if spec.clamp:
        scores = graph.node("Clip", scores, graph.constant(np.float32(-CLAMP)), graph.constant(np.float32(CLAMP)))
    scores = graph.node("Where", mask, scores, graph.constant(np.float32(MASKED_SCORE)))
    context = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
    return graph.node("Reshape", graph.node("Transpose", context, perm=[0, 2, 1, 3]),
                      graph.integers(0, 0, config.width))


def _pool(graph: Graph, config: BertConfig, hidden: str) -> str:
    # [B, S, D] -> [B, D]
    first = graph.node("Gather", hidden, graph.constant(np.array(0)), axis=1)
    return graph.node("Tanh", _dense(graph, first, "bert.pooler.dense"))


def _masked_token_transform(graph: Graph, config: BertConfig, hidden: str) -> str:
    # [B, S, D] -> [B, S, D]
    x = graph.node("Gelu", _dense(graph, hidden, "cls.predictions.transform.dense"))
    return norm(graph, config, x, "cls.predictions.transform.LayerNorm")


BERT = OnnxArchitecture(_bert_encoder, _pool, _masked_token_transform, lambda graph, config, hidden: hidden,
                        "bert.embeddings.word_embeddings.weight", "cls.predictions.bias", "qa_outputs")
_HERE = "spanbert_jax.interop.formats"
# An import of the other files, when they are needed, since they import this one.
_ARCHITECTURES: Registry[OnnxArchitecture] = Registry("ONNX architecture", "onnx", {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), f"{_HERE}.onnx_graph:BERT"),
    "modernbert": f"{_HERE}.onnx_modernbert:MODERNBERT"})


def _masked_lm(graph: Graph, architecture: OnnxArchitecture, config: ModelConfig, head: Head,
               encoded: Outputs) -> Outputs:
    # [B, S, D] -> [B, S, V]
    x = architecture.masked_token_transform(graph, config, encoded["last_hidden_state"][0])
    logits = linear(graph, x, architecture.embedding, architecture.output_bias)
    return {"logits": (logits, (*POSITIONS, config.vocab_size))}


def _pretraining(graph: Graph, architecture: OnnxArchitecture, config: ModelConfig, head: Head,
                 encoded: Outputs) -> Outputs:
    outputs = _masked_lm(graph, architecture, config, head, encoded)
    if POOLED in head.inputs:
        logits = _dense(graph, encoded["pooler_output"][0], "cls.seq_relationship")
        outputs["next_sentence_logits"] = (logits, ("batch", 2))
    return outputs


def _question_answering(graph: Graph, architecture: OnnxArchitecture, config: ModelConfig, head: Head,
                        encoded: Outputs) -> Outputs:
    x = architecture.position_transform(graph, config, encoded["last_hidden_state"][0])
    logits, outputs = _dense(graph, x, architecture.question_answering), Outputs()
    for index, name in enumerate(head.outputs):
        outputs[name] = (graph.node("Gather", logits, graph.constant(np.array(index)), axis=-1), POSITIONS)
    return outputs


def _classification(graph: Graph, architecture: OnnxArchitecture, config: ModelConfig, head: Head,
                    encoded: Outputs) -> Outputs:
    x, shape = encoded["pooler_output" if head.per_text else "last_hidden_state"]
    x = x if head.per_text else architecture.position_transform(graph, config, x)
    return {"logits": (_dense(graph, x, "classifier"), (*shape[:-1], len(head.labels)))}


_HEADS = {None: lambda graph, architecture, config, head, encoded: {}, "masked_lm": _masked_lm,
          "pretraining": _pretraining, "question_answering": _question_answering,
          "sequence_classification": _classification, "token_classification": _classification}
