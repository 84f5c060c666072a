"""Formats "blank-lines" and "sentences": blank lines separate documents; in "sentences" each line is one sentence."""
import re
from collections.abc import Iterator

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import MAX_DOCUMENT_CHARACTERS, Document, split_position
from spanbert_jax.corpus.sources.base import CorpusFormat, FieldNames, SourceFile
from spanbert_jax.corpus.sources.files import text_blocks

_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*+\n)++")


def _read(file: SourceFile, fields: FieldNames, issues: DataIssues) -> Iterator[Document]:
    """Yields the documents between blank lines. Unlike in the reference, the last one needs no blank line after it."""
    line, rest, found, sentences = 1, "", False, file.format == "sentences"
    for block in text_blocks(file.path, issues):
        text = rest + block
        start = 0
        for gap in _BLANK_LINES.finditer(text):
            if gap.end() == len(text):  # the next block may begin with more blank lines
                break
            if text[start:gap.start()].strip():
                found = True
                yield Document(text[start:gap.start()], file.path, line, sentence_lines=sentences)
            line += text.count("\n", start, gap.end())
            start = gap.end()
        rest = text[start:]
        while len(rest) > MAX_DOCUMENT_CHARACTERS:
            issues.add("long documents divided", f"{file.path}:{line}")
            end = split_position(rest, 0, MAX_DOCUMENT_CHARACTERS)
            yield Document(rest[:end], file.path, line, sentence_lines=sentences)
            line, rest = line + rest.count("\n", 0, end), rest[end:]
    if rest.strip():
        yield Document(rest, file.path, line, sentence_lines=sentences)
    elif not found:
        issues.add("empty files", file.path)


BLANK_LINES = SENTENCES = CorpusFormat(_read, has_fields=False)
