"""Coreference: scores of mentions and of their antecedents, from the words at which they start and end.

Start-to-end scoring (Kirstain et al. 2021, "Coreference Resolution without Span Representations"): a mention is scored
by the vectors of its first and its last word, and a pair of mentions by those of both. Added on purpose: the score of a
word as a first one (the filter of Martinelli et al. 2024, "Maverick"), and that of the distance of a pair, which
segments that are encoded independently do not show. Changed on purpose: products of vectors are divided by the root of
their width, as in attention; otherwise they are large from the start, and unstable at the learning rates of encoders.
Optionally pairs are also scored by weights of their category, see `model.coreference_categories`.
"""
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Integer, UInt32

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.coreference_categories import CATEGORIES, MentionWords, mention_words, pair_categories
from spanbert_jax.model.dropout import drop, seed_from, split_seed
from spanbert_jax.model.functions import gelu
from spanbert_jax.model.heads import gather
from spanbert_jax.model.layers import Dense, LayerNorm, position_ids

_DISTANCES = 12  # classes of distances: 0, 1, 2 to 3, 4 to 7 words, and so on
_BLOCK = 64  # first words whose mentions are scored by one matrix product
_QUERIES = 256  # mentions whose antecedents are scored at a time in training
# Log odds before learning, of a word as the first one of a mention and of words as a mention: about as rare as they are
# in texts. Otherwise the first updates, which learn just this, leave Adam with small steps for a thousand more.
_FIRST_WORD_ODDS, _MENTION_ODDS = -2.0, -5.0
_NEVER = -1e9  # the score of what is not allowed


class Mentions(NamedTuple):
    """M mentions of a row or document."""
    start: Integer[Array, "*B M"]  # number of the first word
    end: Integer[Array, "*B M"]  # number of the last word


class Vectors(nn.Module):
    """A projection with GELU, layer norm and dropout."""
    config: ModelConfig
    compute: ComputeConfig
    ffnn_size: int

    @nn.compact
    def __call__(self, x: Float[Array, "... D"], seed: UInt32[Array, " 2"] | None) -> Float[Array, "... H"]:
        """The projection; `seed` is of the dropout, None without."""
        x = Dense(self.config, self.compute, self.ffnn_size, ("embed", None), True, name="projection")(x)
        return drop(LayerNorm(self.config, self.compute, name="norm")(gelu(x)), seed, self.config.head_dropout)


class CoreferenceScorer(nn.Module):
    """Scores mentions and pairs of mentions; scores are float32. H is `ffnn_size`.

    K is 1, or the number of categories of pairs and 1, if each category has weights of its own.
    """
    config: ModelConfig
    compute: ComputeConfig
    ffnn_size: int
    pair_categories: bool

    def setup(self) -> None:
        def vectors() -> Vectors:
            return Vectors(self.config, self.compute, self.ffnn_size)

        def scores(outputs: int) -> Dense:
            return Dense(self.config, self.compute, outputs, ("embed", None))

        self.mention_start, self.mention_end = vectors(), vectors()
        self.antecedent_start, self.antecedent_end = vectors(), vectors()
        self.first_word, self.start, self.end = scores(1), scores(1), scores(1)
        self.start_to_end = scores(self.ffnn_size)
        categories = len(CATEGORIES) if self.pair_categories else 0
        self.pair, self.distance = scores((1 + categories) * 2 * self.ffnn_size), scores(_DISTANCES + categories)

    def mention_scores(self, first: Float[Array, "B W D"], last: Float[Array, "B E D"], seed: jax.Array | None = None,
                       ) -> tuple[Float32[Array, "B W"], Float32[Array, "B W L"]]:
        """Scores of W words as the first of a mention, and of the mentions of 1 to L words from each of them.

        Args:
          first: hidden states of the words' first tokens.
          last: of the last tokens of these words and of the L - 1 words that follow: E = W + L - 1.
        """
        seeds = _seeds(seed, 2)
        start, end = self.mention_start(first, seeds[0]), self.mention_end(last, seeds[1])
        words, longest = first.shape[1], last.shape[1] - first.shape[1] + 1
        scores = jax.vmap(lambda rows, columns: band_product(rows, columns, longest))(
            self.start_to_end(start) * self.ffnn_size ** -0.5, end)
        ends = self.end(end)[..., 0].astype(jnp.float32)[:, np.arange(words)[:, None] + np.arange(longest)]
        return (self.first_word(start)[..., 0].astype(jnp.float32) + _FIRST_WORD_ODDS,
                scores + self.start(start).astype(jnp.float32) + ends + _MENTION_ODDS)

    def scores_of(self, first: Float[Array, "B M D"], last: Float[Array, "B M D"]) -> Float32[Array, "B M"]:
        """The scores of mentions of any length, from the hidden states of their first and last tokens."""
        start, end = self.mention_start(first, None), self.mention_end(last, None)
        product = jnp.sum(self.start_to_end(start).astype(jnp.float32) * end, axis=-1)
        words = (self.start(start) + self.end(end))[..., 0].astype(jnp.float32)
        return product * self.ffnn_size ** -0.5 + words + _MENTION_ODDS

    def pair_vectors(self, first: Float[Array, "B M D"], last: Float[Array, "B M D"], seed: jax.Array | None = None,
                     ) -> tuple[Float[Array, "B M 2H"], Float[Array, "B M K*2H"], Float32[Array, "B M distances"]]:
        """Vectors of mentions as antecedents and as what follows them, and the scores of distances and categories.

        The score of a pair is the product of both, and that of its distance and category: see `pair_scores`.
        """
        seeds = _seeds(seed, 2)
        antecedents = jnp.concatenate([self.antecedent_start(first, seeds[0]), self.antecedent_end(last, seeds[1])], -1)
        vectors = self.pair(antecedents) * antecedents.shape[-1] ** -0.5
        return antecedents, vectors, self.distance(antecedents).astype(jnp.float32)


