"""Extractive question answering on files of MRQA 2019, with the published hyperparameters.

  spanbert-jax train --config configs/mrqa.py --workdir runs/newsqa \\
      --config.task.train=train/NewsQA.jsonl.gz --config.task.dev=dev/NewsQA.jsonl.gz

Published (appendix B): learning rate 2e-5 (searched as for SQuAD), 32 questions, 4 epochs, windows of 512 tokens with a
stride of 128, five evaluations per epoch. The paper selects on one half of each official dev set and reports the other;
--config.task.dev_fraction holds out a part of the training contexts instead. The authors' F1 with SpanBERT-base: NewsQA
70.4, TriviaQA 79.2, SearchQA 82.9, HotpotQA 81.0, Natural Questions 80.6.
"""
import ml_collections

from spanbert_jax import default_task_config


def get_config() -> ml_collections.ConfigDict:
    """Question answering on MRQA."""
    config = default_task_config("question_answering", length=512, stride=128, max_answer_length=30)
    config.init_from = "spanbert-base-cased"
    config.train.duration = "4 epochs"
    config.evaluation.every = config.checkpoint.every = "0.2 epochs"
    return config
