"""The ONNX graph, run by onnxruntime, against transformers' network with the same weights."""
import dataclasses
import pathlib

import numpy as np
import pytest

from spanbert_jax.interop import weights
from spanbert_jax.interop.naming import NamedTensors
from spanbert_jax.model import EncoderModel, ModelConfig

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from transformers.models.bert import modeling_bert

from spanbert_jax.interop.formats import onnx_graph

CLASSES = {
    None: "BertModel",
    "pretraining": "BertForPreTraining",
    "masked_lm": "BertForMaskedLM",
    "question_answering": "BertForQuestionAnswering",
    "sequence_classification": "BertForSequenceClassification",
    "token_classification": "BertForTokenClassification",
}
# What a head adds to the encoder's outputs, where it is not logits.
OUTPUTS = {
    None: [],
    "pretraining": ["logits", "next_sentence_logits"],
    "question_answering": ["start_logits", "end_logits"],
}
# Their name of an output, where it is not ours.
THEIRS = {"pretraining": {"logits": "prediction_logits", "next_sentence_logits": "seq_relationship_logits"}}
NEED_POOLER = ("pretraining", "sequence_classification")
HEADS = [(head, True) for head in CLASSES] + [(head, False) for head in CLASSES if head not in NEED_POOLER]
SHAPES = ((1, 7), (3, 16), (5, 33))
CONFIG = ModelConfig(
    vocab_size=61, num_layers=2, width=32, num_heads=4, feed_forward=48, max_positions=40, next_sentence_head=True)


