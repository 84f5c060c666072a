"""Outputs, losses and gradients against values of the reference implementation."""
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from spanbert_jax.masking import MaskedRows
from spanbert_jax.model import BertConfig, ComputeConfig, PretrainingHeads, SpanBert
from spanbert_jax.pretraining.objective import objective_sums, target_weights, total_loss
from tests.model import reference_weights
from tests.paths import CONFORMANCE, needs_conformance

pytestmark = needs_conformance


@pytest.fixture(scope="module")
def vectors():
    return np.load(CONFORMANCE / "reference_model" / "vectors.npz")


@pytest.fixture(scope="module")
def weights():
    return load_file(CONFORMANCE / "reference_model" / "weights.safetensors")


def make_model(**compute) -> SpanBert:
    given = json.loads((CONFORMANCE / "reference_model" / "config.json").read_text())
    config = BertConfig(
        vocab_size=given["vocab_size"], num_layers=given["num_hidden_layers"], width=given["hidden_size"],
        num_heads=given["num_attention_heads"], feed_forward=given["intermediate_size"],
        max_positions=given["max_position_embeddings"], layer_norm_epsilon=given["layer_norm_eps"],
        clamp_attention=given["clamp_attention"], dropout=0.0, attention_dropout=0.0)
    heads = PretrainingHeads(boundary_positions=given["max_pair_targets"],
                             boundary_features=given["pair_position_embedding_size"])
    return SpanBert(config, heads, ComputeConfig(dtype="float32", **compute))


def masked_rows(vectors) -> MaskedRows:
    """One entry a position for the masked-token head, with the boundary and place of the reference's pair tables."""
    B, S = vectors["input_ids"].shape
    targets = vectors["lm_targets"].astype(np.int32)
    fields = {name: np.zeros((B, S), np.int32) for name in ("left", "right", "place", "span_length")}
    boundary_targets = np.zeros((B, S), np.int32)
    for row in range(B):
        for (left, right), pieces in zip(vectors["pairs"][row], vectors["pair_targets"][row]):
            for place, piece in enumerate(pieces):
                if piece:
                    position = left + 1 + place
                    assert targets[row, position] == piece
                    for name, value in dict(left=left, right=right, place=place).items():
                        fields[name][row, position] = value
                    boundary_targets[row, position] = piece
    return MaskedRows(
        inputs=vectors["input_ids"].astype(np.int32), positions=np.tile(np.arange(S, dtype=np.int32), (B, 1)),
        targets=targets, weights=(targets > 0).astype(np.float32),
        boundary_weights=(boundary_targets > 0).astype(np.float32), **fields)


def run(model, weights, vectors):
    rows = masked_rows(vectors)
    segments = vectors["attention_mask"].astype(np.int32)
    no_label = -np.ones(len(segments), np.int32)

    def forward(params):
        logits, state = model.apply(
            {"params": params}, rows.inputs, segments, np.zeros_like(segments), positions=rows.positions,
            left=rows.left, right=rows.right, place=rows.place, deterministic=True, mutable=["intermediates"])
        terms = objective_sums(logits, rows, no_label)
        counts = {name: jnp.sum(w) for name, w in target_weights(rows, no_label).items()}
        return total_loss(terms, counts, 1.0, reference_denominators=True), (logits, terms, state["intermediates"])

    shapes = nn.unbox(jax.eval_shape(
        lambda key: model.init(key, rows.inputs, segments, segments, positions=rows.positions, left=rows.left,
                               right=rows.right, place=rows.place, deterministic=True), jax.random.key(0)))["params"]
    params = reference_weights.load(shapes, weights)
    return jax.jit(jax.value_and_grad(forward, has_aux=True))(params), rows


# That the others compute the same, `test_encoder` shows.
@pytest.mark.parametrize("layers,remat", [("unrolled", "none"), ("scanned", "names")])
def test_losses_and_gradients_equal_those_of_the_reference(weights, vectors, layers, remat):
    model = make_model(layers=layers, remat=remat)
    config = model.config
    ((loss, (logits, terms, intermediates)), gradients), _rows = run(model, weights, vectors)
    hidden = np.asarray(intermediates["encoder"]["layers"]["hidden"][0])
    np.testing.assert_allclose(hidden, vectors["hidden"], atol=1e-5)
    np.testing.assert_allclose(logits.masked[..., :config.vocab_size], vectors["mlm_logits"], atol=1e-5)
    for row in range(3):
        for (left, _), pieces, expected in zip(vectors["pairs"][row], vectors["pair_targets"][row],
                                               vectors["sbo_logits"][row]):
            for place in np.flatnonzero(pieces):
                got = logits.boundary[row, left + 1 + place, :config.vocab_size]
                np.testing.assert_allclose(got, expected[place], atol=1e-5)
    np.testing.assert_allclose(terms["masked"].loss, vectors["mlm_loss_sum"], rtol=1e-5)
    np.testing.assert_allclose(terms["boundary"].loss, vectors["sbo_loss_sum"], rtol=1e-5)
    assert (terms["masked"].count, terms["boundary"].count) == (vectors["n_mlm"], vectors["n_sbo"])
    np.testing.assert_allclose(loss, vectors["loss"], rtol=1e-5)
    norms = {key.split("/", 1)[1]: float(vectors[key]) for key in vectors.files if key.startswith("grad_norm/")}
    compared = 0
    for name, expected in norms.items():
        if not reference_weights.is_tied(name):
            got = np.linalg.norm(reference_weights.read(gradients, name, config.vocab_size))
            # A key's bias shifts every score of a query alike, so its gradient is rounding noise around zero.
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6, err_msg=name)
            compared += 1
    assert compared >= 40


def test_padding_of_the_vocabulary_has_no_probability(weights, vectors):
    model = make_model()
    config = model.config
    ((_, (logits, _, _)), gradients), _ = run(model, weights, vectors)
    assert config.padded_vocab_size > config.vocab_size
    assert np.all(np.asarray(jax.nn.softmax(logits.masked))[..., config.vocab_size:] == 0)
    assert np.all(np.asarray(gradients["masked_token_head"]["output"]["bias"])[config.vocab_size:] == 0)
