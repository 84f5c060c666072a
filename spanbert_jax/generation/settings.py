"""Settings of generation."""
from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """How a text is generated; the fields are those of transformers' generation config.

    Attributes:
      start, end, pad: ids of the start token, the end token and padding after the end.
      max_length: maximum number of generated tokens, the end token included.
      min_length: minimum number of tokens before the end token.
      beams: number of beams.
      length_penalty: a hypothesis's score is its log-probability divided by its length to this power.
      early_stopping: stop as soon as `beams` hypotheses have ended; otherwise, when no running hypothesis has a better
        score at its current length than the worst ended one.
      no_repeat_ngram: n-grams of this size occur only once; 0 allows all.
      sample: sample tokens instead of taking the most likely ones; needs beams=1.
      temperature: divides the logits before sampling.
      top_k: sample from the k most likely tokens; 0 for all.
      top_p: sample from the fewest most likely tokens that have this total probability.
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
