"""The folder of a fine-tuned model: what it may replace."""
import types

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.manifest import MANIFEST_FILE
from spanbert_jax.inference.model_folder import TASK_FILE, FineTuned, save_model


class Saved:
    """A model that is one file."""

    def save_weights(self, folder, model, params, tokenizer):
        (folder / "weights").write_text("new")


@pytest.fixture
def fine_tuned(monkeypatch):
    monkeypatch.setattr("spanbert_jax.inference.model_folder.model_card", lambda *args: "card")
    stored = types.SimpleNamespace(task=Saved(), to_json=lambda: "{}", facts={})
    return FineTuned(stored, None, None, None)


@pytest.mark.parametrize("kind", ["folder", "link to a folder", "link to a model", "file"])
def test_only_a_fine_tuned_model_is_replaced(kind, fine_tuned, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "weights").write_text("mine")
    if kind == "link to a model":
        (mine / TASK_FILE).write_text("{}")
    target = mine if kind == "folder" else tmp_path / "model"
    if kind == "file":
        target.write_text("mine")
    elif target != mine:
        target.symlink_to("mine")
    with pytest.raises(UserError, match="not a model that fine-tuning has written"):
        save_model(target, fine_tuned)
    assert (mine / "weights").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1 + (target != mine)


def test_an_earlier_model_is_replaced_whole(fine_tuned, tmp_path):
    (tmp_path / ".model.new").mkdir()
    (tmp_path / ".model.new" / "thesis").write_text("mine")
    for _ in range(2):
        save_model(tmp_path / "model", fine_tuned)
        written = {path.name for path in (tmp_path / "model").iterdir()}
        assert written == {"weights", TASK_FILE, "README.md", MANIFEST_FILE}
    (tmp_path / "model" / MANIFEST_FILE).unlink()  # as older versions wrote it
    (tmp_path / "model" / "of an earlier version").write_text("")
    save_model(tmp_path / "model", fine_tuned)
    assert {path.name for path in (tmp_path / "model").iterdir()} == written
    assert {path.name for path in tmp_path.iterdir()} == {"model", ".model.new"}


@pytest.mark.parametrize("name", ["thesis", "onnx/model.onnx", ".git"])
def test_files_of_others_in_a_model_are_not_removed_with_it(name, fine_tuned, tmp_path):
    save_model(tmp_path / "model", fine_tuned)
    (tmp_path / "model" / "README.md").write_text("mine")  # a file for people, but made again
    file = tmp_path / "model" / name
    file.parent.mkdir(exist_ok=True)
    file.symlink_to(tmp_path) if name == ".git" else file.write_text("mine")
    with pytest.raises(UserError, match=f"{file}: was not written by fine-tuning, .* move it away"):
        save_model(tmp_path / "model", fine_tuned)
    assert file.is_symlink() or file.read_text() == "mine"
    file.unlink()
    save_model(tmp_path / "model", fine_tuned)
