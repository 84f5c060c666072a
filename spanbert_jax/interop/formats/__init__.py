"""What a network can be written as. A format is one file with

    LIBRARY             the package that runs what was written, for comparison
    TOLERANCE           how far its outputs may be from ours, as a share of the largest of them (of 1 if they are small)
    write(folder, model, params, tokenizer)
                        writes the files; raises UserError where a package that it needs is missing
    run(folder, model, inputs)
                        the written network's outputs under the names of `model.Outputs`; raises ImportError where the
                        package is missing

and a name here.
"""
from __future__ import annotations

import importlib
from types import ModuleType

FORMATS = ("huggingface", "reference", "tensorflow", "onnx", "stablehlo")


def load_format(name: str) -> ModuleType:
    """The module of a format, one of `FORMATS`; what it needs is imported only then."""
    return importlib.import_module(f"{__name__}.{name}")
