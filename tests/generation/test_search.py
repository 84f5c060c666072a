"""Generation: the same tokens as transformers, the best text with wide beams, and the rules."""
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.generation.incremental import DecodeState, IncrementalDecoder, unstack_layers
from spanbert_jax.generation.next_token import apply_rules, filter_logits, sample_tokens
from spanbert_jax.generation.search import generate
from spanbert_jax.generation.settings import GenerationSettings
from spanbert_jax.interop.encoder_decoder import load_encoder_decoder
from tests.transformers_pairs import END, PAD, SOURCE_PIECES, START, save_pair, torch

LENGTHS = np.array([11, 7, 3, 9, 1])


SETTINGS = [
    (1, 1.0, 0, False, 12, 0), (1, 1.0, 2, False, 20, 3), (3, 1.0, 0, False, 12, 0), (4, 0.0, 0, False, 12, 0),
    (4, 2.0, 2, False, 12, 0), (5, 0.6, 3, True, 20, 0), (2, -1.0, 0, False, 20, 0), (4, 1.0, 1, False, 9, 3),
    (7, 1.5, 2, True, 15, 2)]
with_bert = pytest.mark.parametrize("pair", ["bert"], indirect=True)


@pytest.mark.parametrize("step, forbidden", [(0, True), (2, True), (3, False)])
def test_the_end_is_forbidden_before_the_minimum_length(step, forbidden):
    settings = GenerationSettings(START, END, PAD, 9, min_length=3)
    scores = apply_rules(jnp.zeros((1, 1, 12)), jnp.zeros((1, 1, 10), jnp.int32), jnp.asarray(step), settings)
    assert np.isneginf(scores[0, 0, END]) == forbidden
    assert not np.isneginf(np.delete(scores[0, 0], END)).any()


def test_draws_of_different_steps_are_independent():
    settings, keys = GenerationSettings(START, END, PAD, 2, sample=True), jax.random.split(jax.random.key(0), 4000)
    first, second = (sample_tokens(jnp.zeros((4000, 4)), keys, jnp.asarray(step), settings) for step in (0, 1))
    found = np.bincount(np.asarray(4 * first + second), minlength=16) / 4000  # pairs, each with probability 1/16
    assert np.abs(found - 1 / 16).max() < 5 * np.sqrt(1 / 16 * 15 / 16 / 4000)


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    theirs, folder = save_pair(tmp_path_factory.mktemp("pair") / "network", request.param, 32)
    return theirs, *load_encoder_decoder(folder)


