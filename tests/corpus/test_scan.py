"""First pass over the sources: duplicates, held-out documents, content fingerprint."""
import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus.scan import SKIPPED, TRAIN, VALIDATION, scan_sources
from spanbert_jax.corpus.sources import FieldNames, files, resolve_sources


def write(folder, texts):
    folder.mkdir(exist_ok=True)
    for i, text in enumerate(texts):
        (folder / f"{i:03}.txt").write_text(text + "\n")
    return resolve_sources([str(folder)], "auto")


def scan(sources, fraction):
    return scan_sources(sources, FieldNames(), fraction, lambda document: None)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_held_out_share_is_close_to_the_wanted_one_and_independent_of_order(tmp_path, prose, fraction):
    found = scan(write(tmp_path / "a", prose), fraction)
    share = found.split_characters(VALIDATION) / found.characters.sum()
    assert 0.5 * fraction < share <= 1.5 * fraction
    held = {document.text for document in found.documents(VALIDATION)}
    assert held.isdisjoint(document.text for document in found.documents(TRAIN))
    reversed_scan = scan(write(tmp_path / "b", prose[::-1]), fraction)  # selected by content, not by position
    assert {document.text for document in reversed_scan.documents(VALIDATION)} == held
    assert reversed_scan.fingerprint != found.fingerprint == scan(resolve_sources([str(tmp_path / "a")], "auto"),
                                                                  0.3).fingerprint


def test_assignment_of_small_corpora(tmp_path):
    assert scan(write(tmp_path / "one", ["a"]), 0.5).assignment.tolist() == [TRAIN]
    assert scan(write(tmp_path / "none", ["a", "bb"]), 0.0).assignment.tolist() == [TRAIN, TRAIN]
    assert scan(write(tmp_path / "two", ["aaa", "bb"]), 0.001).assignment.tolist() == [TRAIN, VALIDATION]
    found = scan(write(tmp_path / "same", ["a", " ", "a", "b", "b"]), 0.0)
    assert found.assignment.tolist() == [TRAIN, SKIPPED, SKIPPED, TRAIN, SKIPPED]
    assert (found.duplicates, found.empty) == (2, 1)


def test_parts_of_a_split_document_share_one_assignment(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_DOCUMENT_CHARACTERS", 50)
    texts = ["".join(f"line {i} of {name}\n" for i in range(10)) for name in "abcdef"]
    found = scan(write(tmp_path / "long", texts), 0.3)
    parts = [document.file for split in (TRAIN, VALIDATION) for document in found.documents(split)]
    held = {document.file for document in found.documents(VALIDATION)}
    assert len(found.assignment) > 12 and len(parts) == len(found.assignment)
    assert 1 <= len(held) <= 3 and held.isdisjoint(document.file for document in found.documents(TRAIN))
    assert "".join(document.text for document in found.documents(VALIDATION)).count("line") == 10 * len(held)


def test_a_source_changed_after_the_scan_is_an_error(tmp_path):
    found = scan(write(tmp_path / "c", ["aaa", "bb"]), 0.0)
    (tmp_path / "c" / "001.txt").write_text("bbb")
    with pytest.raises(UserError, match="changed while it was being read"):
        list(found.documents(TRAIN))
    assert np.array_equal(found.characters, [3, 2])
