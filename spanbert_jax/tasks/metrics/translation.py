"""BLEU and chrF by sacrebleu."""
from __future__ import annotations

import unicodedata
from collections.abc import Sequence

TOKENIZERS = ("auto", "13a", "zh", "char", "intl")


def translation_metrics(texts: Sequence[str], references: Sequence[Sequence[str]],
                        tokenizer: str = "auto") -> dict[str, float | str]:
    """Corpus BLEU and chrF, and their signatures.

    Args:
      references: one or more per text; the minimum number over all texts is used.
      tokenizer: of BLEU, one of `TOKENIZERS`; "auto" is "zh" for Chinese references, "char" for Japanese, else "13a".

    Returns:
      "bleu" and "chrf" in percent, and sacrebleu's "bleu_signature" and "chrf_signature" for reports.
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
    kana = sum(name.startswith(("HIRAGANA", "KATAKANA")) for name in letters)
    if kana > 0.05 * len(letters):
        return "char"
    return "zh" if sum(name.startswith("CJK") for name in letters) > 0.3 * len(letters) else "13a"
