"""Export formats. A format is one file with

    LIBRARY             the package that runs the export, for comparison
    TOLERANCE           allowed difference of its outputs, relative to the largest output or to 1 if that is more
    write(folder, model, params, tokenizer)
                        writes the files; raises UserError if a package that it needs is missing
    run(folder, model, inputs)
                        outputs of the export by the names of `model.Outputs`; raises ImportError if LIBRARY is missing

and a name in `FORMATS`.
"""
import importlib
from types import ModuleType

FORMATS = ("huggingface", "reference", "tensorflow", "onnx", "stablehlo")


def load_format(name: str) -> ModuleType:
    """The module of a format, one of `FORMATS`. The packages that it needs are imported here."""
    return importlib.import_module(f"{__name__}.{name}")
