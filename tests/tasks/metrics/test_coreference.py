"""Coreference metrics against their definitions, other scorers, and values from the literature."""
import itertools
import tracemalloc

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from spanbert_jax.tasks.metrics.coreference import METRICS, WITHOUT_SINGLETONS, coreference_metrics
from tests.paths import DATA, needs_data
from tests.tasks.coreference_baseline import read_with_rule_chains

CONLL = ("muc", "b_cubed", "ceaf_phi4")


def links(chain):
    """LEA's links of a chain: all pairs, or one from a single mention to itself."""
    return set(map(frozenset, itertools.combinations(chain, 2))) or {frozenset(chain)}


def phi4(key, response):
    return 2 * len(key & response) / (len(key) + len(response))


def best_assignment(key, response):
    """The greatest sum of phi4: of all assignments if there are few, else by the Hungarian algorithm."""
    short, long = sorted((key, response), key=len)
    if len(long) <= 5:
        return max(sum(phi4(*pair) for pair in zip(short, order)) for order in itertools.permutations(long, len(short)))
    similarities = np.array([[phi4(*pair) for pair in itertools.product([one], long)] for one in short]).reshape(
        len(short), len(long))
    return similarities[linear_sum_assignment(-similarities)].sum()


def recalled(key, response):
    """Numerator and denominator of each metric's recall, by the formulas of the papers, for lists of sets."""
    chain_of = {mention: chain for chain in response for mention in chain}
    mentions = [mention for chain in key for mention in chain]
    parts = [{id(chain_of[mention]) if mention in chain_of else mention for mention in chain} for chain in key]
    found = set().union(*map(links, response))
    return {
        "muc": (sum(len(chain) - len(part) for chain, part in zip(key, parts)), sum(len(chain) - 1 for chain in key)),
        "b_cubed": (sum(len(chain & chain_of.get(mention, set())) / len(chain) for chain in key for mention in chain),
                    len(mentions)),
        "ceaf_phi4": (best_assignment(key, response), sum(phi4(chain, chain) for chain in key)),
        "lea": (sum(len(chain) * len(links(chain) & found) / len(links(chain)) for chain in key),
                sum(map(len, key))),
        "mention": (len({*mentions} & {*chain_of}), len({*mentions}))}


def divided(part, whole):
    return part / whole if whole else 0.0


def expected_metrics(documents):
    """The metrics of documents whose chains are lists of sets."""
    metrics = {}
    for prefix, least in (("", 1), (WITHOUT_SINGLETONS, 2)):
        kept = [[[chain for chain in chains if len(chain) >= least] for chains in document] for document in documents]
        recalls, precisions = ([recalled(*sides) for sides in both]
                               for both in (kept, [document[::-1] for document in kept]))
        for name in METRICS:
            precision, recall = (100 * divided(*np.sum([counts[name] for counts in each], axis=0))
                                 for each in (precisions, recalls))
            metrics |= {f"{prefix}{name}_precision": precision, f"{prefix}{name}_recall": recall,
                        f"{prefix}{name}_f1": divided(2 * precision * recall, precision + recall)}
        metrics[f"{prefix}conll_f1"] = np.mean([metrics[f"{prefix}{name}_f1"] for name in CONLL])
    return metrics


def random_document(rng):
    """Key and response of up to 40 mentions: unrelated, or the response is the key with some mentions moved."""
    count, most = int(rng.integers(0, 41)), int(rng.integers(1, 30))
    key = rng.integers(0, most, count)
    moved = rng.random(count) < rng.choice([0.0, 0.2, 1.0])
    response = np.where(moved, rng.integers(0, int(rng.integers(1, 30)), count), key)
    sides = []
    for numbers in (key, response):
        present = rng.random(count) < rng.choice([0.0, 0.6, 0.9, 1.0, 1.0, 1.0])
        chains = {}
        for mention in rng.permutation(count):
            if present[mention]:
                chains.setdefault(numbers[mention], set()).add((int(mention), int(mention) + 1 + int(mention) % 3))
        sides.append(list(chains.values()))
    return sides


def without_repeated(chains):
    """Chains as sets, with each mention in the first chain that has it."""
    return [kept for number, chain in enumerate(chains)
            if (kept := set(chain).difference(*map(set, chains[:number])))]


