"""The `python` source: only prose, and no module is imported."""
import pathlib
import sysconfig

from spanbert_jax.corpus.sources.python_prose import module_prose, prose_paragraphs

SAMPLE = '''"""A module that explains in one long sentence what all of it is for, and why.

>>> code_is_left_out(1)
and so is what follows it in the same paragraph, however long it may be.

    Indented words begin a paragraph of their own, as
    descriptions of arguments do.
lower case beginnings are the rests of something else and are left out too.
:param x: a directive that is left out although it is long enough to be taken.
"""
raise SystemExit("never imported")
def f():
    "Short."
'''


def test_module_prose(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(SAMPLE)
    assert module_prose(path) == [
        "A module that explains in one long sentence what all of it is for, and why.",
        "Indented words begin a paragraph of their own, as descriptions of arguments do."]
    for broken in ("\"\"\"unclosed", "x = 1", "def f(:\n \"\"\"a\"\"\""):
        path.write_text(broken)
        assert module_prose(path) == []
    assert module_prose(tmp_path / "none.py") == []


def test_help_topics_give_prose():
    topics = pathlib.Path(sysconfig.get_path("stdlib"), "pydoc_data", "topics.py")
    found = module_prose(topics)
    assert sum(map(len, found)) > 100_000 and not any(">>>" in paragraph for paragraph in found)
    assert any("debugger" in paragraph for paragraph in found) and list(prose_paragraphs(">>> x\n")) == []
