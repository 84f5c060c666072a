"""A ModernBERT that learns spans, by ModernBERT's published recipe in two phases: 1,024 tokens, then 8,192.

  spanbert-jax prepare --source 'texts/*.txt' --tokenizer vocab.txt --blocks contiguous --pack --length 1024 \\
      --out corpora/short
  spanbert-jax train --config configs/modern.py --config.data.path=corpora/short --workdir runs/short
  spanbert-jax prepare --source 'texts/*.txt' --tokenizer vocab.txt --blocks contiguous --pack --length 8192 \\
      --out corpora/long
  spanbert-jax train --config configs/modern.py:phase=long --config.init_from=runs/short \\
      --config.data.path=corpora/long --workdir runs/long

Variants: size=base or large; optimizer=stable_adamw or muon; phase=short or long; small=true.

Published for base (Warner et al., 2024, and the settings in the authors' repository): StableAdamW with betas 0.9 and
0.98 and epsilon 1e-6; 30% of the tokens masked, 15% in evaluations (evaluate --set masking.rate=0.15); 1.719T tokens
in rows of 1,024 at a constant rate of 8e-4 after a warmup of 3B tokens, with a batch that grows from 768 to 4,608 rows
over 50B tokens and rotary positions of base 10,000; then 250B tokens in 72 rows of 8,192 at 3e-4, global layers with
base 160,000, and 50B more in which the rate falls as 1 - sqrt. The published decay of 1e-5 a step at the peak rate is
0.0125 times the rate; biases and norms do not decay. Large has its own rates, batches and warmups. Its authors lowered
the rate of its first phase from 5e-4 to 5e-5 after 900B tokens, and the decay with it; here it stays.

Ours: span masking and the boundary objective; no dropout of the output of attention, which was 0.1; the last two parts
are one run of 300B tokens; train.accumulation is that of 8 devices. A first phase that is not continued should end with
a decay: --config.schedule.decay='5 percent'. Muon is untested for encoders of this size; it takes the same rates.

small=true trains on two CPU cores on novels: 512 tokens, then 4,096 with the same vocabulary. It reads
$SPANBERT_DATA/litbank/original; give other text with --config.data.sources.

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/modern.py:small=true --workdir runs/novels
  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/modern.py:small=true,phase=long \\
      --config.init_from=runs/novels --config.data.tokenizer=runs/novels --workdir runs/novels4096

To see what the longer rows bring, let the network see as many more tokens in rows of 512, and compare the held-out
losses that `evaluate --set evaluation.masks=4` shows:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/modern.py:small=true,phase=long \\
      --config.init_from=runs/novels --config.data.tokenizer=runs/novels --config.data.length=512 \\
      --config.model.max_positions=512 --config.train.batch_size=16 --workdir runs/novels512
"""
import os
import pathlib

import ml_collections

from spanbert_jax import default_config, parse_argument

# Rate, rows and parts of a batch, warmups of rate and batch, of the first phase; rate and rows of the second.
_PUBLISHED = {"base": ((8e-4, 4608, 6, "3B tokens", "50B tokens"), (3e-4, 72)),
              "large": ((5e-4, 4928, 11, "2B tokens", "10B tokens"), (5e-5, 77))}


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """ModernBERT pretraining; `argument` selects size, phase and optimizer."""
    variant = parse_argument(argument, size=("base", "large"), phase=("short", "long"),
                             optimizer=("stable_adamw", "muon"), small=False)
    long = variant.phase == "long"
    config = default_config("modernbert")
    config.model.size = variant.size
    config.model.global_rotary_base = 160_000.0 if long else 10_000.0
    config.model.max_positions = config.data.length = 8192 if long else 1024
    config.data.blocks, config.data.pack = "contiguous", True
    config.masking.rate = 0.3

    config.optimizer.update(name=variant.optimizer, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.0125, clip_norm=0.0,
                            decay_mask="kernels")
    config.schedule.name = "wsd"
    first, second = _PUBLISHED[variant.size]
    if long:
        config.optimizer.learning_rate, config.train.batch_size = second
        config.schedule.warmup, config.schedule.decay = "0 steps", "50B tokens"
        config.train.duration = "300B tokens"
    else:
        (config.optimizer.learning_rate, config.train.batch_size, config.train.accumulation, config.schedule.warmup,
         config.train.batch_warmup) = first
        config.schedule.decay, config.train.duration = "0 steps", "1.719T tokens"
    return _small(config, long) if variant.small else config


def _small(config: ml_collections.ConfigDict, long: bool) -> ml_collections.ConfigDict:
    """The same recipe for minutes on two cores."""
    data = pathlib.Path(os.environ.get("SPANBERT_DATA", "../shared/data"))
    config.data.sources = (str(data / "litbank" / "original" / "*.txt"),)
    config.data.vocab_size = 0 if long else 4000
    config.data.pack = False
    config.data.validation_fraction = 0.02
    config.model.size = "tiny"
    config.model.max_positions = config.data.length = 4096 if long else 512
    config.compute.dtype = "float32"  # faster than bfloat16 on CPUs

    config.optimizer.learning_rate = 1e-3 if long else 2e-3
    config.schedule.warmup, config.schedule.decay = "5 percent", "50 percent" if long else "0 steps"
    config.train.duration = "400 steps" if long else "1600 steps"
    config.train.batch_size, config.train.accumulation = (2, 1) if long else (8, 2)
    config.train.batch_warmup = "0 steps" if long else "80 steps"
    config.train.log_every = 20
    config.evaluation.every = config.checkpoint.every = "100 steps"
    config.evaluation.batch_size = 2 if long else 16
    config.evaluation.max_rows = 64_000 // config.data.length
    config.checkpoint.keep_every = "0"
    return config
