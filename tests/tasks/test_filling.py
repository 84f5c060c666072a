"""Filling: the best combinations against all of them, known answers, the boundary head's rules, one-line errors."""
import dataclasses
import io
import itertools
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from spanbert_jax.commands import fill as command
from spanbert_jax.common.errors import UserError
from spanbert_jax.interop import configuration, layout, weights
from spanbert_jax.masking import spans
from spanbert_jax.model import BertConfig, ComputeConfig, EncoderModel, PretrainingHeads, make_head
from spanbert_jax.tasks.filling import _encode, best_combinations, fill
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer, special_ids, special_tokens
from tests.text import kinds

WORDS = ["the", "cat", "sat", "##ting", "on", "a", "mat", "un", "##able", "dog", "."]
PIECES = [*SPECIAL_TOKENS, *WORDS, *(f"w{i}" for i in range(40))]
ID = {piece: i for i, piece in enumerate(PIECES)}
# The network has more rows than the tokenizer has pieces.
CONFIG = BertConfig(vocab_size=len(PIECES) + 4, num_layers=2, width=32, num_heads=2, feed_forward=64, max_positions=40)
HEADS = PretrainingHeads(boundary_positions=3, boundary_features=8)
COMPUTE = ComputeConfig(dtype="float32", layers="scanned")
TEXT = "the [MASK] [MASK] on a [MASK] mat ."


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    file.write_text("".join(f"{piece}\n" for piece in PIECES))
    return load_tokenizer(file)


@pytest.fixture(scope="module")
def network():
    return make_network(CONFIG)


def make_network(config, head=HEADS):
    """A model with kernels large enough that its predictions depend on the text."""
    model, random = EncoderModel(config, head, COMPUTE), np.random.default_rng(0)
    return model, layout.build(model, lambda leaf: jnp.asarray(weights.fresh(leaf, 0.5, random)))


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_masks_stand_for_tokens_with_their_space(kind, tmp_path):
    tokenizer = load_tokenizer(kinds.write(kind, tmp_path))
    mask, special = special_tokens(tokenizer)["mask"], special_ids(tokenizer)
    expected = [special.cls, *tokenizer.encode("The old", add_special_tokens=False).ids, special.mask, special.mask,
                *tokenizer.encode(f"{mask} river", add_special_tokens=False).ids[1:], special.sep]
    for text in ("The old [MASK] [MASK] river", f"The old {mask}{mask} river"):
        assert _encode(text, tokenizer, special, 40) == expected


def apply(model, params, tokens):
    return jax.jit(model.apply)({"params": params}, jnp.asarray([tokens]))


def with_biases(params, head, norm, favours):
    """Parameters with which a head predicts the same everywhere: logits 0 except for the tokens in `favours`."""
    bias = np.zeros_like(params[head]["output"]["bias"])
    for piece, logit in favours.items():
        bias[ID[piece]] = logit
    silent = jax.tree.map(jnp.zeros_like, params[head][norm])
    return {**params, head: {**params[head], norm: silent, "output": {"bias": jnp.asarray(bias)}}}


def brute_force(scores, k):
    ways = itertools.product(range(scores.shape[1]), repeat=len(scores))
    sums = {way: sum(scores[range(len(scores)), way]) for way in ways}
    return sorted((way for way in sums if sums[way] > -np.inf), key=lambda way: -sums[way])[:k], sums


@pytest.mark.parametrize("n, V, k", [
    (1, 5, 3), (2, 7, 1), (2, 7, 20), (3, 6, 50), (4, 4, 256), (3, 3, 1000), (5, 3, 9)])
def test_best_combinations_equal_brute_force(n, V, k):
    scores = np.log(np.random.default_rng(n * V * k).dirichlet(np.ones(V), n))
    scores[0, 1] = -np.inf
    expected, sums = brute_force(scores, k)
    choices, found = best_combinations(scores, k)
    assert [tuple(way) for way in choices] == expected
    np.testing.assert_allclose(found, [sums[way] for way in expected], rtol=1e-12)
    assert len(choices) == min(k, (V - 1) * V ** (n - 1))


def test_best_combinations_with_ties_or_without_a_choice():
    choices, sums = best_combinations(np.zeros((3, 4)), 30)
    assert len({tuple(way) for way in choices}) == 30 and not sums.any()
    assert best_combinations(np.array([[0.0, -1.0], [-np.inf, -np.inf], [0.0, -1.0]]), 3)[0].shape == (0, 3)


