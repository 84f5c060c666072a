"""An independent sampler: span masking token by token in plain Python, with the rejections of the reference."""
import dataclasses
import math
import random

import numpy as np

from spanbert_jax.text import SpecialIds

# Ids of the tests' vocabulary: special tokens, then a few ids that no text contains, then the tokens of texts.
PAD, UNK, CLS, SEP, MASK = range(5)
FIRST_PIECE, VOCABULARY = 10, 2000


SPECIAL = SpecialIds(PAD, UNK, CLS, SEP, MASK)
UNIGRAM = np.where(np.arange(VOCABULARY) < FIRST_PIECE, 0, 1)


@dataclasses.dataclass
class Blocks:
    """N random blocks of n tokens: a token starts a word with a given probability, the first always does."""
    tokens: np.ndarray       # [N, n]
    word_starts: np.ndarray  # [N, n] bool
    annotations: np.ndarray  # [N, n], 1 first token of a unit, 2 further ones


def random_blocks(rng: np.random.Generator, count: int, length: int, word_start_fraction: float,
                  unit_fraction: float = 0.0) -> Blocks:
    """Random blocks; a token outside units starts one with `unit_fraction`, each unit continues with probability
    1/2."""
    word_starts = rng.random((count, length)) < word_start_fraction
    word_starts[:, 0] = True
    annotations = np.zeros((count, length), np.uint8)
    for i in range(length):
        inside = (annotations[:, i - 1] > 0) & (rng.random(count) < 0.5) if i else False
        begins = rng.random(count) < unit_fraction
        annotations[:, i] = np.where(inside, 2, np.where(begins, 1, 0))
    return Blocks(rng.integers(FIRST_PIECE, VOCABULARY, (count, length)), word_starts, annotations)


def single_rows(blocks: Blocks) -> dict[str, np.ndarray]:
    """Rows `[CLS] block [SEP]` [N, n + 2]."""
    return packed_rows([blocks])


def packed_rows(parts: list[Blocks]) -> dict[str, np.ndarray]:
    """Rows with one block of each part, `[CLS] block [SEP]` each, as segments 1, 2, ..."""
    return _join([_text(part, segment, 0, opened=True) for segment, part in enumerate(parts, 1)])


def pair_rows(first: Blocks, second: Blocks) -> dict[str, np.ndarray]:
    """Rows `[CLS] first [SEP] second [SEP]`, one segment, the second text with token type 1."""
    return _join([_text(first, 1, 0, opened=True), _text(second, 1, 1, opened=False)])


def _text(part: Blocks, segment: int, token_type: int, opened: bool) -> dict[str, np.ndarray]:
    shape = len(part.tokens), part.tokens.shape[1] + 1 + opened
    edges = ((0, 0), (int(opened), 1))
    tokens = np.pad(part.tokens, edges, constant_values=SEP)
    if opened:
        tokens[:, 0] = CLS
    return {"tokens": tokens, "word_starts": np.pad(part.word_starts, edges).astype(np.uint8),
            "segments": np.full(shape, segment), "token_types": np.full(shape, token_type),
            "annotations": np.pad(part.annotations, edges)}


def _join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts], axis=1).astype(np.int32) for name in parts[0]}


def sample_masks(rng: random.Random, blocks: Blocks, scheme: str, settings) -> np.ndarray:
    """Masks each block by the sequential rules. bool [N, n]."""
    masks = np.zeros(blocks.tokens.shape, bool)
    for mask, word_starts, annotations in zip(masks, blocks.word_starts.tolist(), blocks.annotations.tolist()):
        mask[list(_sample(rng, word_starts, _units(annotations), scheme, settings))] = True
    return masks


def _units(annotations: list[int]) -> list[list[int]]:
    units = []
    for i, mark in enumerate(annotations):
        if mark == 1:
            units.append([i])
        elif mark == 2:
            units[-1].append(i)
    return units


def _sample(rng: random.Random, word_starts: list[bool], units: list[list[int]], scheme: str, settings) -> set[int]:
    length = len(word_starts)
    budget = math.ceil(length * settings.rate)
    if scheme == "token":
        return set(rng.sample(range(length), budget))
    lower, upper = (1, 1) if scheme == "whole_word" else (settings.span_lower, settings.span_upper)
    lengths = range(lower, upper + 1)
    weights = [settings.geometric_p * (1 - settings.geometric_p) ** (n - lower) for n in lengths]
    masked: set[int] = set()
    while len(masked) < budget:
        if scheme == "annotated" and rng.random() < settings.annotated_rate and not all(masked >= set(u)
                                                                                        for u in units):
            proposal = rng.choice(units)
        else:
            words_left, anchor = rng.choices(lengths, weights)[0], rng.randrange(length)
            if anchor in masked:
                continue
            start = anchor
            while start > 0 and not word_starts[start]:
                start -= 1
            proposal = []
            for i in range(start, length):
                words_left -= word_starts[i] or i == start
                if words_left < 0:
                    break
                proposal.append(i)
        for i in proposal:
            if len(masked) < budget:
                masked.add(i)
    return masked
