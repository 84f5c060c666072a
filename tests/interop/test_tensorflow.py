"""Import of Google's TensorFlow checkpoints; SavedModels with the outputs of the model."""
import json
import re
import sys

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop import layout
from spanbert_jax.interop.exporting import outputs_of
from spanbert_jax.interop.formats import tensorflow as saved_model
from spanbert_jax.interop.pretrained import from_pretrained
from spanbert_jax.interop.sources.tensorflow_checkpoint import TensorFlowCheckpoint
from spanbert_jax.model import BertConfig, ComputeConfig, EncoderModel, PretrainingHeads, make_head
from spanbert_jax.text import SPECIAL_TOKENS

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

CONFIG = BertConfig(vocab_size=61, num_layers=2, width=32, num_heads=4, feed_forward=48, max_positions=40)
GOOGLE_CONFIG = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 32,
    "initializer_range": 0.02, "intermediate_size": 48, "max_position_embeddings": 40, "num_attention_heads": 4,
    "num_hidden_layers": 2, "type_vocab_size": 2, "vocab_size": 61}
LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
SHAPES = ((1, 7), (3, 16), (5, 33))
# Google's names -> Hugging Face's.
NAMES = {
    "bert/embeddings/word_embeddings": "bert.embeddings.word_embeddings.weight",
    "bert/embeddings/position_embeddings": "bert.embeddings.position_embeddings.weight",
    "bert/embeddings/token_type_embeddings": "bert.embeddings.token_type_embeddings.weight",
    "bert/embeddings/LayerNorm/gamma": "bert.embeddings.LayerNorm.weight",
    "bert/embeddings/LayerNorm/beta": "bert.embeddings.LayerNorm.bias",
    "bert/encoder/layer_11/attention/self/query/kernel": "bert.encoder.layer.11.attention.self.query.weight",
    "bert/encoder/layer_11/attention/output/LayerNorm/beta": "bert.encoder.layer.11.attention.output.LayerNorm.bias",
    "bert/encoder/layer_3/intermediate/dense/bias": "bert.encoder.layer.3.intermediate.dense.bias",
    "bert/encoder/layer_3/output/dense/kernel": "bert.encoder.layer.3.output.dense.weight",
    "bert/pooler/dense/kernel": "bert.pooler.dense.weight",
    "cls/predictions/transform/dense/kernel": "cls.predictions.transform.dense.weight",
    "cls/predictions/transform/LayerNorm/gamma": "cls.predictions.transform.LayerNorm.weight",
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
    "cls/squad/output_weights": "qa_outputs.weight",
    "cls/squad/output_bias": "qa_outputs.bias",
    "output_weights": "classifier.weight",
    "output_bias": "classifier.bias",
}
OTHERS = [
    "bert/embeddings/word_embeddings/adam_m", "bert/pooler/dense/kernel/adam_v", "output_weights/adam_m",
    "bert/pooler/dense/kernel/AdamWeightDecayOptimizer", "bert/pooler/dense/kernel/AdamWeightDecayOptimizer_1",
    "bert/pooler/dense/bias/lamb_m", "global_step", "beta1_power", "loss/kernel", "kernel"]


def network(head):
    """A model with random parameters."""
    value = make_head(head, LABELS)
    if head == "pretraining":
        value = PretrainingHeads(boundary=False, next_sentence=True)
    model, random = EncoderModel(CONFIG, value, ComputeConfig(dtype="float32")), np.random.default_rng(0)
    return model, layout.build(model, lambda leaf: 0.2 * random.standard_normal(leaf.shape, np.float32))


def to_google(name, value):
    """The name and the layout that Google's scripts give a tensor of Hugging Face's."""
    heads = {theirs: google for google, theirs in NAMES.items() if "output_" in google}
    if name in heads:
        return heads[name], value
    module, _, leaf = name.rpartition(".")
    module = re.sub(r"layer\.(\d+)", r"layer_\1", module).replace(".", "/")
    if module.endswith("_embeddings"):
        return module, value
    if module.endswith("LayerNorm"):
        return f"{module}/{'gamma' if leaf == 'weight' else 'beta'}", value
    return (f"{module}/kernel", value.T) if leaf == "weight" else (f"{module}/bias", value)


def save(directory, variables):
    """Writes bert_model.ckpt with variables as a training run of TensorFlow 1 does."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in variables.items():
            tf.compat.v1.get_variable(name, initializer=value)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(directory / "bert_model.ckpt"))


def save_network(directory, model, params, slots=True):
    """Writes a checkpoint of a network with its bert_config.json; returns its tensors by Hugging Face's names."""
    tensors = dict(layout.tensors(model, params))
    variables = dict(to_google(*item) for item in tensors.items())
    if slots:
        variables |= {f"{name}/adam_{moment}": value + 1 for name, value in variables.items() for moment in "mv"}
        variables["global_step"] = np.int64(7)
    save(directory, variables)
    (directory / "bert_config.json").write_text(json.dumps(GOOGLE_CONFIG))
    return tensors


def read_all(path):
    """All tensors of a checkpoint."""
    checkpoint = TensorFlowCheckpoint(path)
    return {name: checkpoint.read(name) for name in checkpoint.shapes}