def test_each_head_gives_its_known_answer(network, tokenizer):
    model, params = network
    params = with_biases(params, "masked_token_head", "norm", {"cat": 6.0, "##ting": 5.0, "[SEP]": 50.0})
    params = with_biases(params, "boundary_head", "second_norm", {"dog": 7.0, "##ting": 5.5, "[MASK]": 50.0})
    run, _ = fill((model, params), TEXT, k=3, tokenizer=tokenizer)
    assert (run.start, run.length) == (2, 2)
    others = len(PIECES) - len(SPECIAL_TOKENS) - 2
    p_cat, p_ting = np.exp([6.0, 5.0]) / (math.exp(6) + math.exp(5) + others)
    assert [filling.pieces for filling in run.masked_token[:1]] == [("cat", "cat")]
    assert {filling.text for filling in run.masked_token[1:]} == {"catting", "##ting cat"}
    assert run.masked_token[0].probability == pytest.approx(p_cat ** 2, rel=1e-5)
    assert run.masked_token[1].probability == pytest.approx(p_cat * p_ting, rel=1e-5)
    assert run.boundary[0].text == "dog dog"
    total = math.exp(10.5) + math.exp(6) + math.exp(7) + others - 1
    assert run.both[0].pieces == ("##ting", "##ting")
    assert run.both[0].log_probability == pytest.approx(2 * (10.5 - math.log(total)), abs=1e-5)


def test_fillings_equal_the_models_outputs(network, tokenizer):
    """Without padding, and normalized over the proposable tokens."""
    model, params = network
    outputs = apply(model, params, tokenizer.encode(TEXT).ids)
    runs = fill((model, params), TEXT, k=4, tokenizer=tokenizer)
    assert [(run.start, run.length) for run in runs] == [(2, 2), (6, 1)]
    for run in runs:
        assert run.why_no_boundary == ""
        place = np.arange(run.length)
        left, right = np.full(run.length, run.start - 1), np.full(run.length, run.start + run.length)
        boundary = jax.jit(model.apply, static_argnames="method")(
            {"params": params}, outputs.last_hidden_state, left[None], right[None], place[None],
            method="boundary_logits")[0]
        allowed = np.exp(np.stack([outputs.logits[0, run.start + place], boundary], dtype=np.float64))
        allowed = allowed[..., len(SPECIAL_TOKENS):len(PIECES)]
        p_token, p_boundary = allowed / allowed.sum(-1, keepdims=True)
        p_both = p_token * p_boundary / (p_token * p_boundary).sum(-1, keepdims=True)
        for fillings, p in ((run.masked_token, p_token), (run.boundary, p_boundary), (run.both, p_both)):
            expected, sums = brute_force(np.log(p), 4)
            assert [tuple(ID[piece] - len(SPECIAL_TOKENS) for piece in f.pieces) for f in fillings] == expected
            found = [f.log_probability for f in fillings]
            np.testing.assert_allclose(found, [sums[way] for way in expected], atol=1e-4)
    assert len({run.masked_token for run in runs} | {run.boundary for run in runs}) == 4


def test_all_tokens_except_special_ones_are_predicted(network, tokenizer):
    run, = fill(network, "the [MASK] sat", k=1000, tokenizer=tokenizer)
    for fillings in (run.masked_token, run.boundary, run.both):
        assert sorted(filling.pieces[0] for filling in fillings) == sorted(PIECES[len(SPECIAL_TOKENS):])
        assert sum(filling.probability for filling in fillings) == pytest.approx(1)


@pytest.mark.parametrize("text, bounded", [
    ("[MASK] cat sat", [False]), ("the cat [MASK] [MASK]", [False]), ("[MASK]", [False]),
    ("the [MASK] [MASK] [MASK] [MASK] sat", [False]), ("the [MASK] [MASK] [MASK] sat", [True]),
    ("the zebra [MASK] sat [SEP] [MASK] on", [True, False]), ("zebra [MASK] sat on [MASK] [MASK]", [True, False])])
def test_boundary_head_predicts_where_masking_gives_it_targets(network, tokenizer, text, bounded):
    runs = fill(network, text, tokenizer=tokenizer)
    assert [run.boundary is not None for run in runs] == [run.both is not None for run in runs] == bounded
    assert [run.why_no_boundary == "" for run in runs] == bounded
    assert all(len(run.masked_token) == 5 for run in runs)
    tokens, special = jnp.asarray(tokenizer.encode(text).ids), special_ids(tokenizer)
    maskable = ~jnp.isin(tokens, jnp.asarray([special.cls, special.sep, special.pad]))
    merged = spans.merge(tokens == special.mask, jnp.zeros_like(tokens), maskable, "external")
    for run in runs:
        trained = merged.bounded[run.start] and merged.length[run.start] <= HEADS.boundary_positions
        assert trained == (run.boundary is not None)


