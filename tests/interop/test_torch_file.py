"""PyTorch files are read as PyTorch reads them; hostile and damaged files give clear errors."""
import argparse
import builtins
import collections
import io
import os
import pickle
import random
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.sources import torch_pickle
from spanbert_jax.interop.sources.torch_file import TorchFile

LAYOUTS = {"zip": True, "legacy": False}


@pytest.fixture(params=LAYOUTS)
def save(request, tmp_path):
    """Saves an object in either layout of torch.save."""
    def save_object(content):
        path = tmp_path / "pytorch_model.bin"
        torch.save(content, path, _use_new_zipfile_serialization=LAYOUTS[request.param])
        assert zipfile.is_zipfile(path) == LAYOUTS[request.param]
        return path
    return save_object


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().clone()
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if tensor.dtype == torch.bfloat16 else (
        tensor.numpy())


def assert_holds(file: TorchFile, expected: dict[str, torch.Tensor]) -> None:
    assert file.shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    for name, tensor in expected.items():
        got, wanted = file.read(name), to_numpy(tensor)
        assert got.dtype == wanted.dtype, name
        assert got.shape == wanted.shape, name
        assert np.array_equal(got, wanted), name


def explanation(path) -> str:
    """What the one line says of a file, after its name."""
    with pytest.raises(UserError) as caught:
        file = TorchFile(path)
        for name in file.shapes:
            file.read(name)
    start, message = f"{path}: ", str(caught.value)
    assert message.startswith(start)
    assert message.isprintable() and ";" in message  # one line, and what to do
    assert "weights_only" not in message
    return message.removeprefix(start)


@pytest.mark.parametrize("dtype", [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool], ids=str)
def test_every_dtype_and_rank(save, dtype):
    numbers = (torch.arange(120) - 7).to(dtype)
    tensors = {"matrix": numbers.reshape(10, 12), "cube": numbers.reshape(4, 5, 6), "scalar": numbers[3].clone(),
               "none": numbers[:0].clone().reshape(0, 3), "one": numbers[:1].clone()}
    assert_holds(TorchFile(save(tensors)), tensors)


def test_views_of_shared_storages(save):
    base = torch.randn(6, 8)
    tensors = {"base": base, "transposed": base.T, "row": base[2], "column": base[:, 3], "steps": base[1::2, 2::3],
               "repeated": base[0, :4].expand(5, 4), "tied": base}
    assert_holds(TorchFile(save(tensors)), tensors)


def test_state_dict_of_a_module(save):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.BatchNorm1d(4))
    state = module.state_dict()
    assert isinstance(state, collections.OrderedDict) and state._metadata
    assert_holds(TorchFile(save(state)), state)


def test_parameters(save):
    tensors = {"weight": torch.nn.Parameter(torch.randn(3, 4)), "half": torch.nn.Parameter(torch.randn(4).bfloat16())}
    assert_holds(TorchFile(save(tensors)), tensors)


def test_fairseq_checkpoint(save):
    tensors = {"decoder.weight": torch.randn(4, 3), "decoder.version": torch.tensor([2])}
    path = save({
        "args": argparse.Namespace(arch="cased_bert_pair_large", lr=[1e-4], nested=argparse.Namespace(seed=1)),
        "model": collections.OrderedDict(tensors), "optimizer_history": [{"num_updates": 7, "lr_scheduler": None}],
        "extra_state": {"epoch": 3, "val_loss": 1.5}, "last_optimizer_state": {"state": {0: {"m": torch.randn(9)}}}})
    assert_holds(TorchFile(path), tensors)


@pytest.mark.parametrize("holder", ["model", "state_dict", "model_state_dict"])
def test_holders(save, holder):
    tensors = {"a": torch.randn(2), "b": torch.randn(3)}
    path = save({"step": torch.tensor(3), holder: {**tensors, "version": "x", "count": 3}, "epoch": 4})
    assert_holds(TorchFile(path), tensors)


def test_other_entries_are_ignored(save):
    tensors = {"a": torch.randn(2), "model": torch.randn(3)}
    assert_holds(TorchFile(save({**tensors, "epoch": 1, 5: torch.randn(4), "more": {"x": torch.randn(1)}})), tensors)


