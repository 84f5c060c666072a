"""Format "wikiextractor": articles between <doc ...> and </doc>, as WikiExtractor writes them without --json."""
import html
import re
from collections.abc import Iterator

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import Document, split_document
from spanbert_jax.corpus.sources.base import CorpusFormat, FieldNames, SourceFile
from spanbert_jax.corpus.sources.files import MAX_RECORD_BYTES, open_file, text_lines

_BEGIN = "<doc "
_END = "</doc>"


def _read(file: SourceFile, fields: FieldNames, issues: DataIssues) -> Iterator[Document]:
    """Yields the articles. Their first line is the title. WikiExtractor escapes &, < and >."""
    begin, lines, number, size = 0, list[str](), 0, 0
    with open_file(file.path, issues) as stream:
        for number, line in enumerate(text_lines(stream, file.path, issues), 1):
            if begin and line.rstrip() == _END:
                yield from split_document(Document(html.unescape("".join(lines)), file.path, begin + 1), issues)
                begin = 0
            elif begin:
                lines.append(line)
                size += len(line)
                if size > MAX_RECORD_BYTES:
                    raise UserError(f"{file.path}:{begin}: an article of more than {MAX_RECORD_BYTES >> 20} million "
                                    "characters; divide it")
            elif line.startswith(_BEGIN):
                begin, lines, size = number, [], 0
            elif line.strip():
                raise UserError(f"{file.path}:{number}: {line.strip()!r:.80} is outside of <doc ...> and </doc>; write "
                                "the file again with WikiExtractor, or give another --format")
    if begin:
        raise UserError(f"{file.path}:{begin}: <doc> without </doc>: the file is cut; fetch or write it again")
    if not number:
        issues.add("empty files", file.path)


WIKI_EXTRACTOR = CorpusFormat(_read, start=re.compile(re.escape(_BEGIN)), has_fields=False)