def test_reasons(network, tokenizer):
    edge, = fill(network, "[MASK] sat", tokenizer=tokenizer)
    long, = fill(network, "the [MASK] [MASK] [MASK] [MASK] sat", tokenizer=tokenizer)
    assert "edge of the text" in edge.why_no_boundary
    assert long.why_no_boundary == "the run has 4 tokens, and the boundary head predicts at most 3"
    for head in (dataclasses.replace(HEADS, boundary=False), make_head("masked_lm")):
        other = make_network(CONFIG, head)
        run, = fill(other, "the [MASK] sat", tokenizer=tokenizer)
        assert run.boundary is None and run.both is None and run.why_no_boundary == "the weights have no boundary head"


def test_rows_are_padded_at_most_to_the_models_positions(network, tokenizer):
    """Padding to 32 changes nothing, as the comparison with the model's outputs shows; 40 is the maximum."""
    model, params = network
    tokens = tokenizer.encode(" ".join(["the [MASK]", *["cat"] * 29])).ids
    assert len(tokens) == 33
    run, = fill(network, " ".join(["the [MASK]", *["cat"] * 29]), k=1, tokenizer=tokenizer)
    logits = apply(model, params, tokens).logits[0, 2, len(SPECIAL_TOKENS):len(PIECES)]
    assert run.masked_token[0].log_probability == pytest.approx(float(jax.nn.log_softmax(logits).max()), abs=1e-4)


def write(directory, model, params, leave_out=()):
    directory.mkdir()
    tensors = {name: value for name, value in layout.tensors(model, params) if not name.startswith(tuple(leave_out))}
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(configuration.to_values(model)))
    (directory / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    return directory


def test_from_a_path(network, tokenizer, tmp_path):
    _, params = network
    unrolled = EncoderModel(CONFIG, HEADS, ComputeConfig(dtype="float32")), params  # as it is read
    runs, whole = fill(unrolled, TEXT, tokenizer=tokenizer), write(tmp_path / "whole", *network)
    assert fill(str(whole), TEXT) == fill(whole, TEXT, 5, tokenizer) == runs
    # A boundary head that did not come with the weights is not made up.
    without = write(tmp_path / "without", *network, leave_out=["cls.pair_target_predictions"])
    for run, expected in zip(fill(without, TEXT), runs, strict=True):
        assert (run.boundary, run.both) == (None, None)
        assert run.why_no_boundary == "the weights have no boundary head"
        assert [filling.text for filling in run.masked_token] == [filling.text for filling in expected.masked_token]
        assert run.masked_token[0].probability == pytest.approx(expected.masked_token[0].probability, rel=1e-4)
    bare = write(tmp_path / "bare", *network, leave_out=["cls."])
    with pytest.raises(UserError,
                       match="bare: these weights have no masked-token head, .* except the large one with heads"):
        fill(bare, TEXT)


def test_mistakes_are_explained(network, tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"no \[MASK\] in the text"):
        fill(network, "the cat", tokenizer=tokenizer)
    with pytest.raises(UserError, match="41 tokens with .* at most 40"):
        fill(network, "[MASK] " * 39, tokenizer=tokenizer)
    with pytest.raises(UserError, match="k=0: must be at least 1"):
        fill(network, TEXT, k=0, tokenizer=tokenizer)
    with pytest.raises(UserError, match="no tokenizer"):
        fill(network, TEXT)
    with pytest.raises(UserError, match="these weights have no masked-token head"):
        fill((EncoderModel(CONFIG, make_head("question_answering")), {}), TEXT, tokenizer=tokenizer)
    with pytest.raises(UserError, match=f"tokenizer has {len(PIECES)} entries, the last 'w39', and the model 50"):
        fill((EncoderModel(dataclasses.replace(CONFIG, vocab_size=50), HEADS), {}), TEXT, tokenizer=tokenizer)


def test_command_prints_tables_or_json(network, tmp_path, capsys, monkeypatch):
    parser = command.argparse.ArgumentParser()
    command.add_arguments(parser)
    flags = ["--model", str(write(tmp_path / "model", *network)), "the [MASK] sat", "[MASK] on", "--k", "2"]
    assert command.run(parser.parse_args(flags)) == 0
    printed = capsys.readouterr().out
    runs = [run for text in flags[2:4] for run in fill(flags[1], text, k=2)]
    assert "the [MASK] sat" in printed and printed.count("both") == 1
    assert runs[1].why_no_boundary in printed
    for filling in (*runs[0].both, *runs[0].boundary, *runs[1].masked_token):
        assert f"{filling.text}  {100 * filling.probability:.3g}%" in printed
    assert command.run(parser.parse_args([*flags, "--json"])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    found = json.loads(lines[0])
    assert [item["text"] for item in found] == flags[2:4]
    assert found[1]["runs"][0]["boundary"] is None
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the [MASK] sat\n[MASK] on\n")))
    assert command.run(parser.parse_args([*flags[:2], "-", *flags[4:], "--json"])) == 0
    assert capsys.readouterr().out.splitlines() == lines
    assert found[0]["runs"][0]["both"][0]["log_probability"] == pytest.approx(runs[0].both[0].log_probability)
