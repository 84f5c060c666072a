"""Classes of English words for the categories of pairs of mentions, see `model.coreference_categories`."""
import zlib

from spanbert_jax.model.coreference_categories import FIRST_CONTENT_CLASS, FUNCTION_WORD

_PRONOUNS = (
    "i me my mine myself", "we us our ours ourselves", "you your yours yourself yourselves thou thee thy thine thyself",
    "he him his himself", "she her hers herself", "it its itself", "they them their theirs themselves",
    "this", "that", "these", "those", "who whom whose", "which", "one oneself")
_FUNCTION_WORDS = frozenset("""
a an the all any both each every no some such other another same own 's ' ’s ’
and or but nor as at by for from in into of off on out over to under up upon with without about
after before between during through not very more most also only just so too then there here
""".split())
_CLASS_OF = {word: number for number, words in enumerate(_PRONOUNS, FUNCTION_WORD + 1) for word in words.split()}


def word_class(word: str) -> int:
    """The class of a word, regardless of case: equal for pronouns that agree and for equal content words."""
    lower = word.lower()
    if lower in _CLASS_OF:
        return _CLASS_OF[lower]
    if lower in _FUNCTION_WORDS or not any(map(str.isalnum, lower)):
        return FUNCTION_WORD
    return FIRST_CONTENT_CLASS + zlib.crc32(lower.encode("utf-8", "surrogatepass")) % 2 ** 30
