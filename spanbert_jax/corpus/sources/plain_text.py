"""Format "documents": each text file is one document."""
from collections.abc import Iterator

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.sources.base import CorpusFormat, FieldNames, SourceFile
from spanbert_jax.corpus.sources.files import text_blocks


def _read(file: SourceFile, fields: FieldNames, issues: DataIssues) -> Iterator[Document]:
    line, parts = 1, 0
    for text in text_blocks(file.path, issues):
        yield Document(text, file.path, line, continued=parts > 0)
        line += text.count("\n")
        parts += 1
    if parts > 1:
        issues.add("long documents divided", file.path)
    elif not parts:
        issues.add("empty files", file.path)


DOCUMENTS = CorpusFormat(_read, has_fields=False)
