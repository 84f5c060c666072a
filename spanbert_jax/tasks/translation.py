"""Texts in another language."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.translations import Translation, read_translations, translation_of
from spanbert_jax.tasks.metrics.translation import TOKENIZERS, translation_figures
from spanbert_jax.tasks.protocol import Prediction
from spanbert_jax.tasks.seq2seq import Seq2SeqTask


class Translate(Seq2SeqTask):
    """Writes a text in another language."""
    field = "translation"
    metric = "bleu"
    free = (*Seq2SeqTask.free, "source", "target", "columns", "id")

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Fields of `config.task`, besides those of `Seq2SeqTask`.

        source, target: names of the columns, or endings of the names of plain files, such as "en" and "de".
        columns: their names, for a table whose first line does not give them.
        id: name of the column with the id of a pair; "" for line numbers.
        bleu_tokenizer: as `metrics.translation` has it.
        """
        return {**super().defaults(), "source": "source", "target": "target", "columns": (), "id": "",
                "bleu_tokenizer": "auto"}

    def check_settings(self) -> None:
        super().check_settings()
        if self.settings["bleu_tokenizer"] not in TOKENIZERS:
            raise UserError(f"config.task.bleu_tokenizer is {self.settings['bleu_tokenizer']!r}: allowed are "
                            f"{', '.join(TOKENIZERS)}")
        source, target = self.settings["source"], self.settings["target"]
        if not source or not target or source == target:
            raise UserError(f"config.task.source and target are {source!r} and {target!r}: give each its own name")
        columns = tuple(self.settings["columns"])
        if len(set(columns)) < len(columns) or any("," in name for name in columns):
            raise UserError(f"config.task.columns is {columns!r}: give each column a name of its own, as in "
                            f"\"({source!r},{target!r})\"")

    def read(self, path: str, faults: DataIssues, labelled: bool = True) -> Iterator[Translation]:
        """Yields the pairs of a file, as `files.translations.read_translations` has it."""
        names = (self.settings[name] for name in ("source", "target", "columns", "id"))
        return read_translations(path, *names, faults, labelled)

    def example(self, inputs: str | Mapping[str, Any], where: str, faults: DataIssues) -> Translation:
        """Of a text, or of a text by the name of its column."""
        return translation_of(inputs, self.settings["source"], where, faults)

    def score(self, examples: Sequence[Translation], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """BLEU and chrF; and what copying the source would have, "copy/bleu" and "copy/chrf"."""
        references, tokenizer = [example.targets for example in examples], self.settings["bleu_tokenizer"]
        figures = translation_figures([prediction[self.field] for prediction in predictions], references, tokenizer)
        copied = translation_figures([example.source for example in examples], references, tokenizer)
        return figures | {f"copy/{name}": copied[name] for name in ("bleu", "chrf")}
