"""ModernBERT as an ONNX graph."""
import numpy as np
from onnx import TensorProto

from spanbert_jax.interop.formats.onnx_graph import Graph, OnnxArchitecture, attend, linear, norm
from spanbert_jax.model.architectures.modernbert import ModernBertConfig

Rotary = tuple[str, str]  # cosine and sine [S, H / 2]


def _dense(graph: Graph, x: str, name: str, bias: bool) -> str:
    return linear(graph, x, f"{name}.weight", f"{name}.bias" if bias else None)


def _norm(graph: Graph, config: ModernBertConfig, x: str, name: str) -> str:
    return norm(graph, config, x, name, config.norm_bias)


def encoder(graph: Graph, config: ModernBertConfig) -> str:
    """Adds the encoder and returns its hidden states [B, S, D]."""
    x = graph.node("Gather", graph.weight("model.embeddings.tok_embeddings.weight"), "input_ids", axis=0)
    x = _norm(graph, config, x, "model.embeddings.norm")
    # [B, S] -> [B, 1, 1, S], over heads and queries
    visible = graph.node("Unsqueeze", graph.node("Cast", "attention_mask", to=TensorProto.BOOL), graph.integers(1, 2))
    length = graph.node("Squeeze", graph.node("Shape", "input_ids", start=1, end=2))
    positions = graph.node("Range", graph.constant(np.int64(0)), length, graph.constant(np.int64(1)))
    masks = {True: visible, False: graph.node("And", visible, _window(graph, config, positions))}
    tables = {True: _rotary(graph, config, positions, config.global_rotary_base),
              False: _rotary(graph, config, positions, config.local_rotary_base)}
    for layer in range(config.num_layers):
        name, kind = f"model.layers.{layer}", config.is_global(layer)
        source = x if layer == 0 else _norm(graph, config, x, f"{name}.attn_norm")
        x = graph.node("Add", x, _attention(graph, config, source, masks[kind], tables[kind], f"{name}.attn"))
        inner = _norm(graph, config, x, f"{name}.mlp_norm")
        gate = _dense(graph, inner, f"{name}.mlp.gate", config.feed_forward_bias)
        active = graph.node("Gelu", _dense(graph, inner, f"{name}.mlp.input", config.feed_forward_bias))
        product = graph.node("Mul", active, gate)
        x = graph.node("Add", x, _dense(graph, product, f"{name}.mlp.Wo", config.feed_forward_bias))
    return _norm(graph, config, x, "model.final_norm")


def _window(graph: Graph, config: ModernBertConfig, positions: str) -> str:
    # [S] -> [S, S]
    distance = graph.node("Abs", graph.node("Sub", graph.node("Unsqueeze", positions, graph.integers(0)),
                                            graph.node("Unsqueeze", positions, graph.integers(1))))
    return graph.node("LessOrEqual", distance, graph.constant(np.int64(config.window // 2)))


def _rotary(graph: Graph, config: ModernBertConfig, positions: str, base: float) -> Rotary:
    width = config.width // config.num_heads
    frequencies = (1 / base ** (np.arange(0, width, 2, dtype=np.float32) / width)).astype(np.float32)
    column = graph.node("Unsqueeze", graph.node("Cast", positions, to=TensorProto.FLOAT), graph.integers(1))
    angles = graph.node("Mul", column, graph.constant(frequencies))
    return graph.node("Cos", angles), graph.node("Sin", angles)


def _attention(graph: Graph, config: ModernBertConfig, x: str, mask: str, rotary: Rotary, name: str) -> str:
    # [B, S, D] -> [B, S, D]
    def heads(part: str) -> str:
        # [B, S, D] -> [B, N, S, H]; a 0 keeps the axis
        flat = _dense(graph, x, f"{name}.{part}", config.attention_bias)
        split = graph.node("Reshape", flat, graph.integers(0, 0, config.num_heads, config.width // config.num_heads))
        return graph.node("Transpose", split, perm=[0, 2, 1, 3])

    query, key = _rotate(graph, heads("query"), rotary), _rotate(graph, heads("key"), rotary)
    context = attend(graph, config, query, graph.node("Transpose", key, perm=[0, 1, 3, 2]), heads("value"), mask)
    return _dense(graph, context, f"{name}.Wo", config.attention_bias)


def _rotate(graph: Graph, heads: str, rotary: Rotary) -> str:
    cos, sin = rotary
    first, second = graph.nodes("Split", 2, heads, axis=-1, num_outputs=2)
    return graph.node("Concat", graph.node("Sub", graph.node("Mul", first, cos), graph.node("Mul", second, sin)),
                      graph.node("Add", graph.node("Mul", second, cos), graph.node("Mul", first, sin)), axis=-1)


def transform(graph: Graph, config: ModernBertConfig, x: str) -> str:
    """Adds the transform of prediction heads. [..., D] -> [..., D]."""
    return _norm(graph, config, graph.node("Gelu", _dense(graph, x, "head.dense", config.head_bias)), "head.norm")


def pool(graph: Graph, config: ModernBertConfig, hidden: str) -> str:
    """Adds the vector of each text. [B, S, D] -> [B, D]."""
    if config.pooling == "cls":
        return transform(graph, config, graph.node("Gather", hidden, graph.constant(np.array(0)), axis=1))
    inside = graph.node("Cast", graph.node("Cast", "attention_mask", to=TensorProto.BOOL), to=TensorProto.FLOAT)
    weights = graph.node("Unsqueeze", inside, graph.integers(2))
    total = graph.node("ReduceSum", graph.node("Mul", hidden, weights), graph.integers(1), keepdims=0)
    count = graph.node("ReduceSum", inside, graph.integers(1), keepdims=1)
    return transform(graph, config, graph.node("Div", total, graph.node("Max", count, graph.constant(np.float32(1)))))


MODERNBERT = OnnxArchitecture(
    encoder, pool, transform, transform, "model.embeddings.tok_embeddings.weight", "decoder.bias", "classifier")
