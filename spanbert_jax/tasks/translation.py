"""Translation into another language."""
import dataclasses
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import require, setting
from spanbert_jax.tasks.files.translations import Translation, parse_translation, read_translations
from spanbert_jax.tasks.protocol import Prediction
from spanbert_jax.tasks.seq2seq import Seq2SeqSettings, Seq2SeqTask

# Scripts by the first word of their letters' Unicode names.
_KANA = ("HIRAGANA", "KATAKANA")
_UNSPACED = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@dataclasses.dataclass(frozen=True)
class TranslationSettings(Seq2SeqSettings):
    """Settings of translation."""
    source: str = setting("source", "Column of the source, or ending of its plain file, such as 'en'.",
                          overridable=True)
    target: str = setting("target", "Column of the translation, or ending of its plain file.", overridable=True)
    columns: tuple[str, ...] = setting((), "Column names of a table whose first line is an example.", overridable=True)
    id: str = setting("", "Column of the pairs' ids; '' for 'id', or line numbers without one.", overridable=True)
    bleu_tokenizer: str = setting("auto", "Tokenizer of BLEU; 'auto' follows the script of the references: zh for "
                                  "Chinese, char for Japanese, Thai, Lao, Khmer, Burmese and Tibetan, which have no "
                                  "spaces between words either, else 13a. The signature of a score names it.",
                                  choices=("auto", "13a", "zh", "char", "intl"))

    def validate(self, path: str) -> None:
        super().validate(path)
        require(bool(self.source and self.target) and self.source != self.target, f"{path}.target", self.target,
                f"{path}.source={self.source!r} and {path}.target must be two different names")
        require(len(set(self.columns)) == len(self.columns) and not any("," in name for name in self.columns),
                f"{path}.columns", self.columns,
                f"give each column a name of its own, as in \"({self.source!r},{self.target!r})\"")


class TranslationTask(Seq2SeqTask):
    """Translates texts into another language."""
    Settings = TranslationSettings
    field = "translation"
    metric = "bleu"

    def read(self, path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[Translation]:
        settings = self.settings
        return read_translations(path, settings.source, settings.target, settings.columns, settings.id, issues,
                                 with_labels)

    def example(self, inputs: str | Mapping[str, Any], location: str, issues: DataIssues) -> Translation:
        """From a text, or from a text by the name of its column."""
        return parse_translation(inputs, self.settings.source, location, issues)

    def score(self, examples: Sequence[Translation], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """BLEU and chrF, and as "copy/bleu" and "copy/chrf" those of the copied sources."""
        references, tokenizer = [example.targets for example in examples], self.settings.bleu_tokenizer
        scores = translation_metrics([prediction[self.field] for prediction in predictions], references, tokenizer)
        copied = translation_metrics([example.source for example in examples], references, tokenizer)
        return scores | {f"copy/{name}": copied[name] for name in ("bleu", "chrf")}


def translation_metrics(texts: Sequence[str], references: Sequence[Sequence[str]],
                        tokenizer: str = "auto") -> dict[str, float | str]:
    """Corpus BLEU and chrF, and their signatures.

    Args:
      references: one or more per text; the minimum number over all texts is used.
      tokenizer: of BLEU; "auto" is "zh" for Chinese references, "char" for other scripts without spaces, else "13a".

    Returns:
      "bleu" and "chrf" in percent, and sacrebleu's "bleu_signature", which names the tokenizer, and "chrf_signature"
      for reports.
    """
    from sacrebleu.metrics import BLEU, CHRF

    count = min(map(len, references))
    columns = [[of_text[number] for of_text in references] for number in range(count)]
    bleu, chrf = BLEU(tokenize=_choose(columns[0]) if tokenizer == "auto" else tokenizer), CHRF()
    metrics = {"bleu": bleu.corpus_score(list(texts), columns).score,
               "chrf": chrf.corpus_score(list(texts), columns).score}
    return metrics | {"bleu_signature": str(bleu.get_signature()), "chrf_signature": str(chrf.get_signature())}


def _choose(references: Sequence[str]) -> str:
    letters = [unicodedata.name(letter, "") for text in references[:1000] for letter in text if letter.isalpha()]
    if _share(letters, _KANA) > 0.05 or _share(letters, _UNSPACED) > 0.3:
        return "char"
    return "zh" if _share(letters, ("CJK",)) > 0.3 else "13a"


def _share(letters: Sequence[str], scripts: tuple[str, ...]) -> float:
    """The share of letters, given by their Unicode names, that are of one of several scripts."""
    return sum(name.startswith(scripts) for name in letters) / max(len(letters), 1)
