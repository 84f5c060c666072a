"""GAP: texts with a pronoun and two names, and which of these the pronoun refers to."""
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading
from spanbert_jax.tasks.files.coreference_documents import (
    CoreferenceDocument,
    GapLabels,
    Span,
    from_text,
    sorted_chains,
    words_of,
)

COLUMNS = ("ID", "Text", "Pronoun", "Pronoun-offset", "A", "A-offset", "B", "B-offset")
# GAP has no reflexive pronouns.
_GENDERS = {"she": "feminine", "her": "feminine", "hers": "feminine",
            "he": "masculine", "him": "masculine", "his": "masculine"}
_FLAGS = {"true": True, "false": False}


def read_gap(path: str, issues: DataIssues, with_labels: bool) -> Iterator[CoreferenceDocument]:
    """Yields the document of each row of a table with tabs and GAP's header line.

    Its mentions are the pronoun and the names; with labels, these alone are annotated, and the pronoun is in a chain
    with the name that it refers to. Rows of the same page are one group.

    Raises:
      UserError: naming file, line and id: a text that is not at its offset, a pronoun of no known gender, or, with
        labels, A-coref or B-coref that is not TRUE or FALSE.
    """
    for location, row in reading.table(path, issues):
        id = reading.field(row, "ID", location)
        place = f"{location}: id {id!r}"
        text = reading.field(row, "Text", place)
        characters = [_characters(row, name, text, place) for name in ("Pronoun", "A", "B")]
        group = str(row.get("URL") or id)
        document = from_text(id, location, group, text, {edge for span in characters for edge in span})
        pronoun, a, b = (words_of(document, *span) for span in characters)
        gender = _GENDERS.get(row["Pronoun"].lower())
        if gender is None:
            raise UserError(f"{place}: the pronoun is {row['Pronoun']!r:.40}; GAP's are {', '.join(_GENDERS)}")
        a_coref, b_coref = (_flag(row, name, place) if with_labels else None for name in ("A-coref", "B-coref"))
        chain = [pronoun, *[a] * bool(a_coref), *[b] * bool(b_coref)]
        yield dataclasses.replace(
            document, gap=GapLabels(pronoun, a, b, a_coref, b_coref, gender), mentions=tuple(sorted({pronoun, a, b})),
            chains=sorted_chains([chain] * (len(chain) > 1), place, issues) if with_labels else None, partial=True)


def _characters(row: Mapping[str, Any], name: str, text: str, place: str) -> Span:
    mention, offset = (reading.field(row, column, place) for column in (name, f"{name}-offset"))
    start = int(offset) if offset.isdecimal() and len(offset) < 10 else -1
    if start < 0 or not mention.strip() or not text.startswith(mention, start):
        raise UserError(f"{place}: {mention!r:.80} is not at {name}-offset {offset!r:.20} of the text, counted in "
                        "characters from 0; fix the row")
    return start, start + len(mention)


def _flag(row: Mapping[str, Any], name: str, place: str) -> bool:
    value = reading.field(row, name, place)
    if value.lower() not in _FLAGS:
        raise UserError(f"{place}: {name} is {value!r:.40}; it must be TRUE or FALSE")
    return _FLAGS[value.lower()]
