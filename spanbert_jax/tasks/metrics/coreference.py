"""Metrics of coreference: MUC, B-cubed, CEAF-phi4 and their mean, LEA, and mention detection.

All are sums over the numbers of common mentions n of a key chain and a response chain, as in the reference scorer of
CoNLL-2012 (Pradhan et al., 2014) and, for LEA, in the paper (Moosavi and Strube, 2016).
"""
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from spanbert_jax.tasks.files.coreference_documents import Span

Chains = Sequence[Sequence[Span]]

WITHOUT_SINGLETONS = "without_singletons/"
METRICS = ("muc", "b_cubed", "ceaf_phi4", "lea", "mention")
_CONLL = ("muc", "b_cubed", "ceaf_phi4")


class _Overlaps(NamedTuple):
    """The P pairs of a key chain and a response chain with a common mention, and the sizes of all chains."""
    key: np.ndarray  # [P] number of the key chain
    response: np.ndarray  # [P] number of the response chain
    common: np.ndarray  # [P] common mentions
    key_sizes: np.ndarray  # mentions of each key chain
    response_sizes: np.ndarray  # mentions of each response chain

    def swapped(self) -> "_Overlaps":
        """The same with the other side as the key: precision is recall after a swap."""
        return _Overlaps(self.response, self.key, self.common, self.response_sizes, self.key_sizes)


def coreference_metrics(documents: Iterable[tuple[Chains, Chains]]) -> dict[str, float]:
    """Scores of predicted chains in percent.

    Numerators and denominators are summed over the documents and divided once, as in the reference scorer. What is
    undefined, such as the precision of no chains at all, is 0. Time and memory of a document grow with its mentions.

    A mention that is repeated, in its chain or in another one, counts where it comes first. The reference scorer does
    so for mentions of the response that are in the key, up to 10 of them. It counts others, and those repeated in the
    key, in all places, so that not even the key itself reaches 100%.

    Args:
      documents: key chains and response chains of each. The order of mentions and chains decides only about repeated
        mentions.

    Returns:
      "conll_f1", the mean F1 of MUC, B-cubed and CEAF-phi4, and NAME_precision, NAME_recall and NAME_f1 of each of
      `METRICS`. And the same with the prefix `WITHOUT_SINGLETONS`, after chains of one mention are removed from key and
      response, as OntoNotes has none.
    """
    sums = np.zeros((2, len(METRICS), 4))  # with and without singletons; numerator and denominator of both sides
    for document in documents:
        key, response = map(_distinct, document)
        sums[0] += _counts(key, response)
        sums[1] += _counts(*([chain for chain in chains if len(chain) > 1] for chains in (key, response)))
    return _metrics(sums[0], "") | _metrics(sums[1], WITHOUT_SINGLETONS)


def _metrics(sums: np.ndarray, prefix: str) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, (recalled, expected, correct, guessed) in zip(METRICS, sums):
        precision, recall = _ratio(correct, guessed), _ratio(recalled, expected)
        f1 = _ratio(2 * precision * recall, precision + recall)
        metrics |= {f"{prefix}{name}_precision": 100 * precision, f"{prefix}{name}_recall": 100 * recall,
                    f"{prefix}{name}_f1": 100 * f1}
    conll = sum(metrics[f"{prefix}{name}_f1"] for name in _CONLL) / len(_CONLL)
    return {f"{prefix}conll_f1": conll, **metrics}


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _distinct(chains: Chains) -> list[list[Span]]:
    """Chains without repeated mentions, and without those that this leaves empty."""
    seen: set[Span] = set()
    kept = []
    for chain in chains:
        new = [span for span in dict.fromkeys(chain) if span not in seen]
        seen.update(new)
        kept += [new] * bool(new)
    return kept


def _counts(key: Chains, response: Chains) -> np.ndarray:
    """[metric, 4] numerator and denominator of the recall and of the precision of a document."""
    overlaps = _overlaps(key, response)
    aligned = _aligned_similarity(overlaps)
    sides = [[_muc(side), _b_cubed(side), (aligned, len(side.key_sizes)), _lea(side),
              (side.common.sum(), side.key_sizes.sum())] for side in (overlaps, overlaps.swapped())]
    return np.concatenate(sides, axis=1)


def _overlaps(key: Chains, response: Chains) -> _Overlaps:
    chain_of = {span: number for number, chain in enumerate(response) for span in chain}
    found = np.array([(number, chain_of[span]) for number, chain in enumerate(key) for span in chain
                      if span in chain_of], np.int64).reshape(-1, 2)
    pairs, common = np.unique(found, axis=0, return_counts=True)
    sizes = [np.array([len(chain) for chain in chains], np.int64) for chains in (key, response)]
    return _Overlaps(pairs[:, 0], pairs[:, 1], common, *sizes)


def _muc(overlaps: _Overlaps) -> tuple[float, float]:
    """Links that need not be added to the response to connect each key chain, and all that connect the key chains.

    Vilain et al. (1995). A chain of one mention has no link.
    """
    return (overlaps.common - 1).sum(), (overlaps.key_sizes - 1).sum()


def _b_cubed(overlaps: _Overlaps) -> tuple[float, float]:
    """Sum over key mentions of the share of its chain that is in its response chain, and their number.

    Bagga and Baldwin (1998); a mention that the response lacks has the share 0.
    """
    return (overlaps.common**2 / overlaps.key_sizes[overlaps.key]).sum(), overlaps.key_sizes.sum()


def _lea(overlaps: _Overlaps) -> tuple[float, float]:
    """Sum over key chains of their size times the share of their links that the response has, and of their sizes.

    A chain of one mention has one link, from the mention to itself; the response has it if it has the same chain.
    """
    sizes, others = overlaps.key_sizes[overlaps.key], overlaps.response_sizes[overlaps.response]
    links = np.where(sizes == 1, others == 1, overlaps.common * (overlaps.common - 1) / 2)
    shares = links / np.maximum(sizes * (sizes - 1) / 2, 1)
    return (sizes * shares).sum(), overlaps.key_sizes.sum()


def _aligned_similarity(overlaps: _Overlaps) -> float:
    """The greatest sum of similarities of K key chains and R response chains that are paired one to one.

    Luo (2005); the similarity phi4 is 2 n / (size + size). Only chains with a common mention are paired, in a sparse
    matrix: there may be ten thousand chains.
    """
    from scipy.sparse import csr_array  # takes a second to import
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    sizes = overlaps.key_sizes, overlaps.response_sizes
    similarities = 2 * overlaps.common / (sizes[0][overlaps.key] + sizes[1][overlaps.response])
    keys, responses = len(sizes[0]), len(sizes[1])
    # Each key chain may also stay alone, in a column of its own. As it is paired exactly once, 1 is added to all its
    # entries, since a sparse matrix has no entries of 0.
    rows, alone = np.append(overlaps.key, np.arange(keys)), np.arange(responses, responses + keys)
    values = np.append(similarities + 1, np.ones(keys))
    matrix = csr_array((values, (rows, np.append(overlaps.response, alone))), shape=(keys, responses + keys))
    return matrix[min_weight_full_bipartite_matching(matrix, maximize=True)].sum() - keys if keys else 0.0
