"""GLUE with the published hyperparameters: learning rate 2e-5, 32 examples, 128 tokens, 10 epochs (CoLA: 4).

  spanbert-jax train --config configs/glue.py:task=rte,data=glue_data --workdir runs/rte

Tasks: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli. `data` is the folder with CoLA/, SST-2/, MRPC/ and so on,
which contain the official TSV files. Predictions for the test files, in the format of the leaderboard:

  spanbert-jax predict --model runs/rte --input glue_data/RTE/test.tsv --output rte.jsonl --official predictions/rte

The authors searched the learning rate in {5e-6, 1e-5, 2e-5, 3e-5, 5e-5} and the batch in {16, 32} (appendix B):

  spanbert-jax sweep --config configs/glue.py:task=rte,data=glue_data --workdir runs/rte-grid \\
      --grid optimizer.learning_rate=5e-6,1e-5,2e-5,3e-5,5e-5 --grid train.batch_size=16,32
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument

# The folder of a task's files.
_FOLDERS = {"rte": "RTE", "cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B", "qqp": "QQP",
            "mnli": "MNLI", "qnli": "QNLI", "wnli": "WNLI"}


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """A task of GLUE."""
    variant = parse_argument(argument, task=tuple(_FOLDERS), data="glue_data")
    config = default_task_config("text_classification", length=128, glue=variant.task)
    config.init_from = "spanbert-base-cased"
    folder = f"{variant.data}/{_FOLDERS[variant.task]}"
    config.task.train = f"{folder}/train.tsv"
    config.task.dev = f"{folder}/{'dev_matched' if variant.task == 'mnli' else 'dev'}.tsv"
    config.train.duration = "4 epochs" if variant.task == "cola" else "10 epochs"
    return config