def network(head, has_pooler):
    """Their network in evaluation mode, all of its weights random."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=CONFIG.vocab_size, hidden_size=CONFIG.width, num_hidden_layers=CONFIG.num_layers,
        num_attention_heads=CONFIG.num_heads, intermediate_size=CONFIG.feed_forward,
        max_position_embeddings=CONFIG.max_positions, layer_norm_eps=CONFIG.layer_norm_epsilon,
        num_labels=3 if "classification" in str(head) else 2, attn_implementation="eager")
    model = getattr(transformers, CLASSES[head])(config).eval()
    model.base_model.pooler = modeling_bert.BertPooler(config) if has_pooler else None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def tensors(model):
    """Their weights by the names that the graph knows: with the encoder under "bert.", without the tied output."""
    prefix = "bert." if model.base_model is model else ""
    return {prefix + name: tensor.numpy() for name, tensor in model.state_dict().items()
            if "decoder" not in name and "position_ids" not in name}


def batch(B, S):
    """Rows of several lengths, the second half of each of the second type."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(S - 3 * np.arange(B)[:, None], 2)
    index = np.arange(S)
    return {
        "input_ids": rng.integers(0, CONFIG.vocab_size, (B, S)),
        "attention_mask": (index < lengths).astype(np.int64),
        "token_type_ids": ((index >= lengths // 2) & (index < lengths)).astype(np.int64),
    }


def saved(path, model, config, head, has_pooler, **options):
    onnx_graph.save(onnx_graph.build(config, head, has_pooler, tensors(model)), path, **options)
    return path


def run(path, inputs):
    """All outputs by name."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs)))


def expected(model, head, name, inputs):
    """Their output that ours of that name has to equal."""
    inputs = {name: torch.from_numpy(values) for name, values in inputs.items()}
    with torch.no_grad():
        if name in ("last_hidden_state", "pooler_output"):
            return model.base_model(**inputs)[name].numpy()
        return model(**inputs)[THEIRS.get(head, {}).get(name, name)].numpy()


@pytest.mark.parametrize("head,has_pooler", HEADS)
def test_equals_transformers(tmp_path, head, has_pooler):
    model = network(head, has_pooler)
    path = saved(tmp_path / "model.onnx", model, CONFIG, head, has_pooler)
    names = ["last_hidden_state"] + ["pooler_output"] * has_pooler + OUTPUTS.get(head, ["logits"])
    for shape in SHAPES:
        inputs = batch(*shape)
        outputs = run(path, inputs)
        assert list(outputs) == names
        for name, values in outputs.items():
            np.testing.assert_allclose(values, expected(model, head, name, inputs), atol=1e-5, rtol=1e-5, err_msg=name)


def test_pretraining_without_a_next_sentence_head(tmp_path):
    model = network("masked_lm", False)
    config = ModelConfig(**{**vars(CONFIG), "next_sentence_head": False})
    outputs = run(saved(tmp_path / "model.onnx", model, config, "pretraining", False), batch(3, 16))
    assert list(outputs) == ["last_hidden_state", "logits"]
    np.testing.assert_allclose(
        outputs["logits"], expected(model, "masked_lm", "logits", batch(3, 16)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head,has_pooler", HEADS)
def test_initializers_are_the_tensors(head, has_pooler):
    given = tensors(network(head, has_pooler))
    graph = onnx_graph.build(CONFIG, head, has_pooler, given).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert len(held) == len(graph.initializer)
    assert held.keys() == given.keys()
    for name, values in held.items():
        np.testing.assert_array_equal(values, given[name], err_msg=name, strict=True)


def test_padding_changes_nothing(tmp_path):
    path = saved(tmp_path / "model.onnx", network("masked_lm", False), CONFIG, "masked_lm", False)
    inputs = batch(1, 20)
    padded = {name: np.pad(values, ((0, 0), (0, 13))) for name, values in inputs.items()}
    padded["input_ids"][:, 20:] = 7
    np.testing.assert_allclose(run(path, padded)["logits"][:, :20], run(path, inputs)["logits"], atol=1e-5, rtol=1e-5)


def test_rows_longer_than_the_table_of_positions_are_refused(tmp_path):
    path = saved(tmp_path / "model.onnx", network(None, False), CONFIG, None, False)
    assert run(path, batch(1, CONFIG.max_positions))
    with pytest.raises(Exception, match="40 by 41"):
        run(path, batch(1, CONFIG.max_positions + 1))


@pytest.mark.parametrize("stale", [False, True])
def test_weights_in_a_file_beside_the_graph(tmp_path, stale):
    model, inputs = network("pretraining", True), batch(3, 16)
    together = saved(tmp_path / "together.onnx", model, CONFIG, "pretraining", True)
    apart = tmp_path / "apart" / "model.onnx"
    apart.parent.mkdir()
    for _ in range(1 + stale):
        saved(apart, model, CONFIG, "pretraining", True, max_weight_bytes=1000)
    assert sorted(path.name for path in apart.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    weights = sum(values.nbytes for values in tensors(model).values())
    assert (apart.parent / "model.onnx.data").stat().st_size == weights
    for name, values in run(apart, inputs).items():
        np.testing.assert_array_equal(values, run(together, inputs)[name], err_msg=name)


def test_a_wrong_shape_is_found_when_saving(tmp_path):
    given = tensors(network(None, False))
    given["bert.encoder.layer.0.output.dense.bias"] = np.zeros(CONFIG.width + 1, np.float32)
    with pytest.raises(onnx.shape_inference.InferenceError, match="Incompatible dimensions"):
        onnx_graph.save(onnx_graph.build(CONFIG, None, False, given), tmp_path / "model.onnx")


class Given:
    """Tensors in memory, as a source of weights."""
    path = pathlib.Path("given")

    def __init__(self, values):
        self._values, self.shapes = values, {name: value.shape for name, value in values.items()}

    def read(self, name):
        return self._values[name]


def test_clamps_attention(tmp_path):
    """As our own network does, since transformers does not."""
    model, inputs = network(None, False), batch(3, 16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "query" in name or "key" in name:
                parameter *= 300
    config = dataclasses.replace(CONFIG, clamp_attention=True, dtype="float32")
    free = run(saved(tmp_path / "free.onnx", model, CONFIG, None, False), inputs)["last_hidden_state"]
    clamped = run(saved(tmp_path / "clamped.onnx", model, config, None, False), inputs)["last_hidden_state"]
    ours = EncoderModel(config)
    params = weights.load(ours, NamedTensors(Given.path, [Given(tensors(model))]))
    wanted = ours.apply({"params": params}, **inputs).last_hidden_state
    np.testing.assert_allclose(clamped, wanted, atol=1e-5, rtol=1e-5)
    assert np.abs(clamped - free).max() > 0.1