def listed(document):
    return [[list(chain) for chain in chains] for chains in document]


def test_random_clusterings_against_the_definitions():
    rng = np.random.default_rng(0)
    documents = [random_document(rng) for _ in range(2000)]
    assert sum(not all(document) for document in documents) > 100  # an empty side
    for document in documents:
        assert coreference_metrics([listed(document)]) == pytest.approx(expected_metrics([document]), abs=1e-6)
    for first in range(0, 2000, 100):
        part = documents[first:first + 100]
        assert coreference_metrics(map(listed, part)) == pytest.approx(expected_metrics(part), abs=1e-6)


@needs_data
def test_real_documents_against_the_definitions():
    """OntoGUM's key has spans in two chains; the response is that of the rule baseline."""
    documents = list(read_with_rule_chains(DATA / "ontogum" / "dev"))
    assert len(documents) == 12
    once = [[without_repeated(chains) for chains in document] for document in documents]
    assert coreference_metrics(documents) == pytest.approx(expected_metrics(once), abs=1e-6)


def test_against_scorch():
    """Its functions score one document; its command averages the scores of documents instead of adding counts."""
    scores = pytest.importorskip("scorch.scores", reason="scorch is in the extra dev")
    rng = np.random.default_rng(1)
    for _ in range(200):
        key, response = random_document(rng)
        metrics = coreference_metrics([listed((key, response))])
        for name, score in zip(CONLL, (scores.muc, scores.b_cubed, scores.ceaf_e)):
            assert [metrics[f"{name}_{kind}"] for kind in ("recall", "precision", "f1")] == pytest.approx(
                [100 * value for value in score(key, response)])
        assert metrics["conll_f1"] == pytest.approx(100 * scores.conll2012(key, response))


def test_against_coreference_eval():
    """It is given no singletons, which it leaves out of some counts only."""
    package = pytest.importorskip("corefeval", reason="coreference-eval is in the extra dev")
    rng = np.random.default_rng(2)
    scorer, documents = package.Scorer(), []
    for _ in range(100):
        documents.append(listed([[chain for chain in chains if len(chain) > 1] for chains in random_document(rng)]))
        scorer.update(package.Document(predicted=documents[-1][1], truth=documents[-1][0]))
    conll, scores = scorer.detailed_score("", "", verbose=False)
    metrics = coreference_metrics(documents)
    for name, theirs in (("muc", "muc"), ("b_cubed", "b_cubed"), ("ceaf_phi4", "ceafe"), ("lea", "lea")):
        assert [metrics[f"{name}_{kind}"] for kind in ("precision", "recall", "f1")] == pytest.approx(
            [100 * scores[theirs][kind] for kind in ("precision", "recall", "f1")])
    assert metrics["conll_f1"] == metrics[f"{WITHOUT_SINGLETONS}conll_f1"] == pytest.approx(100 * conll)


