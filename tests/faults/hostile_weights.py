"""Generates hostile models, archives and JSON files. Each kind of attack is a function of a folder and a random source.

It puts an artefact into the folder and returns what a user does with it. `python -m tests.faults.hostile_weights FOLDER
FIRST LAST` runs the artefacts of these numbers in this process, and prints a JSON line about each.
"""
import functools
import gzip
import io
import json
import os
import pathlib
import pickle
import random
import resource
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile

import flax.traverse_util
import numpy as np
from safetensors.numpy import save

import spanbert_jax
from spanbert_jax.common.errors import UserError
from spanbert_jax.inference.model_folder import read_task
from spanbert_jax.interop.encoder_decoder import open_decoder
from tests.faults.hostile_workdirs import TASK, Use, lock_files, odd_json, run_json, workdirs

WIDTH, VOCABULARY, MARKER = 8, 20, "executed"
CONFIG = {"architectures": ["BertModel"], "model_type": "bert", "num_attention_heads": 2, "num_hidden_layers": 2,
          "hidden_size": WIDTH, "id2label": {"0": "a", "1": "b"}, "problem_type": None}


def bert() -> dict[str, np.ndarray]:
    """The tensors of a small BERT."""
    shapes = {"embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
              "embeddings.position_embeddings.weight": (16, WIDTH),
              "embeddings.token_type_embeddings.weight": (2, WIDTH),
              "embeddings.LayerNorm.weight": (WIDTH,), "embeddings.LayerNorm.bias": (WIDTH,)}
    square = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        for module in square:
            shapes |= {f"{layer}.{module}.weight": (WIDTH, WIDTH), f"{layer}.{module}.bias": (WIDTH,)}
        shapes |= {f"{layer}.intermediate.dense.weight": (16, WIDTH), f"{layer}.intermediate.dense.bias": (16,),
                   f"{layer}.output.dense.weight": (WIDTH, 16), f"{layer}.output.dense.bias": (WIDTH,)}
        for module in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{layer}.{module}.weight": (WIDTH,), f"{layer}.{module}.bias": (WIDTH,)}
    return {f"bert.{name}": np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}


def model(folder: pathlib.Path, tensors: dict[str, np.ndarray] | None = None) -> Use:
    """A folder of transformers, and loading it."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    if tensors is not None:
        (folder / "model.safetensors").write_bytes(save(tensors))
    return lambda: spanbert_jax.from_pretrained(folder)


def any_bytes(content: bytes, chance: random.Random) -> bytes:
    """Flips bits, cuts, repeats, or replaces a few bytes of a file."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 5, 50))):
        place = chance.randrange(len(changed))
        changed[place:place + chance.choice((1, 1, 4, 8))] = chance.choice(
            (bytes([changed[place] ^ 1 << chance.randrange(8)]), b"", b"\xff" * 8, chance.randbytes(4), b"9" * 9))
    return bytes(changed[:chance.choice((len(changed), len(changed), chance.randrange(1, len(changed))))])


def header(entries: dict[str, object], numbers: int = 0, size: int | None = None) -> bytes:
    """A safetensors file with a header of our own, which may state another size."""
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + bytes(numbers)


