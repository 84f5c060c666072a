"""Registries: built-in names, registered ones, entry points of other packages, plugins, and messages."""
import importlib.metadata
import json

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.registry import Registry, load_plugins


@pytest.fixture
def registry() -> Registry:
    return Registry("codec", "codecs", {"encode": "json:dumps", "decode": "json:loads"})


def test_built_in_implementations_are_imported_by_name(registry):
    assert registry.names() == ("encode", "decode") and "decode" in registry and "other" not in registry
    assert registry.get("decode") is json.loads and registry.get("decode") is json.loads


def test_registered_implementations_follow_the_built_in_ones(registry):
    @registry.register("shout")
    def shout(text):
        return text.upper()

    assert registry.get("shout") is shout and registry.names() == ("encode", "decode", "shout")
    assert registry.register("shout")(shout) is shout  # the same one again


def test_a_module_that_is_imported_again_replaces_its_implementations(registry):
    first, second = (type("Loud", (), {"__module__": "loud_plugin"}) for _ in range(2))
    registry.register("loud")(first)
    registry.register("loud")(second)
    assert registry.get("loud") is second


@pytest.mark.parametrize("name", ["encode", "shout"])
def test_a_name_is_registered_once(registry, name):
    registry.register("shout")(str.upper)
    with pytest.raises(ValueError, match=f"codec '{name}' is registered already; choose another name"):
        registry.register(name)(str.lower)


def test_an_unknown_name_is_told_with_what_is_allowed(registry):
    with pytest.raises(UserError) as error:
        registry.get("encod")
    assert str(error.value).startswith("unknown codec 'encod'; did you mean 'encode'? allowed: encode, decode")
    assert "config.plugins" in str(error.value) and "\n" not in str(error.value)


def test_entry_points_of_other_packages_are_found(registry, monkeypatch):
    points = [importlib.metadata.EntryPoint("pretty", "pprint:pformat", "spanbert_jax.codecs"),
              importlib.metadata.EntryPoint("broken", "no_such_module_at_all:thing", "spanbert_jax.codecs")]
    monkeypatch.setattr(importlib.metadata, "entry_points",
                        lambda group: [point for point in points if point.group == group])
    import pprint
    assert registry.get("pretty") is pprint.pformat and registry.names() == ("encode", "decode", "pretty", "broken")
    with pytest.raises(UserError, match="codec 'broken': no_such_module_at_all:thing .*cannot be imported"):
        registry.get("broken")


def test_plugins_are_imported_and_may_fail(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "good_plugin.py").write_text("loaded = True\n")
    (tmp_path / "bad_plugin.py").write_text("raise RuntimeError('two\\nlines')\n")
    load_plugins(["good_plugin"])
    for module, reason in (("bad_plugin", "two lines"), ("no_such_plugin", "No module named")):
        with pytest.raises(UserError,
                           match=f"config.plugins: module '{module}' cannot be imported .*{reason}") as error:
            load_plugins([module])
        assert "PYTHONPATH" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("modules,message", [
    (["./mine.py"], r"config.plugins=\('./mine.py',\): './mine.py' is not the name of a module; write it as an import"),
    ([".mine"], "'.mine' is not the name"), ([""], "'' is not the name"), ([3], "3 is not the name"),
    ("mine", "config.plugins='mine': must be a tuple of names"), (None, "config.plugins=None: must be a tuple")])
def test_plugins_are_names_of_modules(modules, message):
    with pytest.raises(UserError, match=message):
        load_plugins(modules)


def test_plugins_beside_the_file_that_names_them_are_not_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` does with the folder it is called in
    (tmp_path / "planted_package").mkdir()
    for file in ("planted.py", "planted_package/__init__.py", "planted_package/inner.py"):
        (tmp_path / file).write_text("raise SystemExit('executed')")
    for module in ("planted", "planted_package", "planted_package.inner"):
        with pytest.raises(UserError, match=f"module '{module}' lies in {tmp_path}, beside the file that names it"):
            load_plugins([module], tmp_path)
    with pytest.raises(UserError, match="cannot be imported .executed."):
        load_plugins(["planted"], tmp_path / "planted_package")
    load_plugins(["json"], tmp_path)