# Recall and precision of chains whose mentions are letters, from Vilain et al. (1995), Bagga and Baldwin (1998), Luo
# (2005) with the cases of Pradhan et al. (2014), and Moosavi and Strube (2016).
LITERATURE = {
    "equal": ("a bc def", "a bc def", dict.fromkeys(METRICS, (1, 1))),
    "missing": ("a bc def", "a de", {"muc": (1 / 3, 1), "b_cubed": (7 / 18, 1), "ceaf_phi4": (0.6, 0.9),
                                     "lea": ((1 + 3 / 3) / 6, 1), "mention": (1 / 2, 1)}),
    "spurious": ("a bc def", "a bcx defy z", {"muc": (1, 3 / 5), "b_cubed": (1, 55 / 108), "mention": (1, 6 / 9),
                                              "ceaf_phi4": ((1 + 4 / 5 + 6 / 7) / 3, (1 + 4 / 5 + 6 / 7) / 4),
                                              "lea": (1, (1 + 3 / 3 + 4 / 2) / 9)}),
    "both": ("a bc def", "a bcx dy z", {"muc": (1 / 3, 1 / 3), "b_cubed": (5 / 9, 17 / 42), "mention": (4 / 6, 4 / 7),
                                        "ceaf_phi4": (2.2 / 3, 2.2 / 4), "lea": ((1 + 2) / 6, (1 + 3 / 3) / 7)}),
    "all alone": ("a bc def", "a b c d e f", {"muc": (0, 0), "b_cubed": (1 / 2, 1), "lea": (1 / 6, 1 / 6),
                                              "ceaf_phi4": ((1 + 2 / 3 + 1 / 2) / 3, (1 + 2 / 3 + 1 / 2) / 6)}),
    "all together": ("a bc def", "abcdef", {"muc": (1, 3 / 5), "b_cubed": (1, 7 / 18), "lea": (5 / 6, 4 / 15),
                                            "ceaf_phi4": (2 / 9, 2 / 3)}),
    "small into large": ("12345 67 89ABC", "12345 6789ABC", {"muc": (1, 9 / 10), "b_cubed": (1, 16 / 21)}),
    "large into large": ("12345 67 89ABC", "1234589ABC 67", {"muc": (1, 9 / 10), "b_cubed": (1, 7 / 12)}),
    "one missing link": ("abcd", "ab cd", {"muc": (2 / 3, 1)}),
    "across chains": ("abc defg", "ab cd fgh", {"muc": (2 / 5, 2 / 4)}),
    "pieces": ("bcdeghj", "abc def ghi", {"muc": (3 / 6, 3 / 6)}),
    "LEA": ("abc defg", "ab cd fghi", {"lea": ((3 * 1 / 3 + 4 * 1 / 6) / 7, (2 * 1 + 2 * 0 + 4 * 1 / 6) / 8)}),
    "key of single mentions": ("a b c", "abc", {"muc": (0, 0), "lea": (0, 0), "b_cubed": (1, 1 / 3),
                                                "ceaf_phi4": (1 / 2 / 3, 1 / 2)}),
    "nothing in common": ("ab c", "de f", dict.fromkeys(METRICS, (0, 0))),
    "no response": ("ab c", "", dict.fromkeys(METRICS, (0, 0))),
    "nothing at all": ("", "", dict.fromkeys(METRICS, (0, 0))),
    # A repeated mention counts where it comes first.
    "repeated in its chain": ("a bc def", "a bcxb dy z", {"ceaf_phi4": (2.2 / 3, 2.2 / 4), "mention": (4 / 6, 4 / 7)}),
    "repeated in another chain": ("a bc def", "a bcx dy bbbbz b", {
        "muc": (1 / 3, 1 / 3), "ceaf_phi4": (2.2 / 3, 2.2 / 4), "b_cubed": (5 / 9, 17 / 42)}),
    "repeated in the key": ("ab bcd c", "ab cd", dict.fromkeys(METRICS, (1, 1)))}


def chains(text):
    return [[(ord(letter), ord(letter) + 1) for letter in word] for word in text.split()]


@pytest.mark.parametrize("case", LITERATURE)
def test_values_from_the_literature(case):
    key, response, expected = LITERATURE[case]
    metrics = coreference_metrics([(chains(key), chains(response))])
    for name, (recall, precision) in expected.items():
        assert metrics[f"{name}_recall"] == pytest.approx(100 * recall)
        assert metrics[f"{name}_precision"] == pytest.approx(100 * precision)


def test_a_chain_of_one_repeated_mention_is_a_singleton():
    metrics = coreference_metrics([(chains("ab cc"), chains("ab d"))])
    assert metrics[f"{WITHOUT_SINGLETONS}conll_f1"] == pytest.approx(100) and metrics["mention_recall"] < 100


def test_a_document_of_40_000_mentions():
    """Each response chain has two mentions of each of two key chains, so that all are one component."""
    count, size = 10_000, 4
    mentions = [(place, place + 1) for place in range(count * size)]
    sides = [[order[first:first + size] for first in range(0, len(order), size)]
             for order in (mentions, mentions[2:] + mentions[:2])]
    tracemalloc.start()
    metrics = coreference_metrics([tuple(sides)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # a dense matrix takes 800 MB
    assert {name: metrics[f"{name}_f1"] for name in METRICS} == pytest.approx(
        {"muc": 200 / 3, "b_cubed": 50, "ceaf_phi4": 50, "lea": 100 / 3, "mention": 100})
