"""Documents to rows: corpus formats, blocks and packing, writing rows, and the loader that feeds training."""
from spanbert_jax.corpus.corpus import Corpus, open_corpus
from spanbert_jax.corpus.loader import RowOrder, Rows, RowSource, batches
from spanbert_jax.corpus.preparation import prepare, prepare_corpus, wait_for_corpus

__all__ = ["Corpus", "RowOrder", "RowSource", "Rows", "batches", "open_corpus", "prepare", "prepare_corpus",
           "wait_for_corpus"]
