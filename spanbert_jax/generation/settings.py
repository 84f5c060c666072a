"""Settings of generation."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """How a text is generated; the fields are those of transformers' generation config."""
    start: int  # id of the start token
    end: int  # id of the end token
    pad: int  # id of padding after the end
    max_length: int  # maximum number of generated tokens, the end token included
    min_length: int = 0  # minimum number of tokens before the end token
    beams: int = 1  # number of beams
    length_penalty: float = 1.0  # a hypothesis's score is its log-probability divided by its length to this power
    # Stop as soon as `beams` hypotheses have ended; otherwise, when no running hypothesis has a better score at its
    # current length than the worst ended one.
    early_stopping: bool = False
    no_repeat_ngram: int = 0  # n-grams of this size occur only once; 0 allows all
    sample: bool = False  # sample tokens instead of taking the most likely ones; needs beams=1
    temperature: float = 1.0  # divides the logits before sampling
    top_k: int = 0  # sample from the k most likely tokens; 0 for all
    top_p: float = 1.0  # sample from the fewest most likely tokens that have this total probability