def safetensors_headers(folder: pathlib.Path, chance: random.Random) -> Use:
    """Layers, tensors, names, axes and sizes that no model has."""
    f4 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    layer = "bert.encoder.layer.{}.output.dense.weight"
    many = {layer.format(number): np.zeros((1, 1), np.float32) for number in range(chance.choice((1500, 30_000)))}
    content = chance.choice((
        lambda: save(bert() | {layer.format(999_999_999): np.zeros((WIDTH, 16), np.float32)}),
        lambda: save(bert() | {layer.format("9" * 5000): np.zeros((WIDTH, 16), np.float32)}),
        lambda: save(bert() | many),
        lambda: save(bert() | {"\x1b]0;x\x07" * 20 + layer.format(0): np.zeros(1, np.float32)}),
        lambda: save(bert() | {f"x{number}": np.zeros(0, np.float32) for number in range(110_000)}),
        lambda: save(bert() | {"x" * 10**6: np.zeros(1, np.float32)}),
        lambda: save(bert() | {"bert.embeddings.word_embeddings.weight": np.zeros((10**12, 0), np.float32)}),
        lambda: save({**bert(), "classifier.weight": np.zeros((10**9, 0), np.float32)}),
        lambda: save(bert() | {"bert.embeddings.word_embeddings.weight": np.zeros((1,) * 60, np.float32)}),
        lambda: save({"bert.embeddings.word_embeddings.weight": np.zeros((1, 10**6), np.float32)}),
        lambda: header({"a": f4}, 4, size=2**62), lambda: header({"a": f4}, 4, size=2**33),
        lambda: header({"a": f4 | {"shape": [2**62, 2**62]}}, 4), lambda: header({"a": f4 | {"shape": [-1]}}, 4),
        lambda: header({"a": f4 | {"data_offsets": [0, 2**63]}}, 4), lambda: header({"a": ["F32", [1], [0, 4]]}, 4),
        lambda: header({"a": f4 | {"dtype": "F4", "shape": [8]}}, 4), lambda: header({"a": []}, 4),
        lambda: struct.pack("<Q", 10**7) + b"[" * 10**7))()
    use = model(folder)
    (folder / chance.choice(("model.safetensors", "params.safetensors"))).write_bytes(content)
    return use


def modern_bert() -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """The config and the tensors of a small ModernBERT."""
    shapes = {"embeddings.tok_embeddings": (VOCABULARY, WIDTH), "embeddings.norm": (WIDTH,), "final_norm": (WIDTH,),
              "layers.1.attn_norm": (WIDTH,)}
    for layer in ("layers.0", "layers.1"):
        shapes |= {f"{layer}.attn.Wqkv": (3 * WIDTH, WIDTH), f"{layer}.attn.Wo": (WIDTH, WIDTH),
                   f"{layer}.mlp_norm": (WIDTH,), f"{layer}.mlp.Wi": (32, WIDTH), f"{layer}.mlp.Wo": (WIDTH, 16)}
    config = {"model_type": "modernbert", "num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": WIDTH,
              "intermediate_size": 16, "max_position_embeddings": 16, "local_attention": 8, "norm_bias": False,
              "global_attn_every_n_layers": 3, "rope_parameters": None, "layer_types": None, "rope_scaling": None}
    return config, {f"model.{name}.weight": np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}


def gpt2() -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """The config and the tensors of a small GPT-2."""
    shapes = {"wte.weight": (VOCABULARY, WIDTH), "wpe.weight": (16, WIDTH), "ln_f.weight": (WIDTH,),
              "ln_f.bias": (WIDTH,)}
    for module, (rows, columns) in {"attn.c_attn": (WIDTH, 3 * WIDTH), "attn.c_proj": (WIDTH, WIDTH),
                                    "mlp.c_fc": (WIDTH, 32), "mlp.c_proj": (32, WIDTH)}.items():
        shapes |= {f"h.0.{module}.weight": (rows, columns), f"h.0.{module}.bias": (columns,)}
    for module in ("ln_1", "ln_2"):
        shapes |= {f"h.0.{module}.weight": (WIDTH,), f"h.0.{module}.bias": (WIDTH,)}
    config = {"model_type": "gpt2", "n_layer": 1, "n_embd": WIDTH, "n_head": 2, "n_positions": 16, "n_inner": None,
              "vocab_size": VOCABULARY, "activation_function": "gelu_new", "resid_pdrop": 0.1}
    return config, {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}


def odd_tensors(tensors: dict[str, np.ndarray], chance: random.Random) -> bytes:
    """A file of tensors of which some have another shape, type, name or layer, are missing, or are not numbers."""
    changed = dict(tensors)
    for name in chance.sample(list(changed), chance.choice((0, 1, 1, 4))):
        value = changed.pop(name)
        strange = chance.choice((
            {}, {name: value.reshape(-1)}, {name: value[:0]}, {name: value.astype(np.int8)}, {name: value * np.nan},
            {name: np.zeros((1,) * 40, np.float32)}, {name: np.zeros((10**9, 0), np.float32)},
            {name.replace("0", "999999999"): value}, {name.replace("0", "9" * 4000): value}, {f"{name}\x1b[2J": value},
            {name: np.concatenate([value, value])}, {name: value.astype(np.float16)}))
        changed |= strange
    return any_bytes(save(changed), chance) if chance.random() < 0.2 else save(changed)


