"""The survey: repeats, held-out documents, fingerprint."""
import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus import readers
from spanbert_jax.corpus.readers import Fields, resolve
from spanbert_jax.corpus.survey import SKIPPED, TRAIN, VALIDATION, survey


def write(folder, texts):
    folder.mkdir(exist_ok=True)
    for i, text in enumerate(texts):
        (folder / f"{i:03}.txt").write_text(text + "\n")
    return resolve([str(folder)], "auto")


def look(files, fraction):
    return survey(files, Fields(), fraction, lambda document: None)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_the_share_held_out_is_close_and_stable(tmp_path, prose, fraction):
    found = look(write(tmp_path / "a", prose), fraction)
    share = found.split_characters(VALIDATION) / found.characters.sum()
    assert 0.5 * fraction < share <= 1.5 * fraction
    held = {document.text for document in found.documents(VALIDATION)}
    assert held.isdisjoint(document.text for document in found.documents(TRAIN))
    turned = look(write(tmp_path / "b", prose[::-1]), fraction)  # chosen by content, not by place
    assert {document.text for document in turned.documents(VALIDATION)} == held
    assert turned.fingerprint != found.fingerprint == look(resolve([str(tmp_path / "a")], "auto"), 0.3).fingerprint


def test_small_corpora(tmp_path):
    assert look(write(tmp_path / "one", ["a"]), 0.5).fate.tolist() == [TRAIN]
    assert look(write(tmp_path / "none", ["a", "bb"]), 0.0).fate.tolist() == [TRAIN, TRAIN]
    assert look(write(tmp_path / "two", ["aaa", "bb"]), 0.001).fate.tolist() == [TRAIN, VALIDATION]
    found = look(write(tmp_path / "same", ["a", " ", "a", "b", "b"]), 0.0)
    assert found.fate.tolist() == [TRAIN, SKIPPED, SKIPPED, TRAIN, SKIPPED]
    assert (found.duplicates, found.empty) == (2, 1)


def test_parts_of_a_long_document_share_its_fate(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_DOCUMENT_CHARACTERS", 50)
    texts = ["".join(f"line {i} of {name}\n" for i in range(10)) for name in "abcdef"]
    found = look(write(tmp_path / "long", texts), 0.3)
    files = [document.file for split in (TRAIN, VALIDATION) for document in found.documents(split)]
    held = {document.file for document in found.documents(VALIDATION)}
    assert len(found.fate) > 12 and len(files) == len(found.fate)
    assert 1 <= len(held) <= 3 and held.isdisjoint(document.file for document in found.documents(TRAIN))
    assert "".join(document.text for document in found.documents(VALIDATION)).count("line") == 10 * len(held)


def test_a_change_between_the_passes_is_noticed(tmp_path):
    found = look(write(tmp_path / "c", ["aaa", "bb"]), 0.0)
    (tmp_path / "c" / "001.txt").write_text("bbb")
    with pytest.raises(UserError, match="changed while it was being read"):
        list(found.documents(TRAIN))
    assert np.array_equal(found.characters, [3, 2])
