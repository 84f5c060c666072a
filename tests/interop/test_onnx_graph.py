"""The ONNX graph in onnxruntime against transformers' model with the same weights."""
import dataclasses
import pathlib

import numpy as np
import pytest

from spanbert_jax.interop import weights
from spanbert_jax.interop.architectures.bert import BERT
from spanbert_jax.model import BertConfig, ComputeConfig, EncoderModel, EncoderOnly, PretrainingHeads, make_head
from spanbert_jax.model.heads import POOLED

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
# Outputs of the heads, where they are not "logits".
OUTPUTS = {
    None: [],
    "pretraining": ["logits", "next_sentence_logits"],
    "question_answering": ["start_logits", "end_logits"],
}
# transformers' names of outputs, where they differ from ours.
THEIRS = {"pretraining": {"logits": "prediction_logits", "next_sentence_logits": "seq_relationship_logits"}}
LABELS = ("a", "b", "c")
HEADS = [EncoderOnly(pooler=True), *(make_head(name, LABELS) for name in CLASSES if name != "pretraining"),
         PretrainingHeads(next_sentence=True)]
SHAPES = ((1, 7), (3, 16), (5, 33))
CONFIG = BertConfig(vocab_size=61, num_layers=2, width=32, num_heads=4, feed_forward=48, max_positions=40)


def network(head, **fields):
    """transformers' model in evaluation mode, with random weights."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=CONFIG.vocab_size, hidden_size=CONFIG.width, num_hidden_layers=CONFIG.num_layers,
        num_attention_heads=CONFIG.num_heads, intermediate_size=CONFIG.feed_forward,
        max_position_embeddings=CONFIG.max_positions, layer_norm_eps=CONFIG.layer_norm_epsilon,
        num_labels=len(head.labels) or 2, attn_implementation="eager", **fields)
    model = getattr(transformers, CLASSES[head.name])(config).eval()
    model.base_model.pooler = modeling_bert.BertPooler(config) if POOLED in head.inputs else None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def tensors(model):
    """transformers' weights by the names of the graph: with the prefix "bert.", without the tied output layer."""
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


def saved(path, model, config, head, **options):
    onnx_graph.save(onnx_graph.build(config, head, tensors(model)), path, **options)
    return path


def run(path, inputs):
    """All outputs by name."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs)))


def expected(model, head, name, inputs):
    """transformers' output of a name of ours."""
    inputs = {name: torch.from_numpy(values) for name, values in inputs.items()}
    with torch.no_grad():
        if name in ("last_hidden_state", "pooler_output"):
            return model.base_model(**inputs)[name].numpy()
        return model(**inputs)[THEIRS.get(head.name, {}).get(name, name)].numpy()


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_outputs_equal_those_of_transformers(tmp_path, head):
    model = network(head)
    path = saved(tmp_path / "model.onnx", model, CONFIG, head)
    names = ["last_hidden_state"] + ["pooler_output"] * (POOLED in head.inputs) + OUTPUTS.get(head.name, ["logits"])
    for shape in SHAPES:
        inputs = batch(*shape)
        outputs = run(path, inputs)
        assert list(outputs) == names
        for name, values in outputs.items():
            np.testing.assert_allclose(values, expected(model, head, name, inputs), atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_models_with_one_token_type_run_with_and_without_types(tmp_path, head):
    model = network(head, type_vocab_size=1)
    path = saved(tmp_path / "model.onnx", model, dataclasses.replace(CONFIG, token_types=1), head)
    for shape in SHAPES:
        inputs = batch(*shape)
        with_types = run(path, inputs)  # which are ignored
        del inputs["token_type_ids"]
        for name, values in run(path, inputs).items():
            np.testing.assert_array_equal(values, with_types[name], err_msg=name)
            np.testing.assert_allclose(values, expected(model, head, name, inputs), atol=1e-5, rtol=1e-5, err_msg=name)


def test_types_of_pairs_are_an_input_that_runtimes_list(tmp_path):
    """Libraries pass the inputs that are listed, which are those without a default."""
    path = saved(tmp_path / "model.onnx", network(EncoderOnly()), CONFIG, EncoderOnly())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]