class CoreferenceLoss(NamedTuple):
    """Sums over the words of each row [R], in nats."""
    first_words: Float32[Array, " R"]  # of being the first word of a mention
    mentions: Float32[Array, " R"]  # of being a mention
    antecedents: Float32[Array, " R"]  # of the gold antecedents, summed in probability


class CoreferenceModel(nn.Module):
    """An encoder with a scorer of mentions and their antecedents."""
    config: ModelConfig
    compute: ComputeConfig
    ffnn_size: int  # H of the scorer
    max_span_width: int  # words of a mention, at most
    top_span_ratio: float  # mentions whose antecedents are scored in training, as a share of the words
    pair_categories: bool  # whether each category of pairs has weights of its own

    @property
    def dummy_inputs(self) -> dict[str, Any]:
        """The smallest inputs, for `init`."""
        one, zero = jnp.ones((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.int32)
        return dict(tokens=one[None], segments=one[None], token_types=zero[None], words=Mentions(zero, zero),
                    documents=one, mentions=Mentions(zero, zero), chains=one, partial=zero,
                    word_classes=zero if self.pair_categories else None)

    def setup(self) -> None:
        self.encoder = self.config.make_encoder(self.compute)
        self.scorer = CoreferenceScorer(self.config, self.compute, self.ffnn_size, self.pair_categories)

    def encode(self, tokens: Integer[Array, "B S"], segments: Integer[Array, "B S"],
               token_types: Integer[Array, "B S"], deterministic: bool = True) -> Float[Array, "B S D"]:
        """Hidden states; no token attends to another segment of its row, and each segment has its own positions."""
        positions = jnp.minimum(position_ids(segments), self.config.max_positions - 1)
        return self.encoder(tokens, segments, token_types, positions=positions, deterministic=deterministic)

    def __call__(self, tokens: Integer[Array, "R K S"], segments: Integer[Array, "R K S"],
                 token_types: Integer[Array, "R K S"], words: Mentions, documents: Integer[Array, "R W"],
                 mentions: Mentions, chains: Integer[Array, "R G"], partial: Integer[Array, "R W"],
                 word_classes: Integer[Array, "R W"] | None = None, *, deterministic: bool = True) -> CoreferenceLoss:
        """The losses of rows of whole documents.

        Args:
          tokens, segments, token_types: of K segments, which are encoded as rows of S tokens.
          words: the first and the last token of each of W words, counted from the start of the first segment.
          documents: the number of each word's document in its row, from 1; 0 for padding.
          mentions: the gold mentions, in words.
          chains: the number of each gold mention's chain in its document, from 1; 0 for padding, -1 for a mention of
            which only is known that it is in no chain.
          partial: 1 in documents of which only some mentions are annotated: only these count, and not as mentions.
          word_classes: the class of each word, for the categories of pairs.
        """
        rows, _, length = tokens.shape
        tokens, segments, token_types = (values.reshape(-1, length) for values in (tokens, segments, token_types))
        hidden = self.encode(tokens, segments, token_types, deterministic)
        hidden = hidden.reshape(rows, -1, hidden.shape[-1])
        seeds = _seeds(None if deterministic else seed_from(self.make_rng("dropout")), 2)
        first, last = gather(hidden, words.start), gather(hidden, words.end)
        after = jnp.pad(last, ((0, 0), (0, self.max_span_width - 1), (0, 0)))
        first_scores, scores = self.scorer.mention_scores(first, after, seeds[0])
        gold = jax.vmap(_gold_chains, (0, 0, None, None))(mentions, chains, *scores.shape[1:])
        allowed = _inside_documents(documents, self.max_span_width)
        annotated = ((documents > 0) & (partial == 0)).astype(jnp.float32)
        first_loss = optax.sigmoid_binary_cross_entropy(first_scores, (gold != 0).any(-1).astype(jnp.float32))
        mention_loss = optax.sigmoid_binary_cross_entropy(scores, (gold != 0).astype(jnp.float32))

        kept, valid = self._keep(scores, gold, allowed, partial, jnp.sum(documents > 0, axis=1))
        kept_scores, kept_chains = (jnp.take_along_axis(values.reshape(values.shape[0], -1), kept, axis=1)
                                    for values in (scores, gold))
        start, width = jnp.divmod(kept, self.max_span_width)
        vectors = self.scorer.pair_vectors(gather(first, start), gather(last, start + width), seeds[1])
        document = jnp.where(valid, jnp.take_along_axis(documents, start, axis=1), 0)
        of_kept = None if word_classes is None else self._words_of(word_classes, start, width + 1)
        antecedent_loss = jax.vmap(antecedent_losses)(*vectors, kept_scores, start, document, kept_chains, of_kept)
        return CoreferenceLoss(jnp.sum(first_loss * annotated, -1),
                               jnp.sum(mention_loss * allowed * annotated[..., None], (-2, -1)), antecedent_loss)

    def _words_of(self, word_classes: Integer[Array, "R W"], start: Integer[Array, "R M"],
                  width: Integer[Array, "R M"]) -> MentionWords:
        classes = jnp.pad(word_classes, ((0, 0), (0, self.max_span_width)))
        reach = start[..., None] + np.arange(self.max_span_width)
        return jax.vmap(lambda row, places, widths: mention_words(row[places], widths))(classes, reach, width)

    def _keep(self, scores: Float32[Array, "R W L"], gold: Integer[Array, "R W L"], allowed: Bool[Array, "R W L"],
              partial: Integer[Array, "R W"], words: Integer[Array, " R"],
              ) -> tuple[Integer[Array, "R M"], Bool[Array, "R M"]]:
        """The gold mentions and those with the best scores, ascending by first and last word; and which are real.

        As many as `top_span_ratio` allows for the number of words of each row, without padding.

        The reference keeps the best ones only: with all gold ones, antecedents are learned from the first step on.
        """
        rows, most, _ = scores.shape
        ranked = jnp.where(gold != 0, jnp.inf, jnp.where(partial[..., None] > 0, -jnp.inf, scores))
        ranked = jax.lax.stop_gradient(jnp.where(allowed, ranked, -jnp.inf)).reshape(rows, -1)
        best, kept = jax.lax.top_k(ranked, max(1, round(self.top_span_ratio * most)))
        limit = jnp.maximum(1, jnp.round(self.top_span_ratio * words))
        valid = (best > -jnp.inf) & (jnp.arange(best.shape[1]) < limit[:, None])
        order = jnp.argsort(jnp.where(valid, kept, ranked.shape[1]), axis=1)
        return jnp.take_along_axis(kept, order, axis=1), jnp.take_along_axis(valid, order, axis=1)


def band_product(rows: Float[Array, "W H"], columns: Float[Array, "E H"], width: int) -> Float32[Array, "W L"]:
    """The products of each row with the L columns from its own number on; E = W + L - 1, and L is `width`."""
    blocks = -(-len(rows) // _BLOCK)
    missing = blocks * _BLOCK - len(rows)
    rows, columns = (jnp.pad(values, ((0, missing), (0, 0))) for values in (rows, columns))
    reach = np.arange(_BLOCK + width - 1)
    near = columns[np.arange(blocks)[:, None] * _BLOCK + reach]
    products = jnp.einsum("bqh,bkh->bqk", rows.reshape(blocks, _BLOCK, -1), near, preferred_element_type=jnp.float32)
    # Row q needs the columns from q on. In rows that are one longer than the blocks', these are below each other.
    skewed = jnp.pad(products.reshape(blocks, -1), ((0, 0), (0, _BLOCK))).reshape(blocks, _BLOCK, -1)
    return skewed[..., :width].reshape(-1, width)[:blocks * _BLOCK - missing]


def pair_scores(vectors: Float[Array, "Q K*2H"], distances: Float32[Array, "Q distances"],
                scores: Float32[Array, " Q"], starts: Integer[Array, " Q"], words: MentionWords | None,
                antecedents: Float[Array, "M 2H"], antecedent_scores: Float32[Array, " M"],
                antecedent_starts: Integer[Array, " M"],
                antecedent_words: MentionWords | None) -> Float32[Array, "Q M"]:
    """The scores of Q mentions with M possible antecedents; that of no antecedent is 0.

    Args:
      vectors, distances: of the mentions, by `CoreferenceScorer.pair_vectors`.
      scores, starts: of the mentions themselves, and their first words.
      words: of the mentions, for the categories of pairs; None without categories.
      antecedents, antecedent_scores, antecedent_starts, antecedent_words: the same of the antecedents.
    """
    kinds = vectors.shape[1] // antecedents.shape[1]
    by_kind = jnp.einsum("qh,mh->qm", vectors.reshape(len(vectors) * kinds, antecedents.shape[1]), antecedents,
                         preferred_element_type=jnp.float32).reshape(len(vectors), kinds, len(antecedents))
    products = by_kind[:, 0]
    if words is not None and antecedent_words is not None:
        category = pair_categories(words, antecedent_words)
        for number in range(len(CATEGORIES)):
            of_category = by_kind[:, 1 + number] + distances[:, _DISTANCES + number, None]
            products += jnp.where(category == number, of_category, 0)
    distance = jnp.abs(starts[:, None] - antecedent_starts)
    at_least = [distances[:, :1] + 0 * products]
    for number in range(1, _DISTANCES):  # selects many times faster than a look-up, whose gradient is a scatter
        at_least.append(jnp.where(distance >= 2 ** (number - 1), distances[:, number:number + 1], at_least.pop()))
    return products + at_least[0] + scores[:, None] + antecedent_scores


def antecedent_losses(antecedents: Float[Array, "M 2H"], vectors: Float[Array, "M K*2H"],
                      distances: Float32[Array, "M distances"], scores: Float32[Array, " M"],
                      starts: Integer[Array, " M"], documents: Integer[Array, " M"],
                      chains: Integer[Array, " M"], words: MentionWords | None = None) -> Float32[Array, ""]:
    """The sum over mentions of -log P(one of the gold antecedents), that of no antecedent if there is none.

    A block of mentions at a time, which the backward pass computes again: no M x M array is kept.

    Args:
      documents: 0 for padding; antecedents are mentions of the same document with smaller numbers.
      chains: positive and equal for mentions of a chain of a document.
      words: of the mentions, for the categories of pairs.
    """
    count = len(scores)
    size = min(_QUERIES, count)
    numbers = jnp.arange(-(-count // size) * size).reshape(-1, size)

    @jax.checkpoint
    def block(queries: Integer[Array, " Q"]) -> Float32[Array, ""]:
        real, at = queries < count, jnp.minimum(queries, count - 1)
        words_at = jax.tree.map(lambda values: values[at], words)
        values = pair_scores(vectors[at], distances[at], scores[at], starts[at], words_at,
                             antecedents, scores, starts, words)
        allowed = (jnp.arange(count) < at[:, None]) & (documents == documents[at][:, None])
        gold = allowed & (chains == chains[at][:, None]) & (chains > 0)
        none = jnp.where(gold.any(axis=1), _NEVER, 0.0)

        def log_sum(chosen: Bool[Array, "Q M"], without: Float32[Array, " Q"]) -> Float32[Array, " Q"]:
            return jax.nn.logsumexp(jnp.concatenate([without[:, None], jnp.where(chosen, values, _NEVER)], 1), axis=1)

        return jnp.sum(jnp.where(real & (documents[at] > 0), log_sum(allowed, 0 * none) - log_sum(gold, none), 0))

    return jnp.sum(jax.lax.map(block, numbers))


def _gold_chains(mentions: Mentions, chains: Integer[Array, " G"], words: int, longest: int) -> Integer[Array, "W L"]:
    """The chain of every possible mention, 0 for those that are none."""
    width = mentions.end - mentions.start
    where = jnp.where((chains != 0) & (width < longest), mentions.start * longest + width, words * longest)
    return jnp.zeros(words * longest, chains.dtype).at[where].set(chains, mode="drop").reshape(words, longest)


def _inside_documents(documents: Integer[Array, "R W"], longest: int) -> Bool[Array, "R W L"]:
    """Whether the last word of each possible mention is in the document of its first."""
    reach = np.arange(documents.shape[1])[:, None] + np.arange(longest)
    ends = jnp.pad(documents, ((0, 0), (0, longest - 1)))[:, reach]
    return (documents[..., None] > 0) & (ends == documents[..., None])


def _seeds(seed: jax.Array | None, count: int) -> list[Any]:
    """A dropout seed for each of several uses; None without dropout."""
    return [None] * count if seed is None else list(split_seed(seed, (count,)))