def test_values_that_pytorch_counts_as_plain_are_ignored(save):
    tensors = {"a": torch.randn(2)}
    assert_holds(TorchFile(save({**tensors, "size": torch.Size([3]), "device": torch.device("cpu"), "bytes": b"xy",
                                 "dtype": torch.float32, "set": {1}, "counter": collections.Counter("a"),
                                 "array": bytearray(b"x"), "complex": 1j})), tensors)


@pytest.mark.parametrize("content", [
    {"epoch": 3, "model": {"x": "y"}}, {}, torch.zeros(3), [torch.zeros(2)], 7], ids=str)
def test_no_tensors(save, content):
    assert explanation(save(content)).startswith("it holds no named tensors")


def test_tensors_are_read_when_asked_for(save):
    """A tensor damaged after the file was opened comes out damaged: nothing was read before."""
    path = save({"a": torch.full((5,), 7.), "b": torch.full((5,), 8.)})
    file, sevens, content = TorchFile(path), np.full(5, 7, "<f4").tobytes(), path.read_bytes()
    assert content.count(sevens) == 1
    path.write_bytes(content.replace(sevens, np.full(5, 9, "<f4").tobytes()))
    assert file.read("a").tolist() == [9] * 5
    for left in (0, 3, 4, 19):
        path.write_bytes(content[:content.index(sevens) + left])
        with pytest.raises(UserError, match="tensor 'a': it is damaged"):
            file.read("a")


class Call:
    """Pickled, it asks for a function and arguments to call it with."""

    def __init__(self, function, *arguments):
        self.asked = (function, arguments)

    def __reduce__(self):
        return self.asked


@pytest.mark.parametrize("attack", ["os.system", "builtins.eval"])
def test_hostile_pickles_do_not_run(save, tmp_path, attack):
    marker = tmp_path / "marker"
    call = {"os.system": Call(os.system, f"touch {marker}"),
            "builtins.eval": Call(builtins.eval, f"open({str(marker)!r}, 'w')")}[attack]
    pickle.loads(pickle.dumps(call))
    assert marker.exists()  # so it would run
    marker.unlink()
    message = explanation(save({"a": torch.zeros(2), "b": call}))
    assert not marker.exists()
    asked = {"os.system": f"{os.system.__module__}.system", "builtins.eval": "eval"}[attack]
    assert f"{asked}, which could run code" in message


def text(value: str) -> bytes:
    """A string, pickled."""
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def pickle_calling(module: str, name: str, argument: str, protocol: int) -> bytes:
    """A pickle that calls a function of a module, found as the protocol finds it, with a string."""
    found = f"c{module}\n{name}\n".encode() if protocol < 4 else text(module) + text(name) + b"\x93"
    return b"\x80" + bytes([protocol]) + found + text(argument) + b"\x85R."


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("module,name", [
    ("collections", "OrderedDict.fromkeys"), ("collections", "_sys.modules.__class__"), ("collections", "abc"),
    ("argparse", "_os.system"), ("torch._utils", "_rebuild_tensor_v2.__globals__.get"), ("torch", "os.system"),
    ("torch", "FloatStorage.__init__"), ("builtins", "getattr"), ("__builtin__", "exec"),
    ("torch.serialization", "load"), ("collections\nOrderedDict", "x")])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_dotted_and_hidden_names_are_refused(tmp_path, module, name, protocol):
    """Every name reaches a function through a module that weights may ask something of."""
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    content = pickle_calling(module, name, f"touch {marker}", protocol)
    if (module, name, protocol) == ("argparse", "_os.system", 4):
        pickle.loads(content)
        assert marker.exists()  # so it would run
        marker.unlink()
    for write in (write_zip, write_legacy, lambda path, content: path.write_bytes(content)):
        write(path, content)
        message = explanation(path)
        assert not marker.exists()
        if "\n" not in module:
            assert message.startswith(f"it asks for {module}.{name}, which could run code")


@pytest.mark.parametrize("target", [
    "argparse\nNamespace", "collections\nOrderedDict", "torch._utils\n_rebuild_tensor_v2", "torch\nFloatStorage"])
