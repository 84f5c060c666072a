"""SpanBERT-JAX: span pretraining of BERT-like encoders, from one laptop to a pod.

`prepare`, `plan`, `train`, `sweep`, `evaluate`, `predict`, `verify`, `import_`, `export` and `fill` do what the
commands of these names do, and `list_checkpoints` what `checkpoints` does. `load_config` reads a config file;
`default_config` and `default_task_config` start one. `pipeline` gives a fine-tuned model as a function of texts.
`from_pretrained`, `load_tokenizer` and `save_pretrained` bring weights in and out. An argument of a wrong type raises
UserError.
"""
import importlib
import inspect
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The module that defines each public name. Imported on first use, so that `import spanbert_jax` and `--help` do not
# wait for JAX.
_PUBLIC = {
    "prepare": "spanbert_jax.corpus", "plan": "spanbert_jax.commands.plan", "train": "spanbert_jax.commands.train",
    "sweep": "spanbert_jax.commands.sweep", "evaluate": "spanbert_jax.commands.evaluate",
    "predict": "spanbert_jax.commands.predict", "import_": "spanbert_jax.commands.import_",
    "export": "spanbert_jax.commands.export", "fill": "spanbert_jax.tasks.filling",
    "list_checkpoints": "spanbert_jax.commands.checkpoints", "verify": "spanbert_jax.commands.verify",
    "default_config": "spanbert_jax.pretraining.config",
    "default_task_config": "spanbert_jax.finetuning.config", "small_start": "spanbert_jax.finetuning.config",
    "parse_argument": "spanbert_jax.training.config", "load_config": "spanbert_jax.commands.config_files",
    "UserError": "spanbert_jax.common.errors", "from_pretrained": "spanbert_jax.interop",
    "load_tokenizer": "spanbert_jax.interop", "save_pretrained": "spanbert_jax.interop",
    "finetune": "spanbert_jax.finetuning.run", "pipeline": "spanbert_jax.inference.pipeline"}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:  # the same names, for type checkers and completion
    from spanbert_jax.commands.checkpoints import list_checkpoints
    from spanbert_jax.commands.config_files import load_config
    from spanbert_jax.commands.evaluate import evaluate
    from spanbert_jax.commands.export import export
    from spanbert_jax.commands.import_ import import_
    from spanbert_jax.commands.plan import plan
    from spanbert_jax.commands.predict import predict
    from spanbert_jax.commands.sweep import sweep
    from spanbert_jax.commands.train import train
    from spanbert_jax.commands.verify import verify
    from spanbert_jax.common.errors import UserError
    from spanbert_jax.corpus import prepare
    from spanbert_jax.finetuning.config import default_task_config, small_start
    from spanbert_jax.finetuning.run import finetune
    from spanbert_jax.inference.pipeline import pipeline
    from spanbert_jax.interop import from_pretrained, load_tokenizer, save_pretrained
    from spanbert_jax.pretraining.config import default_config
    from spanbert_jax.tasks.filling import fill
    from spanbert_jax.training.config import parse_argument
else:
    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        if inspect.isfunction(value):
            from spanbert_jax.common.types import check_arguments
            value = check_arguments(value)
        return globals().setdefault(name, value)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_PUBLIC})
