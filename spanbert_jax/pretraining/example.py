"""What a pretraining run has learned, on one example: a held-out text that both heads fill, before and after it."""
import pathlib
from collections.abc import Sequence
from itertools import chain

import jax
import numpy as np
from flax import linen as nn

from spanbert_jax.corpus import Corpus, RowSource, open_corpus
from spanbert_jax.interop.pretrained import load_tokenizer
from spanbert_jax.model import SpanBert
from spanbert_jax.pretraining.config import PretrainingConfig, pretraining_heads
from spanbert_jax.tasks.filling import Filling, fill, load_filling_model
from spanbert_jax.text import Spelling, spelling
from spanbert_jax.training.state import init_params

_ROWS, _WORDS, _FILLINGS = 64, 20, 3


def fill_example(config: PretrainingConfig, workdir: pathlib.Path) -> list[str]:
    """Lines about one masked word of a held-out text: the best fillings of each head before and after training.

    Empty for a run that began from other weights, or whose corpus has no held-out rows. Raises UserError if the model
    cannot fill.
    """
    corpus = open_corpus(config.data.path or workdir / "data")
    if config.init_from or not corpus.num_rows.get("validation"):
        return []
    tokenizer = load_tokenizer(workdir)
    spelled = spelling(tokenizer)
    before, word, after = _held_out_words(corpus, spelled)
    masks = " [MASK]" * len(word)
    masked = f"{spelled.join(before)}{masks}{_after(after, spelled)}"
    encoder, params = load_filling_model(workdir)
    model = SpanBert(config.model.config(corpus.vocab_size), pretraining_heads(config),
                     config.compute.replace(attention="plain"))
    initial = jax.jit(lambda key: nn.unbox(init_params(model, key)))(jax.random.key(config.seed))
    lines = [f"For example: the word in brackets, of a text that it has not seen, and the {_FILLINGS} best fillings:",
             f"  {spelled.join(before)} [{spelled.join(word)}]{_after(after, spelled)}"]
    for name, weights in (("before training", initial), ("after training", params)):
        run = fill((encoder, weights), masked, _FILLINGS, tokenizer)[0]
        heads = {"masked-token head": run.masked_token, "boundary head": run.boundary, "both heads": run.both}
        lines += [f"  {name:15}  {head:17}  {_list(fillings)}" for head, fillings in heads.items() if fillings]
    return lines


def _held_out_words(corpus: Corpus, spelled: Spelling) -> tuple[list[int], list[int], list[int]]:
    """The beginning of a held-out row: the tokens before a word, its own, and those after it.

    It is the row with most words of letters among the first, and the word of letters, one token, next to the middle.
    """
    source = RowSource(corpus, "validation")
    rows = source.rows(np.arange(min(_ROWS, len(source))))
    starts = [_words(tokens, begins, corpus.special.sep)
              for tokens, begins in zip(rows["tokens"], rows["word_starts"].astype(bool))]
    words = max(starts, key=lambda words: sum(spelled.join(word).isalpha() for word in words))
    middle = len(words) // 2
    whole = [place for place, word in enumerate(words[1:-1], 1)
             if len(word) == 1 and spelled.begins[word[0]] and spelled.join(word).isalpha()]
    chosen = min(whole, key=lambda place: abs(place - middle), default=middle)
    before, after = (list(chain.from_iterable(part)) for part in (words[:chosen], words[chosen + 1:]))
    return before, words[chosen], after


def _words(tokens: np.ndarray, begins: np.ndarray, sep: int) -> list[list[int]]:
    """The tokens of each of the first words of a row, from arrays [S]."""
    end = int(np.flatnonzero(tokens == sep)[0])
    places = [place for place in range(1, end) if begins[place]]
    return [tokens[begin:stop].tolist() for begin, stop in zip(places, [*places[1:], end])][:_WORDS]


def _after(tokens: Sequence[int], spelled: Spelling) -> str:
    """The text of tokens that follow others."""
    return " " * bool(tokens and spelled.begins[tokens[0]]) + spelled.join(tokens)


def _list(fillings: Sequence[Filling]) -> str:
    return ", ".join(f"{filling.text} ({filling.probability:.1%})" for filling in fillings)