def batch(B, S):
    """Rows of several lengths, the second half of each of the second type."""
    lengths, index = np.maximum(S - 3 * np.arange(B)[:, None], 2), np.arange(S)
    return {"input_ids": np.random.default_rng(0).integers(0, CONFIG.vocab_size, (B, S)),
            "attention_mask": (index < lengths).astype(np.int64),
            "token_type_ids": ((index >= lengths // 2) & (index < lengths)).astype(np.int64)}


def test_tensor_names(tmp_path):
    variables = {name: np.full((2, 3), number, np.float32) for number, name in enumerate([*NAMES, *OTHERS])}
    save(tmp_path, variables)
    tensors = read_all(tmp_path / "bert_model.ckpt.index")
    assert tensors.keys() == set(NAMES.values())
    for google, name in NAMES.items():
        expected = variables[google].T if google.endswith("kernel") else variables[google]
        np.testing.assert_array_equal(tensors[name], expected, err_msg=name, strict=True)
    assert TensorFlowCheckpoint(tmp_path / "bert_model.ckpt.index").shapes == {
        name: value.shape for name, value in tensors.items()}


@pytest.mark.parametrize("stored,head", [
    ("pretraining", None), ("pretraining", "pretraining"), ("question_answering", "question_answering"),
    ("sequence_classification", "sequence_classification")])
def test_models_are_imported(tmp_path, caplog, stored, head):
    tensors = save_network(tmp_path, *network(stored))
    model, params = from_pretrained(tmp_path / "bert_model.ckpt", head)
    assert (model.head.name, model.config.num_heads, caplog.records) == (head, CONFIG.num_heads, [])
    found = dict(layout.tensors(model, params))
    assert found.keys() == {name for name in tensors if head or not name.startswith("cls.")}
    for name, value in found.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name, strict=True)


def test_a_checkpoint_beside_a_directory_of_the_same_name(tmp_path):
    tensors = save_network(tmp_path, *network(None))
    (tmp_path / "bert_model.ckpt").mkdir()
    for path in (tmp_path, tmp_path / "bert_model.ckpt", tmp_path / "bert_model.ckpt.index"):
        assert dict(layout.tensors(*from_pretrained(path))).keys() == tensors.keys()


@pytest.mark.parametrize("file,damage", [
    ("data-00000-of-00001", None), ("data-00000-of-00001", lambda content: content[:len(content) // 2]),
    ("data-00000-of-00001", lambda content: b""),
    ("data-00000-of-00001", lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:]),
    ("index", lambda content: content[:-1]), ("index", lambda content: content[:len(content) // 2]),
    ("index", lambda content: b""), ("index", lambda content: b"Not Found\n" * 9),
    ("index", lambda content: bytes([content[0] ^ 1]) + content[1:])],
    ids=["no-data", "half-the-data", "empty-data", "flipped-data", "index-but-a-byte", "half-an-index", "empty-index",
         "page-as-index", "flipped-index"])
def test_damaged_files(tmp_path, file, damage):
    save_network(tmp_path, *network(None), slots=False)
    damaged = tmp_path / f"bert_model.ckpt.{file}"
    content = damaged.read_bytes()
    damaged.unlink()
    if damage:
        damaged.write_bytes(damage(content))
    with pytest.raises(UserError) as caught:
        from_pretrained(tmp_path / "bert_model.ckpt")
    message = str(caught.value)
    assert damaged.name in message and str(tmp_path) in message and "fetch" in message and message.isprintable()
    if damage and file != "index":
        assert re.search(r": bert/\S+ cannot be read from bert_model.ckpt.data-00000-of-00001 \(", message)


def test_checkpoints_of_other_models_are_refused(tmp_path):
    save(tmp_path, {"resnet/conv1/kernel": np.ones((3, 3), np.float32)})
    with pytest.raises(UserError, match="1 variable, and none of Google's BERT.* are resnet/conv1/kernel"):
        from_pretrained(tmp_path)


def test_without_tensorflow(tmp_path, monkeypatch):
    model, params = network(None)
    save_network(tmp_path, model, params)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    for use in (lambda: from_pretrained(tmp_path), lambda: saved_model.write(tmp_path, model, params, None)):
        with pytest.raises(UserError, match=re.escape("pip install 'spanbert-jax[tensorflow]'")):
            use()


def run(folder, model, inputs):
    """What TensorFlow computes, where it is new enough for this JAX."""
    try:
        return saved_model.run(folder, model, inputs)
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("head", ["pretraining", "question_answering", "sequence_classification"])
def test_saved_models_have_the_outputs_of_the_model(tmp_path, head):
    model, params = network(head)
    tokenizer = Tokenizer(WordPiece({piece: number for number, piece in enumerate(SPECIAL_TOKENS)}))
    saved_model.write(tmp_path, model, params, tokenizer)
    assert {"config.json", "vocab.txt", "saved_model.pb"} <= {path.name for path in tmp_path.iterdir()}
    for shape in SHAPES:
        inputs = batch(*shape)
        ours, theirs = outputs_of(model, params, inputs), run(tmp_path, model, inputs)
        assert theirs.keys() == ours.keys()
        for name, values in theirs.items():
            np.testing.assert_allclose(values, ours[name], atol=1e-4, rtol=1e-4, err_msg=name, strict=True)


def test_weights_of_saved_models_are_variables_and_rows_have_a_limit(tmp_path):
    model, params = network(None)
    saved_model.write(tmp_path, model, params, None)
    stored = sum(np.prod(shape) for _, shape in tf.train.list_variables(str(tmp_path / "variables" / "variables")))
    assert stored >= sum(value.size for value in jax.tree.leaves(params))
    run(tmp_path, model, batch(1, CONFIG.max_positions))
    with pytest.raises(tf.errors.InvalidArgumentError, match="sequence <= 40"):
        saved_model.run(tmp_path, model, batch(1, CONFIG.max_positions + 1))
