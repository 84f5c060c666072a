"""Small random models of transformers, and comparison with models of this package."""
from __future__ import annotations

import functools
import pathlib

import jax
import numpy as np
import torch
import transformers

from spanbert_jax.interop import layout
from spanbert_jax.interop.architectures import conversion_of
from spanbert_jax.interop.architectures.bert import BERT
from spanbert_jax.model import EncoderModel, head_names

VOCABULARY, LENGTH = 130, 40
LABELS = ("negative", "neutral", "positive")
HEADS = head_names()


def make(head: str | None, seed: int = 0, **fields) -> transformers.PreTrainedModel:
    """A network of two layers whose weights and biases are all different, so that an exchange of two would show."""
    torch.manual_seed(seed)
    if "classification" in (head or ""):
        fields = dict(id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)}) | fields
    config = transformers.BertConfig(**dict(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=LENGTH) | fields)
    network = getattr(transformers, BERT.classes[head])(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    return network


def save(head: str | None, directory: pathlib.Path, **fields) -> transformers.PreTrainedModel:
    """A network of `make`, and its directory."""
    network = make(head, **fields)
    network.save_pretrained(directory)
    return network


def batch(vocabulary: int = VOCABULARY) -> dict[str, np.ndarray]:
    """Rows that are whole, padded on the right, padded on the left and with holes, of both segment types."""
    random, row, column = np.random.default_rng(0), np.arange(8)[:, None], np.arange(LENGTH)
    masks = [column >= 0 * row, column < LENGTH - 5 * row, column >= 3 * row, (column + row) % 4 > 0]
    return {"input_ids": random.integers(0, vocabulary, (8, LENGTH)),
            "attention_mask": np.choose(row % 4, masks).astype(np.int64),
            "token_type_ids": random.integers(0, 2, (8, LENGTH))}


def theirs(network: transformers.PreTrainedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of transformers under our names."""
    with torch.no_grad():
        outputs = network(**{name: torch.from_numpy(value) for name, value in inputs.items()},
                          output_hidden_states=True)
    renamed = {"prediction_logits": "logits", "seq_relationship_logits": "next_sentence_logits"}
    values = {renamed.get(name, name): value.numpy() for name, value in outputs.items() if name != "hidden_states"}
    return values | {"last_hidden_state": outputs.hidden_states[-1].numpy()}


def ours(model: EncoderModel, params, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our outputs, as arrays."""
    outputs = _compiled(model)({"params": params}, **inputs)
    return {name: np.asarray(value) for name, value in outputs._asdict().items() if value is not None}


# Equal networks are compiled once for all tests.
_compiled = functools.cache(lambda model: jax.jit(model.apply))


def assert_agree(model: EncoderModel, params, network: transformers.PreTrainedModel, tolerance: float = 2e-5) -> None:
    """Asserts that both compute the same."""
    inputs = batch(model.config.vocab_size)
    expected, got = theirs(network, inputs), ours(model, params, inputs)
    assert expected.keys() <= got.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=tolerance, rtol=tolerance, err_msg=name)


def assert_same(params, others) -> None:
    """Asserts that two trees hold the same numbers, bit for bit, under the same names."""
    leaves, expected = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (params, others))
    assert leaves.keys() == expected.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(expected[path]), err_msg=str(path), strict=True)


def assert_gradients_agree(model: EncoderModel, params, network: transformers.PreTrainedModel,
                           inputs: dict[str, np.ndarray]) -> None:
    """Asserts that outputs, and gradients of the sum of their squares, agree wherever there is no padding."""
    mask, conversion = inputs["attention_mask"], conversion_of(model.config)

    def real(value):
        if value.shape[:2] != mask.shape:
            return value
        weights = mask.reshape(*mask.shape, *[1] * (value.ndim - 2))
        return value * (torch.from_numpy(weights) if isinstance(value, torch.Tensor) else weights)

    expected = {name: value for name, value in network(**{
        name: torch.from_numpy(value) for name, value in inputs.items()}).items() if value is not None}

    def loss(params):
        outputs = model.apply({"params": params}, **inputs)
        values = {name: real(getattr(outputs, name)) for name in expected}
        return sum((value ** 2).sum() for value in values.values()), values

    (_, values), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], real(value.detach().numpy()), atol=2e-5, rtol=2e-5, err_msg=name)
    sum(real(value).square().sum() for value in expected.values()).backward()
    tensors = dict(conversion.export(layout.tensors(model, gradients)))
    for name, parameter in network.named_parameters():
        gradient, found = parameter.grad.numpy(), tensors[name if model.head.name else conversion.names.prefix + name]
        scale = max(1, np.abs(gradient).max())
        np.testing.assert_allclose(found / scale, gradient / scale, atol=1e-4, err_msg=name)


def random_params(model: EncoderModel):
    """Parameters that are all different, but for rows of padding, which are zero."""
    random = np.random.default_rng(1)
    return layout.build(model, lambda leaf: np.where(
        (np.arange(leaf.shape[0]) < (leaf.rows or leaf.shape[0])).reshape(-1, *[1] * (len(leaf.shape) - 1)),
        random.standard_normal(leaf.shape) * 0.3, 0).astype(np.float32))