def sources(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(seed).integers(3, SOURCE_PIECES, (5, 11))
    return tokens, (np.arange(11) < LENGTHS[:, None]).astype(np.int64)


@functools.cache
def program(model, settings):
    return jax.jit(lambda params, *inputs: generate(IncrementalDecoder(model, unstack_layers(params)), *inputs[:2],
                                                    settings, inputs[2]))


def ours(model, params, settings, tokens, real, keys=None):
    pieces, scores = program(model, settings)(params, tokens, real, keys)
    return np.asarray(pieces), np.asarray(scores)


def cut(pieces: np.ndarray) -> list[list[int]]:
    """Texts up to their end token; transformers pads differently after it."""
    texts = [row.tolist() for row in pieces]
    return [text[:text.index(END) + 1] if END in text else text for text in texts]


@pytest.mark.parametrize("pair,beams,length_penalty,ngram,early,most,least", [
    *(("bert", *settings) for settings in SETTINGS), *(("gpt2", *settings) for settings in SETTINGS[1::4])],
    indirect=["pair"])
def test_tokens_and_scores_equal_transformers(pair, beams, length_penalty, ngram, early, most, least):
    theirs, model, params = pair
    settings = GenerationSettings(START, END, PAD, most, least, beams, length_penalty, early, ngram)
    for seed in (0, 1):
        tokens, real = sources(seed)
        with torch.no_grad():
            expected = theirs.generate(
                torch.tensor(tokens), attention_mask=torch.tensor(real), num_beams=beams, length_penalty=length_penalty,
                no_repeat_ngram_size=ngram, early_stopping=early, max_length=most + 1, do_sample=False,
                min_new_tokens=least or None, decoder_start_token_id=START, eos_token_id=END, pad_token_id=PAD,
                bos_token_id=START, return_dict_in_generate=True, output_scores=True)
        pieces, scores = ours(model, params, settings, tokens, real)
        assert cut(pieces) == cut(expected.sequences.numpy()[:, 1:])
        if beams > 1:
            np.testing.assert_allclose(scores, expected.sequences_scores.numpy(), rtol=1e-4)


@functools.cache
def chances_program(model):
    return jax.jit(lambda params, *inputs: jax.nn.log_softmax(model.apply({"params": params}, *inputs)))


def likelihoods(model, params, tokens, real, texts) -> np.ndarray:
    """[B, n] log-probabilities of whole texts, computed from all tokens at once."""
    found, longest = np.zeros((len(tokens), len(texts))), max(map(len, texts))
    for number, text in enumerate(texts):
        previous = np.pad([START, *text[:-1]], (0, longest - len(text)))[None].repeat(len(tokens), axis=0)
        chances = np.asarray(chances_program(model)(params, tokens, real, previous, np.ones_like(previous)))
        for place, piece in enumerate(text):
            found[:, number] += chances[:, place, piece]
    return found


def test_wide_beams_find_the_best_text(tmp_path):
    _, folder = save_pair(tmp_path / "network", "bert", 32, pieces=5, deviation=0.5)
    model, params = load_encoder_decoder(folder)
    tokens, real = sources(2)
    others = [piece for piece in range(5) if piece != END]
    texts = [[*before, END] for size in range(4) for before in itertools.product(others, repeat=size)]
    texts += [list(text) for text in itertools.product(others, repeat=4)]
    whole = likelihoods(model, params, tokens, real, texts)
    for penalty in (0.0, 1.0):
        scores = whole / np.array([len(text) for text in texts]) ** penalty
        settings = GenerationSettings(START, END, PAD, 4, beams=4 ** 4, length_penalty=penalty)
        pieces, found = ours(model, params, settings, tokens, real)
        assert cut(pieces) == [texts[best] for best in scores.argmax(axis=1)]
        np.testing.assert_allclose(found, scores.max(axis=1), rtol=1e-4)


@with_bert
def test_no_ngram_repeats_and_no_text_is_too_short(pair):
    _, model, params = pair
    tokens, real = sources(3)
    for beams in (1, 3):
        pieces, _ = ours(model, params, GenerationSettings(START, END, PAD, 30, 8, beams, no_repeat_ngram=2), tokens,
                         real)
        for text in cut(pieces):
            pairs = list(itertools.pairwise([START, *text]))
            assert len(set(pairs)) == len(pairs) and len(text) > 8


@with_bert
def test_other_texts_in_the_batch_change_nothing(pair):
    _, model, params = pair
    tokens, real = sources(4)
    settings = GenerationSettings(START, END, PAD, 12, beams=3)
    pieces, scores = ours(model, params, settings, tokens, real)
    order = np.array([3, 1, 4, 0, 2])
    mixed, mixed_scores = ours(model, params, settings, tokens[order], real[order])
    np.testing.assert_array_equal(mixed, pieces[order])
    np.testing.assert_allclose(mixed_scores, scores[order], rtol=1e-5)


@with_bert
@pytest.mark.parametrize("beams", [1, 3])
def test_a_source_alone_or_with_padding_gives_the_same_text(pair, beams):
    _, model, params = pair
    tokens, real = sources(6)
    settings = GenerationSettings(START, END, PAD, 12, beams=beams)
    pieces, scores = ours(model, params, settings, tokens, real)
    none = np.zeros_like(tokens)
    for row in range(len(tokens)):
        alone, alone_scores = ours(model, params, settings, tokens[row:row + 1], real[row:row + 1])
        beside, beside_scores = ours(model, params, settings, *(
            np.concatenate([values[row:row + 1], none[:3]]) for values in (tokens, real)))
        np.testing.assert_array_equal(alone[0], pieces[row])
        np.testing.assert_array_equal(beside[0], pieces[row])
        np.testing.assert_allclose([alone_scores[0], beside_scores[0]], scores[row], rtol=1e-5)
        assert (beside[1:] == PAD).all()


class Counted:
    """A decoder with the same logits at every position that counts its steps."""

    def __init__(self, logits):
        self.logits, self.calls = jnp.asarray(logits), []

    def start(self, tokens, segments, hypotheses, length):
        return DecodeState((), None)

    def step(self, state, tokens, step):
        jax.debug.callback(self.calls.append, step)
        return jnp.broadcast_to(self.logits, (*tokens.shape, len(self.logits))), state


@pytest.mark.parametrize("beams", [1, 3])
def test_the_search_does_not_wait_for_padding(beams):
    decoder = Counted(np.zeros(9))
    tokens, settings = np.zeros((4, 5), np.int32), GenerationSettings(START, END, PAD, 12, beams=beams)
    for segments, asked in ((tokens, False), (np.eye(4, 5, dtype=np.int32), True)):
        jax.jit(lambda: generate(decoder, tokens, segments, settings))()
        jax.effects_barrier()
        assert bool(decoder.calls) == asked


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("end", [END, 102])
def test_logits_that_are_nan_give_a_nan_score(beams, end):
    ones = np.ones((2, 5), np.int32)
    settings = GenerationSettings(START, end, PAD, 6, beams=beams)
    _, scores = jax.jit(lambda: generate(Counted(np.full(200, np.nan)), ones, ones, settings))()
    assert np.isnan(scores).all()


@with_bert
def test_a_greedy_score_is_the_log_probability_of_the_text(pair):
    _, model, params = pair
    tokens, real = sources(7)
    pieces, scores = ours(model, params, GenerationSettings(START, END, PAD, 10, 4, no_repeat_ngram=1), tokens, real)
    expected = likelihoods(model, params, tokens, real, cut(pieces)).diagonal()
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


@with_bert
def test_samples_follow_the_distribution_and_depend_only_on_their_keys(pair):
    _, model, params = pair
    tokens, real = (np.repeat(values[:1], 4000, axis=0) for values in sources(5))
    keys = jax.random.split(jax.random.key(0), 4000)
    settings = GenerationSettings(START, END, PAD, 1, sample=True, temperature=1.5, top_k=8)
    pieces, _ = ours(model, params, settings, tokens, real, keys)
    start = np.array([[START]])
    logits = jax.jit(model.apply)({"params": params}, tokens[:1], real[:1], start, np.ones_like(start))[0, 0] / 1.5
    logits = np.asarray(logits)
    chances = np.where(logits >= np.sort(logits)[-8], np.exp(logits - logits.max()), 0)
    chances /= chances.sum()
    found = np.bincount(pieces[:, 0], minlength=len(chances)) / 4000
    assert np.abs(found - chances).max() < 4 * np.sqrt(0.25 / 4000)
    assert not found[chances == 0].any()
    few, _ = ours(model, params, settings, tokens[:3], real[:3], keys[7:10])
    np.testing.assert_array_equal(few, pieces[7:10])


@pytest.mark.parametrize("top_k,top_p", [(0, 0.3), (0, 0.9), (5, 1.0), (6, 0.5), (1, 1.0), (0, 1e-6)])
def test_top_k_and_top_p_equal_transformers(top_k, top_p):
    from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper


    logits = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32) * 2
    expected = torch.tensor(logits)
    for warper in ([TopKLogitsWarper(top_k)] if top_k else []) + ([TopPLogitsWarper(top_p)] if top_p < 1 else []):
        expected = warper(None, expected)
    np.testing.assert_array_equal(np.asarray(filter_logits(jnp.asarray(logits), top_k, top_p)), expected.numpy())
