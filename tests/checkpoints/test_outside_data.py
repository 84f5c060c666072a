"""No code in a checkpoint is ever run, whoever wrote it."""
import json
import os
import pickle
import shutil

import pytest
import tensorstore

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.checkpoints.manifest import write_manifest
from spanbert_jax.common.errors import RunFailed, UserError
from tests.checkpoints.states import abstract_of, accept_any, make_state, save_steps

KERNEL = "params.dense.kernel"


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, mark):
        self._mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self._mark),)


def object_array(payload: bytes) -> dict[str, bytes]:
    """Returns a zarr array of pickled Python objects, which the zarr library would unpickle."""
    description = {"zarr_format": 2, "shape": [8, 5], "chunks": [8, 5], "dtype": "|O", "fill_value": None, "order": "C",
                 "compressor": None, "filters": [{"id": "pickle", "protocol": 4}], "dimension_separator": "."}
    return {".zarray": json.dumps(description).encode(), "0.0": payload}


def in_plain_files(state, payload):
    """Replaces the state by zarr folders of pickled objects."""
    for name in ("manifest.ocdbt", "d", "ocdbt.process_0"):
        (shutil.rmtree if (state / name).is_dir() else os.unlink)(state / name)
    description = json.loads((state / "_METADATA").read_text())
    (state / "_METADATA").write_text(json.dumps(description | {"use_ocdbt": False}))
    for name in ("step", KERNEL, "params.dense.bias", "params.flags", "opt_state.0.mu", "opt_state.0.count",
                 "opt_state.1.0"):
        (state / name).mkdir()
        for key, content in object_array(payload).items():
            (state / name / key).write_bytes(content)


def in_the_database(state, payload):
    """Replaces one array in the database that Orbax writes."""
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": state.as_uri() + "/"}).result()
    assert any(key.startswith(KERNEL.encode()) for key in store.list().result())
    for key, content in object_array(payload).items():
        store.write(f"{KERNEL}/{key}", content).result()


def in_place_of(name):
    """Returns a function that replaces one of the small files by a pickle."""
    def craft(state, payload):
        (state.parent / name).write_bytes(payload)
    return craft


@pytest.mark.parametrize("craft", [
    in_plain_files, in_the_database, *map(in_place_of, ("state/_METADATA", "about/metadata", "state/manifest.ocdbt"))])
def test_pickles_are_one_line_errors_and_not_run(tmp_path, craft):
    mark, payload = tmp_path / "ran", pickle.dumps(Payload(tmp_path / "ran"))
    pickle.loads(payload)
    assert mark.exists()  # unpickling would run it
    mark.rmdir()
    save_steps(tmp_path, [1])
    folder = tmp_path / "checkpoints"
    craft(folder / "1" / "state", payload)
    write_manifest(folder / "integrity-1.json", folder / "1", 1, 1, 0)
    abstract, lines = abstract_of(make_state(0)), []
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert checkpointer.latest_valid() == 1  # its files agree with the manifest
        with pytest.raises(UserError) as caught:
            checkpointer.restore_params(1, abstract.params)
        assert "\n" not in str(caught.value)
    with Checkpointer(tmp_path, log=lines.append) as checkpointer:
        with pytest.raises((UserError, RunFailed)) as caught:
            checkpointer.resume(abstract, accept_any)
    assert "\n" not in str(caught.value) and all("\n" not in line for line in lines)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [0, 4])
def test_a_pickle_for_a_manifest_is_refused_and_not_run(tmp_path, protocol):
    save_steps(tmp_path, [1, 2])
    (tmp_path / "checkpoints/integrity-2.json").write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol))
    with Checkpointer(tmp_path, log=lambda line: None) as checkpointer:
        step, _ = checkpointer.resume(abstract_of(make_state(0)), accept_any)
    assert step == 1 and not (tmp_path / "ran").exists()
