"""A rule baseline of coreference, which a trained model must beat: equal strings, pronouns to the nearest name."""
import pathlib
from collections.abc import Iterator, Sequence

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.coreference import Chains, Span, read_coreference

PRONOUNS = frozenset("""
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
it its itself they them their theirs themselves
""".split())
DETERMINERS = frozenset("the a an this that these those".split())


def rule_chains(words: Sequence[str]) -> list[list[Span]]:
    """Chains of a document by two rules.

    A name is a run of capitalized words, with a determiner before it if there is one. A capitalized word after the end
    of a sentence counts unless the document has it in lower case. Equal names, regardless of case, are one chain.
    Pronouns join the chain of the nearest name before them; those before the first name are a chain of equal strings.
    """
    lower = [word.lower() for word in words]
    in_lower_case = {word for word in words if word == word.lower()}
    chains: dict[tuple[str, ...], list[Span]] = {}
    nearest: tuple[str, ...] = ()
    first = 0
    while first < len(words):
        end = first + (lower[first] in DETERMINERS)
        start = end
        while end < len(words) and _is_name(words, end, in_lower_case):
            end += 1
        if end > start:
            nearest = tuple(lower[first:end])
            chains.setdefault(nearest, []).append((first, end))
        elif lower[first] in PRONOUNS:
            end = first + 1
            chains.setdefault(nearest or (lower[first],), []).append((first, end))
        first = max(end, first + 1)
    return list(chains.values())


def read_with_rule_chains(folder: pathlib.Path) -> Iterator[tuple[Chains, list[list[Span]]]]:
    """Yields the correct chains of each document of a folder's files, and those of the rules."""
    for path in sorted(folder.rglob("*.conll")):
        for document in read_coreference(str(path), DataIssues()):
            yield document.chains, rule_chains([document.word(number) for number in range(len(document.words))])


def _is_name(words: Sequence[str], place: int, in_lower_case: set[str]) -> bool:
    word = words[place].lower()
    starts_sentence = not place or not any(letter.isalnum() or letter == "," for letter in words[place - 1])
    return words[place][:1].isupper() and word not in PRONOUNS | DETERMINERS and not (
        starts_sentence and word in in_lower_case)
