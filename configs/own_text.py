"""A SpanBERT of your own text, whose size, batch and length follow from the corpus, this machine and the time.

  spanbert-jax prepare --source 'texts/*.txt' --out corpora/mine --vocab-size 30000
  spanbert-jax train --config configs/own_text.py:corpus=corpora/mine,hours=1 --workdir runs/mine

hours is roughly how long training may take on this machine; it ends sooner if the corpus has been seen 40 times. The
model is the largest named size that sees 20 tokens for each parameter of its layers in that time, or the smallest size.
`spanbert-jax config configs/own_text.py:corpus=corpora/mine,hours=1` shows what is chosen, and every field but
data.path can be overridden. To continue a run on another machine, give its workdir alone:
spanbert-jax train --workdir runs/mine
"""
import ml_collections

from spanbert_jax import default_config, parse_argument
from spanbert_jax.corpus import open_corpus
from spanbert_jax.planning.sizing import fit_to_corpus, this_machine

# The field from which all others follow, and the name of the argument that sets it.
FROM_ARGUMENT = {"data.path": "corpus"}
# Larger models need lower learning rates.
_LEARNING_RATES = {"tiny": 2e-3, "mini": 1e-3, "small": 7e-4, "medium": 5e-4, "base": 3e-4, "large": 1e-4}


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Pretraining on a prepared corpus; `argument` names it, and the hours that training may take."""
    variant = parse_argument(argument, corpus="corpora/mine", hours=1.0)
    corpus, machine = open_corpus(variant.corpus), this_machine()
    fit = fit_to_corpus(corpus, machine, variant.hours)
    config = default_config()
    config.data.path = variant.corpus

    config.model.size = fit.size
    config.model.max_positions = corpus.length
    if fit.epochs < 5:  # too short to overfit
        config.model.dropout = config.model.attention_dropout = 0.0
    if not machine.accelerators:
        config.compute.dtype = "float32"  # faster than bfloat16 on CPUs

    config.optimizer.learning_rate = _LEARNING_RATES[fit.size]
    config.schedule.warmup = "10 percent"

    config.train.duration = f"{fit.steps} steps"
    config.train.batch_size, config.train.accumulation = fit.batch_size, fit.accumulation
    config.train.log_every = max(1, fit.steps // 40)
    config.evaluation.every = config.checkpoint.every = "10 percent"
    config.evaluation.batch_size = fit.batch_size // fit.accumulation
    config.evaluation.max_rows = 512
    config.evaluation.example = True
    config.checkpoint.keep_every = "0"
    return config
