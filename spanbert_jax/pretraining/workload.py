"""The workload of pretraining: a corpus, masking, and the objectives over masked tokens."""
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from spanbert_jax.cluster.agreement import is_process_zero
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.corpus import Corpus, RowSource, open_corpus, prepare_corpus, wait_for_corpus
from spanbert_jax.masking import Masker, make_masker
from spanbert_jax.masking.settings import scheme_shares
from spanbert_jax.model import EncoderModel, SpanBert, train_step_flops
from spanbert_jax.pretraining.config import PretrainingConfig, pretraining_heads, run_size
from spanbert_jax.pretraining.evaluation import evaluate_params, format_metrics, log_unigram, make_evaluate_batch
from spanbert_jax.pretraining.objective import pretraining_objective
from spanbert_jax.text import load_tokenizer
from spanbert_jax.training.experiment import Experiment, build_experiment, with_attention
from spanbert_jax.training.init_from import initial_params
from spanbert_jax.training.mesh import make_mesh
from spanbert_jax.training.workload import Call, ShouldStop

TOKENIZER_FILE = "tokenizer.json"


class PretrainingWorkload:
    """Implements `training.workload.Workload`. Its `corpus` is prepared; `masker` masks the rows."""
    metric, padding_rows = "", 0
    format_metrics = staticmethod(format_metrics)

    def __init__(self, config: PretrainingConfig, corpus: Corpus, model: SpanBert, mesh: Mesh):
        self.corpus, self.length = corpus, corpus.length
        self.can_evaluate = bool(corpus.num_rows.get("validation"))  # a corpus for planning has no such number
        self.rows_per_step = config.train.batch_size
        self.masker = corpus_masker(config, corpus)
        self.objective = pretraining_objective(model, self.masker, config.objectives, mesh, config.mesh.rules)
        self.flops = train_step_flops(model.config, self.rows_per_step, corpus.length, self.masker.max_masked,
                                      model.head)
        self._config, self._model, self._mesh = config, model, mesh

    @property
    def identity(self) -> dict[str, Any]:
        """Fingerprint of the corpus, stored in checkpoints."""
        return self.corpus.identity

    def open_rows(self) -> RowSource:
        """The training rows."""
        return RowSource(self.corpus, "train")

    def describe_row(self, number: int) -> str:
        """Nothing: it is the row of this number in the corpus."""
        return ""

    def initial_params(self) -> Any | None:
        """The parameters of `config.init_from`; None without it."""
        if not self._config.init_from:
            return None
        model = EncoderModel(self._model.config, self._model.head)
        return initial_params(self._config, model, load_tokenizer(self.corpus.tokenizer_path))

    def evaluate(self, params: Any, call: Call, should_stop: ShouldStop) -> dict[str, Any] | None:
        """Metrics of `evaluation.summarize`."""
        return evaluate_params(functools.partial(call, self._evaluate_batch), params, self.held_out,
                               self._config.evaluation, self._mesh, self._config.mesh.rules, should_stop)

    @functools.cached_property
    def _evaluate_batch(self) -> Callable:
        return make_evaluate_batch(self._model, self.masker, log_unigram(self.corpus), self._mesh,
                                   self._config.mesh.rules)

    @functools.cached_property
    def held_out(self) -> RowSource:
        """The validation rows."""
        return RowSource(self.corpus, "validation")

    def summary(self) -> list[str]:
        """Lines about rows and corpus."""
        corpus = self.corpus
        lines = [f"{format_plural(corpus.num_rows['train'], 'training row')} of {corpus.length} tokens from "
                 f"{corpus.path}; {format_plural(self.rows_per_step, 'row')} a step"]
        if not self.can_evaluate:
            lines.append("The corpus has no validation rows, so nothing is evaluated; prepare it from more than one "
                         "document to have some.")
        return lines

    def write_artifacts(self, workdir: pathlib.Path) -> None:
        """Copies the tokenizer."""
        write_text(workdir / TOKENIZER_FILE, self.corpus.tokenizer_path.read_text(encoding="utf-8"))


def find_corpus(config: PretrainingConfig, workdir: pathlib.Path) -> Corpus:
    """The prepared corpus of a config, or its sources, prepared once into WORKDIR/data by process zero."""
    data = config.data
    if data.path:
        return open_corpus(data.path)
    if not is_process_zero():
        return wait_for_corpus(workdir / "data")
    return prepare_corpus(data, workdir / "data", seed=config.seed)


def corpus_masker(config: PretrainingConfig, corpus: Corpus) -> Masker:
    """The masker of a config for the rows of a corpus."""
    return make_masker(config.masking, length=corpus.length, max_blocks=corpus.max_blocks,
                       special=corpus.special, unigram=corpus.unigram)


def build(config: PretrainingConfig, corpus: Corpus,
          devices: Sequence[jax.Device] | None = None) -> Experiment[PretrainingWorkload]:
    """Builds a pretraining experiment on all devices or on those given.

    Raises:
      UserError: the corpus does not fit the config, or the config does not fit the devices.
    """
    architecture = config.model.config(corpus.vocab_size)
    _check_corpus(config, corpus, architecture.max_positions)
    mesh = make_mesh(config.mesh, devices)
    compute = with_attention(config.compute, architecture, mesh, config.mesh.rules, corpus.length)
    model = SpanBert(architecture, pretraining_heads(config), compute)
    size, batch_warmup = run_size(config, corpus.length, corpus.num_rows["train"])
    workload = PretrainingWorkload(config, corpus, model, mesh)
    return build_experiment(config, workload, model, mesh, size, batch_warmup)


def _check_corpus(config: PretrainingConfig, corpus: Corpus, positions: int) -> None:
    if corpus.length > positions:
        raise UserError(f"config.model.max_positions={positions}: rows of {corpus.path} are {corpus.length} long; "
                        "raise it or prepare shorter rows")
    if config.objectives.next_sentence and corpus.blocks != "pairs":
        raise UserError(f"config.objectives.next_sentence=True: {corpus.path} holds blocks of the kind "
                        f"{corpus.blocks!r}; prepare it with --blocks pairs")
    annotated = any(name == "annotated" for name, _ in scheme_shares(config.masking.scheme))
    if annotated and not corpus.report["settings"]["annotation_field"]:
        raise UserError(f"config.masking.scheme={config.masking.scheme!r}: {corpus.path} was prepared without "
                        "annotations; prepare it with --annotation-field")
    if not corpus.num_rows["train"]:
        raise UserError(f"{corpus.path} has no training rows; prepare more text")