def other_architectures(folder: pathlib.Path, chance: random.Random) -> Use:
    """A ModernBERT, or a GPT-2 that is to be a decoder, with odd tensors or an odd config."""
    kind = chance.choice((modern_bert, gpt2))
    config, tensors = kind()
    odd = chance.random() < 0.5
    (folder / "config.json").write_bytes(odd_json(config, chance) if odd else json.dumps(config).encode())
    (folder / "model.safetensors").write_bytes(save(tensors) if odd else odd_tensors(tensors, chance))
    if kind is modern_bert:
        return lambda: spanbert_jax.from_pretrained(folder)
    return lambda: read_decoder(folder)


def read_decoder(folder: pathlib.Path) -> None:
    """Reads every tensor of a decoder."""
    _, tensors, _ = open_decoder(folder, WIDTH)
    for name in tensors.shapes:
        tensors.read(name)


@functools.cache
def own_tensors() -> dict[str, np.ndarray]:
    """The tensors of a small BERT in our own layout."""
    with tempfile.TemporaryDirectory() as folder:
        _, params = model(pathlib.Path(folder), bert())()
    return {name: np.asarray(value) for name, value in flax.traverse_util.flatten_dict(params, sep="/").items()}


def own_files(folder: pathlib.Path, chance: random.Random) -> Use:
    """A file in our own layout, with odd tensors."""
    use = model(folder)
    (folder / "params.safetensors").write_bytes(odd_tensors(own_tensors(), chance))
    return use


def own_layers(folder: pathlib.Path, chance: random.Random) -> Use:
    """Stacked layers of our own format: as many as the leading axis says."""
    name = chance.choice(("encoder/layers/attention/query/kernel", "layers/x", "encoder/layers", "a/b/c", "\x1b[31m/x"))
    (folder / "params.safetensors").write_bytes(save({
        name: np.zeros(chance.choice(((10**9, 0, 0), (5000, 1, 1), (), (0,))), np.float32)}))
    return lambda: spanbert_jax.from_pretrained(folder)


class Call:
    """Pickled, it asks for a call."""

    def __init__(self, function, *arguments):
        self.asked = function, arguments

    def __reduce__(self):
        return self.asked


def tensor_pickle(count=12, offset=0, shape=(3, 4), strides=(4, 1), names=1, more: bytes = b"") -> bytes:
    """A pickle of tensors over one storage, by hand: `more` are instructions before it."""
    text = lambda value: b"X" + len(value).to_bytes(4, "little") + value.encode()  # noqa: E731
    number = lambda value: pickle.dumps(value, 2)[2:-1]  # noqa: E731
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(count) + b"tQ"
    tensor = (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + number(shape) + number(strides)
              + b"\x89ccollections\nOrderedDict\n)RtR")
    return b"\x80\x02" + more + b"}(" + b"".join(text(f"t{name}") + tensor for name in range(names)) + b"u."