def test_pretraining_without_a_next_sentence_head(tmp_path):
    model = network(make_head("masked_lm"))
    outputs = run(saved(tmp_path / "model.onnx", model, CONFIG, PretrainingHeads()), batch(3, 16))
    assert list(outputs) == ["last_hidden_state", "logits"]
    np.testing.assert_allclose(
        outputs["logits"], expected(model, make_head("masked_lm"), "logits", batch(3, 16)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_initializers_are_the_tensors(head):
    given = tensors(network(head))
    graph = onnx_graph.build(CONFIG, head, given).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert len(held) == len(graph.initializer)
    assert held.keys() == given.keys()
    for name, values in held.items():
        np.testing.assert_array_equal(values, given[name], err_msg=name, strict=True)


def test_padding_changes_nothing(tmp_path):
    head = make_head("masked_lm")
    path = saved(tmp_path / "model.onnx", network(head), CONFIG, head)
    inputs = batch(1, 20)
    padded = {name: np.pad(values, ((0, 0), (0, 13))) for name, values in inputs.items()}
    padded["input_ids"][:, 20:] = 7
    np.testing.assert_allclose(run(path, padded)["logits"][:, :20], run(path, inputs)["logits"], atol=1e-5, rtol=1e-5)


def test_rows_with_more_positions_than_the_model_are_refused(tmp_path):
    path = saved(tmp_path / "model.onnx", network(EncoderOnly()), CONFIG, EncoderOnly())
    assert run(path, batch(1, CONFIG.max_positions))
    with pytest.raises(Exception, match="40 by 41"):
        run(path, batch(1, CONFIG.max_positions + 1))


@pytest.mark.parametrize("stale", [False, True])
def test_weights_in_a_second_file(tmp_path, stale):
    head, inputs = PretrainingHeads(next_sentence=True), batch(3, 16)
    model = network(head)
    together = saved(tmp_path / "together.onnx", model, CONFIG, head)
    apart = tmp_path / "apart" / "model.onnx"
    apart.parent.mkdir()
    for _ in range(1 + stale):
        saved(apart, model, CONFIG, head, max_weight_bytes=1000)
    assert sorted(path.name for path in apart.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    weights = sum(values.nbytes for values in tensors(model).values())
    assert (apart.parent / "model.onnx.data").stat().st_size == weights
    for name, values in run(apart, inputs).items():
        np.testing.assert_array_equal(values, run(together, inputs)[name], err_msg=name)


def test_saving_checks_shapes(tmp_path):
    given = tensors(network(EncoderOnly()))
    given["bert.encoder.layer.0.output.dense.bias"] = np.zeros(CONFIG.width + 1, np.float32)
    with pytest.raises(onnx.shape_inference.InferenceError, match="Incompatible dimensions"):
        onnx_graph.save(onnx_graph.build(CONFIG, EncoderOnly(), given), tmp_path / "model.onnx")


class Given:
    """Tensors in memory, as a source of weights."""
    path = pathlib.Path("given")

    def __init__(self, values):
        self._values, self.shapes = values, {name: value.shape for name, value in values.items()}

    def read(self, name):
        return self._values[name]


def test_clamps_attention(tmp_path):
    """Compared with our own model, since transformers does not clamp."""
    model, inputs = network(EncoderOnly()), batch(3, 16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "query" in name or "key" in name:
                parameter *= 300
    config = dataclasses.replace(CONFIG, clamp_attention=True)
    free = run(saved(tmp_path / "free.onnx", model, CONFIG, EncoderOnly()), inputs)["last_hidden_state"]
    clamped = run(saved(tmp_path / "clamped.onnx", model, config, EncoderOnly()), inputs)["last_hidden_state"]
    ours = EncoderModel(config, compute=ComputeConfig(dtype="float32"))
    params = weights.load(ours, BERT.tensors(Given.path, [Given(tensors(model))]))
    wanted = ours.apply({"params": params}, **inputs).last_hidden_state
    np.testing.assert_allclose(clamped, wanted, atol=1e-5, rtol=1e-5)
    assert np.abs(clamped - free).max() > 0.1

