"""Coreference: scores and losses against their definitions, pair by pair in NumPy, and rows of several documents."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, log_expit, logsumexp

from spanbert_jax.model import BertConfig, ComputeConfig
from spanbert_jax.model.coreference import CoreferenceModel, Mentions, antecedent_losses, band_product

CONFIG = BertConfig(vocab_size=20, num_layers=1, width=8, num_heads=2, feed_forward=16, max_positions=64,
                    token_types=2, initializer_range=0.3)
FFNN = 6


@pytest.mark.parametrize(("count", "width", "features"), [(1, 1, 3), (5, 1, 3), (64, 5, 4), (100, 30, 4), (130, 70, 2)])
def test_band_product(count, width, features):
    random = np.random.default_rng(0)
    rows, columns = (random.normal(size=(size, features)).astype(np.float32) for size in (count, count + width - 1))
    expected = [[rows[row] @ columns[row + column] for column in range(width)] for row in range(count)]
    np.testing.assert_allclose(band_product(jnp.asarray(rows), jnp.asarray(columns), width), expected, atol=1e-5)


def make_model(width=3, ratio=0.5, categories=False):
    model = CoreferenceModel(CONFIG, ComputeConfig(dtype="float32"), FFNN, width, ratio, categories)
    params = nn.unbox(jax.jit(lambda key: model.init(key, **model.dummy_inputs))(jax.random.key(1)))["params"]
    random = np.random.default_rng(2)
    # Scores of the size that they have after training, not those of new parameters.
    return model, jax.tree.map(lambda leaf: leaf + random.normal(size=leaf.shape).astype(np.float32) * 0.3, params)


def make_row(sizes, seed=0, partial=()):
    """A row of documents of some words each, in one segment each; every fourth word has two tokens."""
    random, segments = np.random.default_rng(seed), len(sizes)
    row = {name: np.zeros((segments, 32), np.int32) for name in ("tokens", "segments", "token_types")}
    first, last, documents, start, end, chains = ([] for _ in range(6))
    for number, size in enumerate(sizes):
        lengths = np.where(np.arange(size) % 4 == 3, 2, 1)
        stops = np.cumsum(lengths) + 1
        begin = len(first)
        row["tokens"][number, :stops[-1] + 1] = random.integers(1, 20, stops[-1] + 1)
        row["segments"][number, :stops[-1] + 1] = number + 1
        first += (number * 32 + stops - lengths).tolist()
        last += (number * 32 + stops - 1).tolist()
        documents += [number + 1] * size
        for mention in range(size // 2):
            start.append(begin + 2 * mention)
            end.append(begin + 2 * mention + int(random.integers(0, 2)))
            chains.append(int(random.integers(1, 3)) if number + 1 not in partial else (1, 1, -1)[mention % 3])
    return row | {"words": (first, last), "documents": documents, "mentions": (start, end), "chains": chains,
                  "classes": random.choice([0, 1, 2, 40, 41, 42], len(documents)).tolist(),
                  "partial": [int(document in partial) for document in documents]}


def losses(model, params, row, padding=0):
    def padded(values):
        return jnp.asarray([[*values, *[0] * padding]], jnp.int32)

    encoded = (row[name][None] for name in ("tokens", "segments", "token_types"))
    found = jax.jit(model.apply)({"params": params}, *encoded, Mentions(*map(padded, row["words"])),
                                 padded(row["documents"]), Mentions(*map(padded, row["mentions"])),
                                 padded(row["chains"]), padded(row["partial"]),
                                 padded(row["classes"]) if model.pair_categories else None)
    return [float(value[0]) for value in found]


def defined_losses(model, params, row):
    """The three losses, word by word and pair by pair, as the paper defines them."""
    encode = jax.jit(lambda *inputs: model.apply({"params": params}, *inputs, method="encode"))
    hidden = encode(*(row[name] for name in ("tokens", "segments", "token_types")))
    hidden = np.asarray(hidden, np.float64).reshape(-1, CONFIG.width)
    scorer = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["scorer"])

    def dense(name, x):
        return x @ scorer[name]["kernel"] + scorer[name]["bias"]

    def vector(name, word):
        x = word @ scorer[name]["projection"]["kernel"] + scorer[name]["projection"]["bias"]
        x = x * 0.5 * (1 + erf(x / np.sqrt(2)))
        x = (x - x.mean()) / np.sqrt(x.var() + CONFIG.layer_norm_epsilon)
        return x * scorer[name]["norm"]["scale"] + scorer[name]["norm"]["bias"]

    first, last = (hidden[positions] for positions in row["words"])
    documents, longest = row["documents"], model.max_span_width
    gold = {(first, end): chain for first, end, chain in zip(*row["mentions"], row["chains"])
            if end - first < model.max_span_width}
    starts = {word for word, _ in gold}
    first_loss = mention_loss = antecedent_loss = 0.0
    scores = {}
    for word, document in enumerate(documents):
        start = vector("mention_start", first[word])
        odds = dense("first_word", start)[0] - 2
        first_loss -= 0 if row["partial"][word] else log_expit(odds if word in starts else -odds)
        for other in range(word, min(len(documents), word + longest)):
            if documents[other] != document:
                continue
            end = vector("mention_end", last[other])
            score = (dense("start", start) + dense("end", end))[0] - 5
            score += dense("start_to_end", start) @ end / FFNN ** 0.5
            mention_loss -= 0 if row["partial"][word] else log_expit(score if (word, other) in gold else -score)
            if (word, other) in gold or not row["partial"][word]:
                scores[word, other] = score
    kept = sorted(scores, key=lambda span: (span not in gold, -scores[span]))
    kept = sorted(kept[:round(model.top_span_ratio * len(documents))])
    pairs = {span: np.concatenate([vector("antecedent_start", first[span[0]]), vector("antecedent_end", last[span[1]])])
             for span in kept}
    for number, span in enumerate(kept):
        before = [other for other in kept[:number] if documents[other[0]] == documents[span[0]]]
        values = {}
        for other in before:
            distance = span[0] - other[0]
            level = min(11, int(np.log2(distance)) + 1) if distance else 0
            by_kind, of_distance = dense("pair", pairs[span]).reshape(-1, 2 * FFNN), dense("distance", pairs[span])
            values[other] = (scores[span] + scores[other] + of_distance[level]
                             + by_kind[0] @ pairs[other] / (2 * FFNN) ** 0.5)
            if model.pair_categories:
                category = defined_category(*(row["classes"][first:last + 1] for first, last in (span, other)))
                values[other] += of_distance[12 + category] + by_kind[1 + category] @ pairs[other] / (2 * FFNN) ** 0.5
        right = [values[other] for other in before if gold.get(span, 0) > 0 and gold.get(other) == gold[span]]
        antecedent_loss += logsumexp([0.0, *values.values()]) - logsumexp(right or [0.0])
    return [first_loss, mention_loss, antecedent_loss]


def defined_category(mention, antecedent):
    """The category of a pair, from the classes of their words."""
    pronouns = [len(words) == 1 and 1 <= words[0] < 32 for words in (mention, antecedent)]
    if any(pronouns):
        return 2 if not all(pronouns) else 0 if mention == antecedent else 1
    content = [sorted(word for word in words if word >= 32) for words in (mention, antecedent)]
    if not all(content):
        return 5
    return 3 if content[0] == content[1] else 4 if set(content[0]) <= set(content[1]) or set(content[0]) >= set(
        content[1]) else 5


@pytest.mark.parametrize(("sizes", "width", "ratio", "partial", "categories"), [
    ([20], 3, 0.6, (), False), ([9, 1, 14], 2, 0.7, (), False), ([12], 1, 1.0, (), False),
    ([10, 12], 3, 0.9, (2,), False), ([8], 5, 1.0, (1,), False), ([16, 12], 3, 0.9, (), True)])
def test_losses_are_those_of_the_definition(sizes, width, ratio, partial, categories):
    model, params = make_model(width, ratio, categories)
    row = make_row(sizes, partial=partial)
    np.testing.assert_allclose(losses(model, params, row), defined_losses(model, params, row), rtol=2e-4, atol=1e-5)


def test_documents_of_a_row_and_padding_do_not_change_each_other():
    model, params = make_model(3, 1.0)
    alone = np.sum([losses(model, params, make_row([size], seed)) for seed, size in enumerate((9, 13))], axis=0)
    rows = [make_row([9], 0), make_row([13], 1)]
    both = {name: np.concatenate([row[name] for row in rows]) for name in ("tokens", "segments", "token_types")}
    both["segments"][1] *= 2
    both |= {"words": [a + [32 + place for place in b] for a, b in zip(*(row["words"] for row in rows))],
             "mentions": [a + [9 + word for word in b] for a, b in zip(*(row["mentions"] for row in rows))],
             "documents": [1] * 9 + [2] * 13, "classes": None,
             "chains": rows[0]["chains"] + rows[1]["chains"], "partial": [0] * 22}
    np.testing.assert_allclose(losses(model, params, both, padding=7)[:2], alone[:2], rtol=1e-5)
    gold = {"partial": [1] * 22}  # only gold mentions are kept, whatever else the row holds
    alone = np.sum([losses(model, params, row | {"partial": [1] * len(row["documents"])}) for row in rows], axis=0)
    np.testing.assert_allclose(losses(model, params, both | gold, padding=7), alone, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 7, 300])
def test_antecedent_losses_in_blocks(count):
    """More mentions than a block; gradients by the definition, with all pairs at once."""
    random = np.random.default_rng(count)
    arrays = [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((count, 4), (count, 4), (count, 12))]
    scores = jnp.asarray(random.normal(size=count), jnp.float32)
    starts, documents, chains = (np.sort(random.integers(0, 3000, count)), np.sort(random.integers(0, 3, count)),
                                 random.integers(-1, 6, count))

    def definition(antecedents, vectors, distances, scores):
        distance = np.abs(starts[:, None] - starts)
        level = np.where(distance > 0, np.minimum(11, np.floor(np.log2(np.maximum(1, distance))) + 1), 0).astype(int)
        values = (vectors @ antecedents.T + jnp.take_along_axis(distances, jnp.asarray(level), 1)
                  + scores[:, None] + scores)
        allowed = np.tril(np.ones((count, count), bool), -1) & (documents[:, None] == documents)
        right = allowed & (chains[:, None] == chains) & (chains > 0)
        values = jnp.concatenate([jnp.zeros((count, 1)), values], 1)
        allowed, right = np.insert(allowed, 0, True, 1), np.insert(right, 0, ~right.any(1), 1)
        terms = (jax.nn.logsumexp(jnp.where(allowed, values, -jnp.inf), 1)
                 - jax.nn.logsumexp(jnp.where(right, values, -jnp.inf), 1))
        return jnp.sum(jnp.where(documents > 0, terms, 0))

    def ours(*arrays):
        return antecedent_losses(*arrays, *map(jnp.asarray, (starts, documents, chains)))

    expected, got = (jax.value_and_grad(function, argnums=(0, 1, 2, 3))(*arrays, scores)
                     for function in (definition, ours))
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=2e-4)
