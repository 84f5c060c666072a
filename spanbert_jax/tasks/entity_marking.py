"""Marks the two entities of a relation in a sentence, in four ways, and chooses the marker tokens."""
import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.tasks.files.relations import Relation
from spanbert_jax.text import SpecialIds, keeps_spaces, special_ids

MARKINGS = ("ner", "text", "text_ner", "ner_text")
MARKERS = ("unused", "words")
UNKNOWN = "UNKNOWN"
TRUNCATED = "sentences truncated to config.task.length, both entities kept"
LOST = "sentences whose entities do not fit in config.task.length, truncated at the end"
_EDGES = ("SUBJ_START", "SUBJ_END", "OBJ_START", "OBJ_END")
_SPELLED_EDGES = {"SUBJ_START": "( subject", "SUBJ_END": ")", "OBJ_START": "( object", "OBJ_END": ")"}
_SPELLED_ROLES = {"SUBJ": "subject", "OBJ": "object"}
_UNUSED = re.compile(r"\[unused([1-9][0-9]*)\]")  # the reference starts at 1, though some vocabularies have a 0


@dataclasses.dataclass(frozen=True)
class MarkedSentence:
    """Tokens of a marked sentence, without [CLS]."""
    body: list[int]  # tokens of the sentence and its markers
    entity: list[bool]  # whether each of them belongs to an entity or is a marker
    tail: list[int]  # [SEP], and the segments after the sentence, each with a [SEP]


def uses_types(marking: str) -> bool:
    """Whether a marking shows the types of entities."""
    return marking != "text"


def marker_names(examples: Iterable[Relation], marking: str) -> list[str]:
    """Names of the markers in order of first use, as in the reference, and last those for unknown types."""
    names = dict.fromkeys(_EDGES)
    if uses_types(marking):
        for example in examples:
            names |= {f"SUBJ={example.subject_type}": None, f"OBJ={example.object_type}": None}
        names |= {f"SUBJ={UNKNOWN}": None, f"OBJ={UNKNOWN}": None}
    return list(names)


def assign_markers(names: Iterable[str], tokenizer: Tokenizer, markers: str) -> dict[str, str]:
    """The text of each marker.

    Args:
      markers: "unused": the vocabulary entries [unused1], [unused2] and so on, as in the reference. "words": ordinary
        words, such as "( subject" and ")" around an entity and "( subject person )" for a type, for vocabularies
        without such entries.

    Raises:
      UserError: the vocabulary has too few unused entries, or cannot spell a marker.
    """
    names = list(names)
    if markers == "words":
        spelled = {name: _SPELLED_EDGES.get(name) or _spell(name) for name in names}
        unknown = special_ids(tokenizer).unk
        for name, ids in marker_ids(spelled, tokenizer).items():
            if unknown in ids:
                raise UserError(f"marker {name}: the vocabulary cannot spell {spelled[name]!r}; set "
                                "config.task.markers to 'unused', or rename the type")
        return spelled
    matches = map(_UNUSED.fullmatch, tokenizer.get_vocab(with_added_tokens=True))
    numbers = sorted(int(match[1]) for match in matches if match)
    if len(numbers) < len(names):
        raise UserError(f"{len(names)} entity markers are needed, but the vocabulary has {len(numbers)} entries "
                        "[unused1], [unused2] and so on; set config.task.markers to 'words'")
    return {name: f"[unused{number}]" for name, number in zip(names, numbers)}


def _spell(name: str) -> str:
    role, _, kind = name.partition("=")
    return f"( {_SPELLED_ROLES[role]} {kind.replace('_', ' ').lower()} )"


def marker_ids(markers: Mapping[str, str], tokenizer: Tokenizer) -> dict[str, list[int]]:
    """The token ids of each marker. Raises UserError if the vocabulary lacks an unused entry."""
    ids, space = {}, " " * keeps_spaces(tokenizer)  # as before the words, see `tokenize_words`
    for name, text in markers.items():
        unused = bool(_UNUSED.fullmatch(text))
        ids[name] = ([tokenizer.token_to_id(text)] if unused
                     else tokenizer.encode(space + text, add_special_tokens=False).ids)
        if None in ids[name]:
            raise UserError(f"the vocabulary has no entry {text}, the trained model's marker {name}; give the "
                            "vocabulary that the model was trained with")
    return ids


def mark(example: Relation, marking: str, words: Mapping[str, list[int]], markers: Mapping[str, list[int]],
         sep: int) -> MarkedSentence:
    """Marks the entities of a sentence, as the reference does under the same name.

    "ner" replaces the words of an entity by a marker of its type; "text" adds a marker before and one after them.
    "text_ner" is "text" followed by [SEP], the type of the subject, [SEP], the type of the object, [SEP]; "ner_text" is
    "ner" followed by the words of subject and object in the same way. Overlapping entities get their markers all the
    same, and "ner" replaces the words of both.

    Args:
      words: token ids by word.
      markers: token ids by marker name; includes the example's types if the marking uses types.
      sep: id of [SEP].
    """
    entities = {"SUBJ": (example.subject, example.subject_type), "OBJ": (example.object, example.object_type)}
    around = marking in ("text", "text_ner")
    before: dict[int, list[int]] = {}
    after: dict[int, list[int]] = {}
    inside: set[int] = set()
    for role, ((first, last), kind) in entities.items():
        before.setdefault(first, []).extend(markers[f"{role}_START" if around else f"{role}={kind}"])
        after.setdefault(last, []).extend(markers[f"{role}_END"] if around else [])
        inside.update(range(first, last + 1))

    body, entity = [], []
    for number, word in enumerate(example.tokens):
        tokens = [] if number in inside and not around else words[word]
        tokens = before.get(number, []) + tokens + after.get(number, [])
        body += tokens
        entity += [number in inside] * len(tokens)

    tail = [sep]
    for role, ((first, last), kind) in entities.items():
        if marking == "text_ner":
            tail += [*markers[f"{role}={kind}"], sep]
        elif marking == "ner_text":
            tail += [token for word in example.tokens[first:last + 1] for token in words[word]] + [sep]
    return MarkedSentence(body, entity, tail)


def shorten(marked: MarkedSentence, special: SpecialIds, length: int) -> tuple[list[int], str]:
    """[CLS] and a marked sentence in at most `length` tokens, and TRUNCATED or LOST if not all of it fits.

    Changed on purpose from the reference, which truncates at the end and may lose an entity. Entities, markers and the
    tail are kept first, then tokens between the entities, then tokens around them, the nearest to an entity first. If
    not even the entities fit, the end is truncated.
    """
    room = length - 1 - len(marked.tail)
    if len(marked.body) <= room:
        return [special.cls, *marked.body, *marked.tail], ""
    if sum(marked.entity) > room:
        return [special.cls, *marked.body, *marked.tail][:length - 1] + [special.sep], LOST
    positions, entity = np.arange(len(marked.body)), np.flatnonzero(marked.entity)
    distances = np.abs(positions[:, None] - entity).min(axis=1)
    around = (positions < entity[0]) | (positions > entity[-1])
    kept = np.sort(np.lexsort((distances, around))[:room])
    return [special.cls, *np.asarray(marked.body)[kept].tolist(), *marked.tail], TRUNCATED
