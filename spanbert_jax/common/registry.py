"""Registries of named implementations: tasks, masking schemes, attention backends, architectures, trackers."""
import importlib
import importlib.metadata
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from spanbert_jax.common.errors import UserError, suggestion
from spanbert_jax.common.types import check_arguments

T = TypeVar("T")


class Registry(Generic[T]):
    """Implementations of one kind by name.

    They come from this package, from entry points of installed packages (group `spanbert_jax.GROUP`), and from the
    modules in `config.plugins`, which call `register`. The first two are imported when they are first used.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]):
        """Args: kind: for messages, "task"; group: GROUP, "tasks"; builtin: name -> "module:attribute"."""
        self.kind, self.group = kind, f"spanbert_jax.{group}"
        self._builtin, self._registered = dict(builtin), dict[str, T]()

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers an implementation. Raises ValueError if another one has this name."""
        def add(value: T) -> T:
            before = self._registered.get(name, value)
            if name in self._builtin or _definition(before) != _definition(value):
                raise ValueError(f"{self.kind} {name!r} is registered already; choose another name")
            self._registered[name] = value
            return value

        return add

    def names(self) -> tuple[str, ...]:
        """All names: built-in ones first, in their order."""
        return tuple(dict.fromkeys([*self._builtin, *self._registered, *self._entry_points()]))

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    @check_arguments
    def get(self, name: str) -> T:
        """The implementation of a name. Raises UserError if there is none of that name, or it cannot be imported."""
        if name in self._registered:
            return self._registered[name]
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            value = getattr(importlib.import_module(module), attribute)
        elif name in (points := self._entry_points()):
            value = self._load(points[name])
        else:
            raise UserError(f"unknown {self.kind} {name!r}; {suggestion(name, self.names())}allowed: "
                            f"{', '.join(self.names())}; for one of your own, name its module in config.plugins, or "
                            "import it at the top of the config file")
        self._registered[name] = value
        return value

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=self.group)}

    def _load(self, point: importlib.metadata.EntryPoint) -> T:
        try:
            return point.load()
        except Exception as error:  # of the other package, whatever it may be
            raise UserError(f"{self.kind} {point.name!r}: {point.value} of an installed package cannot be imported "
                            f"({' '.join(str(error).split())}); fix or uninstall that package") from error


def _definition(value: Any) -> tuple[Any, Any]:
    """Where a class or function is defined, which stays the same when its module is imported again."""
    name = getattr(value, "__qualname__", "<none>")
    return getattr(value, "__module__", None), value if "<" in name else name


def load_plugins(modules: Sequence[str], folder: pathlib.Path | None = None) -> None:
    """Imports the modules of `config.plugins`, which register what they add.

    Args: folder: of the file that names them, which may come from anywhere: none is imported from there.

    Raises:
      UserError: a module cannot be imported.
    """
    if not isinstance(modules, (list, tuple)):
        raise UserError(f"config.plugins={modules!r}: must be a tuple of names of modules, such as ('my_plugin',)")
    for module in modules:
        if not isinstance(module, str) or not all(part.isidentifier() for part in module.split(".")):
            raise UserError(f"config.plugins={tuple(modules)!r}: {module!r} is not the name of a module; write it as "
                            "an import does, such as 'package.module', and put its folder on PYTHONPATH")
        if folder is not None and _is_inside(module.partition(".")[0], folder):
            raise UserError(f"config.plugins: module {module!r} lies in {folder}, beside the file that names it, and "
                            "could run any code; move it to a folder on PYTHONPATH if you trust it")
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # of the plugin, whatever it may be
            raise UserError(f"config.plugins: module {module!r} cannot be imported ({' '.join(str(error).split())}); "
                            "fix it, or put its folder on PYTHONPATH") from error


def _is_inside(module: str, folder: pathlib.Path) -> bool:
    """Whether a module that is not imported yet would be from a folder."""
    spec = None if module in sys.modules else importlib.util.find_spec(module)
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return any(folder.resolve() in pathlib.Path(place).resolve().parents for place in places if place)
