"""How a sentence shows the network which two entities are meant: four ways, and the pieces that mark them."""
from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.tasks.files.relations import Relation
from spanbert_jax.text import SpecialIds, special_ids

MARKINGS = ("ner", "text", "text_ner", "ner_text")
MARKERS = ("unused", "words")
UNKNOWN = "UNKNOWN"
CUT = "sentences cut to config.task.length, both entities kept"
LOST = "sentences whose entities do not fit in config.task.length, cut at the end"
_EDGES = ("SUBJ_START", "SUBJ_END", "OBJ_START", "OBJ_END")
_SPELLED_EDGES = {"SUBJ_START": "( subject", "SUBJ_END": ")", "OBJ_START": "( object", "OBJ_END": ")"}
_SPELLED_ROLES = {"SUBJ": "subject", "OBJ": "object"}
_UNUSED = re.compile(r"\[unused([1-9][0-9]*)\]")  # the reference begins with 1, though some vocabularies have a 0


@dataclasses.dataclass(frozen=True)
class Marked:
    """Pieces of a marked sentence, without [CLS].

    Attributes:
      body: of the sentence.
      entity: for each of them whether it is of an entity or a marker.
      tail: what follows: [SEP], and what stands between further ones.
    """
    body: list[int]
    entity: list[bool]
    tail: list[int]


def uses_types(marking: str) -> bool:
    """Whether a way of marking shows the types of entities."""
    return marking != "text"


def marker_names(examples: Iterable[Relation], marking: str) -> list[str]:
    """Names of the markers in order of first use, as the reference has them, and last one for types not seen."""
    names = dict.fromkeys(_EDGES)
    if uses_types(marking):
        for example in examples:
            names |= {f"SUBJ={example.subject_type}": None, f"OBJ={example.object_type}": None}
        names |= {f"SUBJ={UNKNOWN}": None, f"OBJ={UNKNOWN}": None}
    return list(names)


def assign_markers(names: Iterable[str], tokenizer: Tokenizer, markers: str) -> dict[str, str]:
    """What stands for each marker.

    Args:
      markers: "unused": the pieces [unused1], [unused2] and so on, as the reference. "words": ordinary words, such as
        "( subject" and ")" around an entity and "( subject person )" for a type, for vocabularies without such pieces.

    Raises:
      UserError: when the vocabulary has too few unused pieces, or lacks pieces to spell a marker with.
    """
    names = list(names)
    if markers == "words":
        spelled = {name: _SPELLED_EDGES.get(name) or _spell(name) for name in names}
        unknown = special_ids(tokenizer).unk
        for name, ids in marker_ids(spelled, tokenizer).items():
            if unknown in ids:
                raise UserError(f"marker {name} is spelled {spelled[name]!r}, for which the vocabulary lacks pieces; "
                                "set config.task.markers to 'unused', or rename the type")
        return spelled
    matches = map(_UNUSED.fullmatch, tokenizer.get_vocab(with_added_tokens=True))
    numbers = sorted(int(match[1]) for match in matches if match)
    if len(numbers) < len(names):
        raise UserError(f"{len(names)} markers of entities are needed, and the vocabulary has {len(numbers)} pieces "
                        "[unused1], [unused2] and so on; set config.task.markers to 'words'")
    return {name: f"[unused{number}]" for name, number in zip(names, numbers)}


def _spell(name: str) -> str:
    role, _, kind = name.partition("=")
    return f"( {_SPELLED_ROLES[role]} {kind.replace('_', ' ').lower()} )"


def marker_ids(markers: Mapping[str, str], tokenizer: Tokenizer) -> dict[str, list[int]]:
    """The pieces of each marker.

    Raises:
      UserError: when an unused piece is not in the vocabulary.
    """
    ids = {}
    for name, text in markers.items():
        unused = bool(_UNUSED.fullmatch(text))
        ids[name] = [tokenizer.token_to_id(text)] if unused else tokenizer.encode(text, add_special_tokens=False).ids
        if None in ids[name]:
            raise UserError(f"the vocabulary has no piece {text}, which stands for {name} in the trained model; give "
                            "the vocabulary that the model was trained with")
    return ids


def mark(example: Relation, marking: str, words: Mapping[str, list[int]], markers: Mapping[str, list[int]],
         sep: int) -> Marked:
    """Marks the entities of a sentence as the reference does under the same name.

    "ner" puts a marker of the entity's type in the place of its words; "text" puts a marker before and one after them.
    "text_ner" is "text", and after it [SEP], the type of the subject, [SEP], that of the object, [SEP]; "ner_text" is
    "ner", and after it the words of either instead. Entities may overlap: each then has its markers all the same, and
    words of either are left out in "ner".

    Args:
      words, markers: pieces by word and by name; the types of the example are among the names where they are used.
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
        stretch = [] if number in inside and not around else words[word]
        stretch = before.get(number, []) + stretch + after.get(number, [])
        body += stretch
        entity += [number in inside] * len(stretch)

    tail = [sep]
    for role, ((first, last), kind) in entities.items():
        if marking == "text_ner":
            tail += [*markers[f"{role}={kind}"], sep]
        elif marking == "ner_text":
            tail += [piece for word in example.tokens[first:last + 1] for piece in words[word]] + [sep]
    return Marked(body, entity, tail)


def fit(marked: Marked, special: SpecialIds, length: int) -> tuple[list[int], str]:
    """[CLS] and a marked sentence in at most `length` pieces, and CUT or LOST where not all of it fits.

    Changed on purpose from the reference, which cuts at the end and may lose an entity: entities, markers and what
    follows the sentence stay; then pieces between the entities, those next to one first; then pieces around them,
    likewise. Where not even the entities fit, the end is cut.
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
    return [special.cls, *np.asarray(marked.body)[kept].tolist(), *marked.tail], CUT
