"""How a text is to be written."""
from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """How a text is to be written.

    Attributes:
      start, end, pad: ids of the piece that a text is begun with, of the one that ends it, and of what stands behind.
      max_length: pieces to write at most, the end among them.
      min_length: pieces to write before the end may come.
      beams: hypotheses that are followed at a time.
      length_penalty: a hypothesis is as good as its log-probability over its length to the power of this.
      early_stopping: whether the search ends as soon as `beams` hypotheses have ended; else it goes on until none of
        those that have not, as long as it is now, is better than the worst that has.
      no_repeat_ngram: so many pieces in a row do not come twice; 0 for no such rule.
      sample: whether to draw pieces, and not to take the likeliest; with one beam.
      temperature: what logits are divided by before a piece is drawn.
      top_k: likeliest pieces of which one is drawn; 0 for all.
      top_p: one is drawn of the fewest likeliest pieces that have this share of the probability together.
    """
    start: int
    end: int
    pad: int
    max_length: int
    min_length: int = 0
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    no_repeat_ngram: int = 0
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
