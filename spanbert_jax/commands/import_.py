"""Import a model, as a directory for transformers that `export`, `fill` and config.init_from accept too.

  spanbert-jax import --from SpanBERT/spanbert-base-cased --out models/spanbert
  spanbert-jax import --from spanbert_hf_base.tar.gz --tokenizer bert-base-cased-vocab.txt --out models/spanbert
  spanbert-jax import --from uncased_L-12_H-768_A-12/bert_model.ckpt --out models/bert
  spanbert-jax import --from bert2bert-news --task summarization --out models/news
  spanbert-jax import --from bert-squad --task question_answering --out models/squad
  spanbert-jax import --from bert-nli --task text_classification --set second=hypothesis --out models/nli

Sources: directories for transformers (safetensors or pytorch_model.bin, sharded or not), the released SpanBERT
archives, fairseq checkpoints of BERT models, Google's TensorFlow checkpoints, single files, workdirs, directories of an
EncoderDecoderModel (BERT with BERT or with GPT-2), and names on the Hugging Face hub. If transformers is installed, the
imported model and that of transformers are compared on the same inputs; if their outputs differ, the import is deleted.
"""
import argparse
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spanbert_jax.cluster.exit_codes import DONE
from spanbert_jax.commands.arguments import add_task_settings, add_tokenizer
from spanbert_jax.common.errors import UserError

if TYPE_CHECKING:
    from spanbert_jax.commands.conversion import Converted


def import_(source: str | pathlib.Path, out: str | pathlib.Path, *, tokenizer: str | pathlib.Path | None = None,
            task: str | None = None, settings: Mapping[str, Any] | None = None) -> "Converted":
    """Writes a model of any kind as a directory for transformers, and compares both.

    Args:
      source: a directory, file, archive, TensorFlow checkpoint, or name on the Hugging Face hub.
      out: directory to create.
      tokenizer: file of the tokenizer, if the model comes without one.
      task: the task of a model that was fine-tuned elsewhere, such as "question_answering" or "summarization".
      settings: new values of overridable settings of the task.

    Raises:
      UserError: a file or an argument is wrong.
      RunFailed: the outputs differ; nothing is left of the import then.
    """
    from spanbert_jax.commands.conversion import convert_encoder, convert_encoder_decoder
    from spanbert_jax.common.directories import require_absent_or_empty
    from spanbert_jax.inference.model_folder import find_task, import_task
    from spanbert_jax.interop.pretrained import open_pretrained
    from spanbert_jax.interop.sources.location import encoder_decoder_at, is_transformers
    require_absent_or_empty(out)
    settings = dict(settings or {})
    if path := encoder_decoder_at(source):
        return convert_encoder_decoder(path, out, task, tokenizer, settings)
    pretrained = open_pretrained(source)
    stored = find_task(pretrained.path, settings)
    if task and stored and stored.name != task:
        raise UserError(f"--task {task}: the model in {pretrained.path} was trained for {stored.name}; leave it "
                        "out")
    if task and not stored:
        stored = import_task(task, pretrained, settings)
    if settings and not stored:
        raise UserError("--set: applies to the model's task; give --task too")
    original = pretrained.path if is_transformers(pretrained.path) else None
    return convert_encoder(pretrained, out, "huggingface", tokenizer, pretrained.facts, original, stored)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("--from", dest="source", required=True, metavar="NAME_OR_PATH",
                        help="directory, file, archive, TensorFlow checkpoint, or name on the Hugging Face hub")
    parser.add_argument("--out", required=True, metavar="DIR", help="directory to create")
    add_tokenizer(parser)
    parser.add_argument("--task", metavar="TASK", help="the task of a model that was fine-tuned elsewhere, such as "
                        "question_answering or summarization, for predict, evaluate and pipeline")
    add_task_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Imports, and prints what was imported."""
    import_(args.source, args.out, tokenizer=args.tokenizer, task=args.task, settings=dict(args.set)).print()
    return DONE