@pytest.mark.parametrize("attribute", ["shape", "__setstate__"])
def test_pickles_cannot_set_attributes_of_allowed_globals(tmp_path, target, attribute):
    """It would outlive the file. The pickle gives the target itself the state (None, {attribute: 1})."""
    path = tmp_path / "model.pt"
    write_zip(path, b"\x80\x02" + f"c{target}\nN}}".encode() + text(attribute) + b"K\x01s\x86b.")
    with pytest.raises(UserError, match="it is damaged"):
        TorchFile(path)


def test_truncated_files(save):
    path = save({"a": torch.randn(40), "b": torch.randn(3).half(), "c": "text"})
    content = path.read_bytes()
    lengths = {*range(24), *range(24, len(content), max(1, len(content) // 60)),
               *range(len(content) - 30, len(content))}
    for length in lengths:
        path.write_bytes(content[:length])
        explanation(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_flipped_bits_never_crash(save):
    path = save({"a": torch.randn(4), "b": torch.randn(3)})
    content, chance = path.read_bytes(), random.Random(0)
    for _ in range(150):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            file = TorchFile(path)
            for name in file.shapes:
                file.read(name)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
            assert "cannot be read" not in str(error)  # nothing is wrong with the disk


class Storage:
    """Pickled by `pickle_tensor`, a storage of so many floats."""

    def __init__(self, count):
        self.count = count


def pickle_tensor(layout="zip", *, view=None, count=12, offset=0, shape=(3, 4), strides=(4, 1)) -> bytes:
    """What torch.save writes for {"a": tensor}, with numbers that need not fit one another."""
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", value.count, *([view] if layout == "legacy" else []))

    out = io.BytesIO()
    arguments = (Storage(count), offset, shape, strides, False, collections.OrderedDict())
    Pickler(out, protocol=2).dump({"a": Call(torch._utils._rebuild_tensor_v2, *arguments)})
    return out.getvalue()


def write_zip(path, pickled: bytes, compression=zipfile.ZIP_STORED, byteorder=b"little") -> None:
    """A file in the zip layout with one storage of the floats 0 to 11."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"data.pkl": pickled, "byteorder": byteorder, "version": b"3\n",
                              "data/0": np.arange(12, dtype="<f4").tobytes()}.items():
            archive.writestr(f"archive/{name}", content)


def write_legacy(path, pickled: bytes, count: int = 12) -> None:
    """A file in the legacy layout with one storage of the floats 0 to 11, said to be `count`."""
    heads = [0x1950a86a20f9469cfc6c, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    path.write_bytes(b"".join(pickle.dumps(head, 2) for head in heads) + pickled + pickle.dumps(["0"], 2)
                     + count.to_bytes(8, "little", signed=True) + np.arange(12, dtype="<f4").tobytes())


WRITERS = {"zip": write_zip, "legacy": write_legacy}


@pytest.mark.parametrize("layout", WRITERS)
def test_hand_made_files_are_read_correctly(tmp_path, layout):
    """The files that the next tests break are whole."""
    path = tmp_path / "model.pt"
    WRITERS[layout](path, pickle_tensor(layout, offset=1, shape=(3, 2), strides=(4, 2)))
    assert TorchFile(path).read("a").tolist() == [[1, 3], [5, 7], [9, 11]]


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("wrong", [
    dict(offset=1), dict(offset=-1), dict(offset=2**62), dict(offset=2**70), dict(shape=(4, 4)), dict(shape=(-3, 4)),
    dict(shape=(2**40, 4)), dict(strides=(5, 1)), dict(strides=(4, 2)), dict(strides=(-4, 1)), dict(strides=(4,)),
    dict(strides=(2**62, 2**62)), dict(shape=(2**62, 2**62))], ids=str)
def test_tensors_that_do_not_fit_their_storage(tmp_path, layout, wrong):
    path = tmp_path / "model.pt"
    WRITERS[layout](path, pickle_tensor(layout, **wrong))
    assert explanation(path) == "tensor 'a' does not fit its storage; the file is damaged, fetch it again"


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("count", [0, 11, -12, 13, 2**61])
def test_storages_of_another_size_than_their_tensors_or_the_file(tmp_path, layout, count):
    WRITERS[layout](tmp_path / "model.pt", pickle_tensor(layout, count=count))
    with pytest.raises(UserError, match="tensor 'a' does not fit its storage"):
        TorchFile(tmp_path / "model.pt")


@pytest.mark.parametrize("wrong", [dict(offset=1.), dict(shape=3), dict(shape=("3", 4))], ids=str)
def test_numbers_of_other_types_are_refused(tmp_path, wrong):
    write_zip(tmp_path / "model.pt", pickle_tensor(**wrong))
    explanation(tmp_path / "model.pt")


@pytest.mark.parametrize("count", [11, 13, -1, 2**62, -2**63])
def test_wrong_counts_of_legacy_storages(tmp_path, count):
    write_legacy(tmp_path / "model.pt", pickle_tensor("legacy"), count)
    explanation(tmp_path / "model.pt")


def test_huge_numbers_take_no_memory(tmp_path):
    """One of 2**20 here, of up to 2**32 in a damaged file: Python would make a table of so many entries."""
    whole = pickle_tensor()
    write_zip(tmp_path / "model.pt", whole[:2] + b"Nr\0\0\x10\0" + b"0" + whole[2:])
    with pytest.raises(UserError, match="it is damaged"):
        TorchFile(tmp_path / "model.pt")


def test_views_are_not_read_as_whole_storages(tmp_path):
    write_legacy(tmp_path / "model.pt", pickle_tensor("legacy", view=("1", 4, 8)))
    with pytest.raises(UserError, match="it is damaged"):
        TorchFile(tmp_path / "model.pt")


def test_members_that_are_not_where_the_directory_says(tmp_path):
    path = tmp_path / "model.pt"
    write_zip(path, pickle_tensor())
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x03\x04")] ^= 1
    path.write_bytes(content)
    assert explanation(path).startswith("it is damaged")


def test_compressed_members(tmp_path):
    write_zip(tmp_path / "model.pt", pickle_tensor(), compression=zipfile.ZIP_DEFLATED)
    assert explanation(tmp_path / "model.pt").endswith("is compressed; save it again with torch.save")


def test_big_endian_numbers(tmp_path):
    write_zip(tmp_path / "model.pt", pickle_tensor(), byteorder=b"big")
    assert explanation(tmp_path / "model.pt").startswith("its numbers are big-endian")


def test_torchscript_archives_are_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "model.pt")
    assert explanation(tmp_path / "model.pt").startswith("it is a TorchScript archive, which holds code; give a file")


def test_tensors_with_more_numbers_than_the_file_are_refused(tmp_path):
    """A stride of zero repeats a number as often as a shape says."""
    write_zip(tmp_path / "model.pt", pickle_tensor(shape=(10**6, 10**6), strides=(0, 0)))
    assert "'a' is [1000000, 1000000], which the" in explanation(tmp_path / "model.pt")


def test_large_pickles_and_directories_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    write_zip(path, pickle_tensor().replace(b"}", b"}" + b"N0" * 600_000, 1))
    assert explanation(path).startswith("a pickle in it has more than 1,000,000 instructions")
    monkeypatch.setattr(torch_pickle, "_MAX_PICKLE", 1000)
    assert explanation(path).startswith("its data.pkl has more than 0 MiB")
    monkeypatch.setattr(torch_pickle, "_MAX_DIRECTORY", 100)
    assert explanation(path).startswith("its directory has more than 0 MiB")


def test_other_zip_files_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("spanbert/pytorch_model.bin", b"x")
    assert explanation(tmp_path / "model.pt").startswith("it is a zip that torch.save did not write")


@pytest.mark.parametrize("content,start", [
    (b"", "it is empty"),
    (b"Not Found\n", "it is damaged or not a PyTorch weight file"),
    (b"cos\nsystem\n(S'true'\ntR.", "it is damaged or not a PyTorch weight file"),
    (b"\x1f\x8b\x08" + bytes(50), "it is damaged or not a PyTorch weight file"),
    (pickle.dumps({"a": 1}, 2), "it is damaged or not a PyTorch weight file")])
def test_other_files_are_refused(tmp_path, content, start):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    assert explanation(path).startswith(start)


def test_paths_that_hold_no_file(tmp_path):
    assert "No such file" in explanation(tmp_path / "missing.bin")
    assert "directory" in explanation(tmp_path)
