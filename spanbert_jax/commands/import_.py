"""Import a model, as a directory for transformers that `export`, `fill` and config.init_from accept too.

  spanbert-jax import --from SpanBERT/spanbert-base-cased --out models/spanbert
  spanbert-jax import --from spanbert_hf_base.tar.gz --tokenizer bert-base-cased-vocab.txt --out models/spanbert
  spanbert-jax import --from uncased_L-12_H-768_A-12/bert_model.ckpt --out models/bert
  spanbert-jax import --from bert2bert-news --task summarization --out models/news

Sources: directories for transformers (safetensors or pytorch_model.bin, sharded or not), the released SpanBERT
archives, fairseq checkpoints of BERT models, Google's TensorFlow checkpoints, single files, workdirs, directories of an
EncoderDecoderModel (BERT with BERT or with GPT-2), and names on the Hugging Face hub. If transformers is installed, the
imported model and that of transformers are compared on the same inputs; if their outputs differ, the import is deleted.
"""
import argparse

from spanbert_jax.commands.arguments import add_tokenizer
from spanbert_jax.common.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("--from", dest="source", required=True, metavar="NAME_OR_PATH",
                        help="directory, file, archive, TensorFlow checkpoint, or name on the Hugging Face hub")
    parser.add_argument("--out", required=True, metavar="DIR", help="directory to create")
    add_tokenizer(parser)
    parser.add_argument("--task", metavar="TASK", help="the task of an EncoderDecoderModel, such as summarization or "
                        "translation, for predict, evaluate and pipeline")


def run(args: argparse.Namespace) -> int:
    """Imports, and prints what was imported."""
    from spanbert_jax.commands.conversion import convert_encoder, convert_encoder_decoder
    from spanbert_jax.common.directories import require_absent_or_empty
    from spanbert_jax.interop.pretrained import open_pretrained
    from spanbert_jax.interop.sources.location import encoder_decoder_at, is_transformers
    require_absent_or_empty(args.out)
    if path := encoder_decoder_at(args.source):
        return convert_encoder_decoder(path, args.out, args.task, args.tokenizer)
    if args.task:
        raise UserError(f"--task {args.task}: {args.source} is not an EncoderDecoderModel; omit --task, and "
                        "fine-tune the model")
    pretrained = open_pretrained(args.source)
    original = pretrained.path if is_transformers(pretrained.path) else None
    return convert_encoder(pretrained, args.out, "huggingface", args.tokenizer, pretrained.facts, original)