def torch_pickles(folder: pathlib.Path, chance: random.Random) -> Use:
    """Pickles that ask for code, and tensors, instructions and members that no file of weights has."""
    use = model(folder)
    call = chance.choice((Call(os.mkdir, str(folder / MARKER)), Call(eval, f"__import__('os').mkdir('{MARKER}')"),
                          Call(os.system, f"touch {folder / MARKER}")))
    pickled = chance.choice((
        lambda: pickle.dumps({"a": call}, chance.choice((0, 2, 4))), lambda: tensor_pickle(shape=(10**9, 10**9)),
        lambda: tensor_pickle(shape=(10**6, 10**6), strides=(0, 0)), lambda: tensor_pickle(count=2**61),
        lambda: tensor_pickle(names=30_000), lambda: tensor_pickle(shape=(1,) * 500, strides=(1,) * 500),
        lambda: tensor_pickle(more=b"]0" * 900_000), lambda: tensor_pickle(more=b"]0" * 5_000_000),
        lambda: tensor_pickle(more=b"\x8f0" * 450_000), lambda: tensor_pickle(more=b"(" * 900_000 + b"1" * 900_000),
        lambda: tensor_pickle(more=b"N\x72\xff\xff\xff\x7f0"), lambda: tensor_pickle(more=b"\x8e" + b"\xff" * 8),
        lambda: tensor_pickle(more=b"\x8b\x40\x42\x0f\x00" + b"\x7f" * 10**6 + b"0"),
        lambda: tensor_pickle(more=b"]" + b"]a" * 100_000 + b"0"), lambda: tensor_pickle(offset=2**4000),
        lambda: tensor_pickle(strides=(2**62, -1)), lambda: any_bytes(tensor_pickle(), chance)))()
    name = chance.choice(("pytorch_model.bin", "model.pt"))
    if chance.random() < 0.3:
        heads = [0x1950a86a20f9469cfc6c, 1001, {"little_endian": True}]
        (folder / name).write_bytes(b"".join(pickle.dumps(head, 2) for head in heads) + pickled
                                    + pickle.dumps(["0"], 2) + struct.pack("<q", 12) + bytes(48))
        return use
    members = {"data.pkl": pickled, "data/0": bytes(48), "version": b"3"}
    kind = chance.randrange(6)
    if kind == 0:
        members |= {"code/__torch__.py": b"import os", "constants.pkl": pickled}
    if kind == 1:
        members |= {f"data/{number}": b"" for number in range(chance.choice((2000, 20_000)))}
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED if kind == 2 else zipfile.ZIP_STORED) as archive:
        for member, content in members.items():
            archive.writestr(f"archive/{member}", bytes(10**8) if kind == 2 and member == "data/0" else content)
    return use


def msgpack(chance: random.Random) -> bytes:
    """A tree of maps in MessagePack that is deep, wide, or whose lengths lie."""
    array = b"\xc7\x11\x01\x93\x91\x01\xa7float32\xc4\x04" + bytes(4)
    return chance.choice((
        lambda: b"\x81\xa1a" * 100_000 + array, lambda: b"\xdf\xff\xff\xff\xff", lambda: b"\xdd\xff\xff\xff\xff",
        lambda: b"\xdf\x00\x7f\xff\xff" + b"\xa1a\x80" * 3_000_000, lambda: b"\x80" * 10**6,
        lambda: b"\x81\xa1a\xc9\xff\xff\xff\xff\x01\x93\x91\x01", lambda: b"\x81\xdb\xff\xff\xff\xff" + b"a" * 10**6,
        lambda: b"\x81\xa1a" + array.replace(b"float32", b"objects"), lambda: b"\x81\xa1a" + array[:-1],
        lambda: b"\x81\xa1a" + array.replace(b"\x91\x01", b"\x91\x02"), lambda: b"\x81\xa9__msgpack" + array,
        lambda: b"\x82\xb9__msgpack_chunked_array__\xc3\xa5shape\x81\xa10\xcf" + b"\xff" * 8 + b"\xa6chunks\x80",
        lambda: b"\x81\xa8\x1b]0;x\x07\x1b[" + array, lambda: any_bytes(b"\x81\xa1a" + array, chance)))()


def flax_trees(folder: pathlib.Path, chance: random.Random) -> Use:
    """See `msgpack`."""
    use = model(folder)
    (folder / "flax_model.msgpack").write_bytes(msgpack(chance))
    return use


def member(name: str, size: int = 0, **fields: object) -> tarfile.TarInfo:
    """A member of an archive."""
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def archives(folder: pathlib.Path, chance: random.Random) -> Use:
    """Bombs, links, devices, and paths that lead elsewhere."""
    path = folder / chance.choice(("model.tar.gz", "model.tgz", "model.tar"))
    zeros, outside = chance.choice((10**7, 10**8)), f"../../../{MARKER}"
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        kind = chance.randrange(9)
        if kind == 0:
            archive.addfile(member("model.safetensors", zeros), io.BytesIO(bytes(zeros)))
        elif kind == 1:
            archive.addfile(member("notes", zeros), io.BytesIO(bytes(zeros)))
        elif kind == 2:
            for number in range(20_000):
                archive.addfile(member(f"{number}/config.json"))
        elif kind == 3:
            for name, linked in (("model.safetensors", "/etc/passwd"), ("vocab.txt", outside), ("x", "/")):
                archive.addfile(member(name, type=chance.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)), linkname=linked))
            archive.addfile(member("x/config.json", 2), io.BytesIO(b"{}"))
        elif kind == 4:
            for name in (outside, f"/{MARKER}/config.json", f"{outside}/config.json", "..", "", ".config.json"):
                archive.addfile(member(name or "/", 2), io.BytesIO(b"{}"))
        elif kind == 5:
            archive.addfile(member("config.json", type=chance.choice((tarfile.FIFOTYPE, tarfile.CHRTYPE)), devmajor=1))
        elif kind == 6:
            archive.addfile(member("config.json", pax_headers={"comment": "x" * zeros}))
        elif kind == 7:
            archive.addfile(member("model.safetensors", 1024, pax_headers={
                "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "model.safetensors",
                "GNU.sparse.realsize": str(3 * 10**9)}), io.BytesIO(b"1\n0\n512\n".ljust(1024, b"\0")))
        else:
            for name in ("a/config.json", "b/config.json"):
                archive.addfile(member(name, 2), io.BytesIO(b"{}"))
    content = raw.getvalue()
    content = content if path.suffix == ".tar" else gzip.compress(content, 1)
    path.write_bytes(any_bytes(content, chance) if chance.random() < 0.2 else content)
    return lambda: spanbert_jax.from_pretrained(path)


def model_json(folder: pathlib.Path, chance: random.Random) -> Use:
    """A JSON file of a model's folder."""
    use = model(folder, bert())
    name, value = chance.choice((("config.json", CONFIG), ("task.json", TASK),
                                 ("model.safetensors.index.json", {"weight_map": {"a": "model.safetensors"}})))
    if name.endswith("index.json"):
        (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / name).write_bytes(odd_json(value, chance))
    return (lambda: read_task(folder)) if name == "task.json" else use


def flipped(folder: pathlib.Path, chance: random.Random) -> Use:
    """Changed bytes in sound weights."""
    use = model(folder, bert())
    file = folder / chance.choice(("config.json", "model.safetensors"))
    file.write_bytes(any_bytes(file.read_bytes(), chance))
    return use


ATTACKS = (safetensors_headers, own_layers, torch_pickles, flax_trees, archives, model_json, run_json, lock_files,
           flipped, other_architectures, own_files, workdirs)


def attack(folder: pathlib.Path, number: int) -> dict[str, object]:
    """Makes and uses an artefact in an empty folder. Returns what happened, with its time and its size on disk."""
    kind, chance = ATTACKS[number % len(ATTACKS)], random.Random(number)
    place = folder / "a" / "b" / "c"
    place.mkdir(parents=True)
    use = kind(place, chance)
    before = {path: path.lstat().st_size for path in folder.rglob("*") if path.is_file()}
    found: dict[str, object] = {"number": number, "kind": kind.__name__, "error": None, "bug": None}
    began = time.monotonic()
    try:
        use()
    except UserError as error:
        found["error"] = str(error)
    except Exception:
        found["bug"] = traceback.format_exc()
    after = {path: path.lstat().st_size for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    return found | {
        "seconds": time.monotonic() - began, "size": sum(before.values()),
        "left": sum(size for path, size in after.items() if path not in before),
        "elsewhere": [str(path) for path in folder.rglob("*") if path.name == MARKER or (
            path not in before and path.is_file() and place not in path.parents
            and folder / "cache" not in path.parents)]}


if __name__ == "__main__":
    spanbert_jax.from_pretrained  # noqa: B018  # imported before memory is measured
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # JAX reserves addresses generously
    top = pathlib.Path(sys.argv[1])
    for which in range(int(sys.argv[2]), int(sys.argv[3])):
        here = top / str(which)
        os.environ["XDG_CACHE_HOME"] = str(here / "cache")
        here.mkdir()
        os.chdir(here)
        line = attack(here, which)
        print(json.dumps(line | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10}), flush=True)
