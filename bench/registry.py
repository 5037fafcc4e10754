"""The registry of methods: `@register` adds one, `find` returns it by its name in YAML.

A registered method is a class with defaults, so that one class may have several names ("ldam" and "ldam_drw"
differ in a default). Hyper-parameters are the keyword arguments of the class, with their types and defaults.
The facts of this project's methods are in `bench.facts`; any other method gives them in `@register`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, create_model

from bench.cell import MethodChoice
from bench.errors import BenchError, did_you_mean
from bench.facts import FILE, Facts, built_in

if TYPE_CHECKING:
    from bench.method import Method

_M = TypeVar("_M", bound="type[Method]")
_specs: dict[str, MethodSpec] = {}


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Facts):
    """A registered method: its class, its defaults and its source.

    Attributes:
        version: rises when a change makes old numbers incomparable.
        reconstruction: the authors published no code, and the details are ours.
        golden: its loss is tested against values of the authors' code.
        pretrained: it starts from weights trained on other data.
    """

    name: str
    build: type[Method]
    version: int = 1
    reconstruction: bool = False
    golden: bool = False
    pretrained: bool = False
    defaults: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def source(self) -> str | None:
        """The hash of its source when registered; None for this project's methods, which have `version`."""
        return None if self.name in built_in() else _hash_of(self.build)

    @property
    def summary(self) -> str:
        """The first sentence of the class's docstring."""
        return (inspect.getdoc(self.build) or "").split("\n\n")[0].replace("\n", " ")

    @cached_property
    def hyperparameters(self) -> type[BaseModel]:
        """A strict model of the keyword arguments, which fills in defaults and refuses unknown names.

        A class that passes `**more` to its base has the base's arguments too.
        """
        defaults, fields = dict(self.defaults), dict[str, Any]()
        for owner in self.build.__mro__:
            if "__init__" not in vars(owner):
                continue
            build = vars(owner)["__init__"]
            parameters, hints = inspect.signature(build).parameters.values(), typing.get_type_hints(build)
            for p in parameters:
                if p.kind is p.KEYWORD_ONLY:
                    if p.name not in hints:
                        where = f"{owner.__module__}: {self.name!r}"
                        raise BenchError(f"{where}: hyper-parameter {p.name!r} needs a type")
                    fields.setdefault(p.name, (hints[p.name], defaults.get(p.name, p.default)))
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
        config = ConfigDict(extra="forbid", strict=True, validate_default=True)
        return create_model(self.name, __config__=config, **fields)

    @property
    def arguments(self) -> dict[str, str]:
        """The descriptions of the keyword arguments in the docstrings of the class and its bases."""
        found: dict[str, str] = {}
        for owner in reversed(self.build.__mro__):
            listed = inspect.cleandoc(vars(owner).get("__doc__") or "").partition("\nArgs:\n")[2]
            own = re.split(r"\n(?=\S)", listed)[0]  # without the sections that follow
            for names, text in re.findall(r"^ {4}([\w, ]+): (.+(?:\n {8}.+)*)", own, re.MULTILINE):
                found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
        return found

    def choose(self, **params: Any) -> MethodChoice:
        """Check hyper-parameters, and fill in the defaults.

        Raises:
            pydantic.ValidationError: an unknown name or a wrong type.
        """
        return self.choice(self.hyperparameters(**params))

    def choice(self, given: BaseModel) -> MethodChoice:
        """Return the choice of checked hyper-parameters, with the names of those that are not defaults."""
        values = _plain(given)
        changed = tuple(sorted(name for name in values if values[name] != self.unchanged[name]))
        return MethodChoice(name=self.name, version=self.version, params=values, changed=changed)

    @cached_property
    def unchanged(self) -> dict[str, Any]:
        """The default hyper-parameters.

        Raises:
            pydantic.ValidationError: one has a wrong type.
        """
        return _plain(self.hyperparameters())


def _plain(values: BaseModel) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.model_dump().items()}


def register(
    name: str,
    *,
    title: str = "",
    family: str = "",
    venue: str = "",
    year: int | None = None,
    paper: str = "",
    **more: Any,
) -> Callable[[_M], _M]:
    """Register a method class as `name`; keywords that are not `MethodSpec` fields are its defaults.

    A method of this project has its title, family, venue, year and paper in `bench.facts`; any other one
    gives them here, at least title and family.

    Raises:
        BenchError: the name is taken, title or family is missing, or a default is not a hyper-parameter.
    """

    def enter(build: _M) -> _M:
        known = {key: more.pop(key) for key in list(more) if key in MethodSpec.__dataclass_fields__}
        if name in _specs:
            other = _file_of(_specs[name].build)
            raise BenchError(
                f"{_file_of(build)}: method {name!r} is there already, in {other}; rename this one"
            )
        facts = _facts(name, Facts(title, family, venue, year, paper), build)
        spec = MethodSpec(**vars(facts), name=name, build=build, defaults=tuple(more.items()), **known)
        fields = spec.hyperparameters.model_fields
        for key in more:
            if key not in fields:
                raise BenchError(f"{build.__module__}: {name!r} has no hyper-parameter {key!r}")
        for key, field in fields.items():
            if field.default is inspect.Parameter.empty:
                raise BenchError(f"{build.__module__}: {name!r}: hyper-parameter {key!r} needs a default")
        _specs[name] = spec
        _ = spec.source  # computed now, as its file may change later
        return build

    return enter


def _facts(name: str, given: Facts, build: type) -> Facts:
    """Return the facts of a method of this project, or those given for another one."""
    known = built_in().get(name)
    if known is not None and given == Facts("", ""):
        return known
    if known is not None:
        raise BenchError(
            f"{_file_of(build)}: {name!r} is a method of this project, described in methods/{FILE.name}; "
            "rename yours"
        )
    if not (given.title and given.family):
        raise BenchError(
            f"{_file_of(build)}: {name!r} needs title= and family=, or a row in methods/{FILE.name}"
        )
    return given


def _file_of(build: type) -> str:
    return getattr(sys.modules.get(build.__module__), "__file__", None) or build.__module__


def methods() -> dict[str, MethodSpec]:
    """Return all registered methods by name: this project's and those of installed plug-ins."""
    import methods as package

    _import_all(tuple(package.__path__))
    return dict(sorted(_specs.items()))


@cache  # a recipe of hundreds of cells asks for each
def _import_all(folders: tuple[str, ...]) -> None:
    for module in pkgutil.iter_modules(folders):
        importlib.import_module(f"methods.{module.name}")
    _import_plug_ins()


def _import_plug_ins() -> None:
    for point in importlib.metadata.entry_points(group="longtail_bench.methods"):
        point.load()


def described(files: Iterable[Path] = ()) -> dict[str, Facts]:
    """Return the facts of each method by name, importing only methods that are not of this project.

    Args:
        files: a user's own method files.
    """
    load_files(files)
    _import_plug_ins()
    return dict(sorted({**built_in(), **_specs}.items()))


def find(name: str) -> MethodSpec:
    """Return a method by name; the error for an unknown one suggests the nearest."""
    known = methods()
    if name not in known:
        raise BenchError(f"unknown method {name!r}{did_you_mean(name, known)}")
    return known[name]


def sources() -> dict[str, str]:
    """Return the current source hash, by name, of each method that is not of this project."""
    found = {name: _hash_of(spec.build) for name, spec in methods().items() if name not in built_in()}
    return {name: source for name, source in found.items() if source is not None}


def _hash_of(build: type) -> str | None:
    """Hash the files of a class and its bases that are not of this project; None if there are none."""
    modules = dict.fromkeys(owner.__module__ for owner in build.__mro__)
    known = {"bench", "methods", "torch", *sys.stdlib_module_names}
    own = [name for name in modules if name.partition(".")[0] not in known and name in sys.modules]
    files = [file for file in (getattr(sys.modules[name], "__file__", None) for name in own) if file]
    if not files:
        return None
    parts = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def load_files(files: Iterable[Path]) -> None:
    """Import a user's own method files, so that recipes can name their methods."""
    files = list(files)
    if files:
        methods()  # first, so that an error about a taken name is about the user's file
    for file in files:
        if not file.is_file():
            raise BenchError(f"{file}: no such methods file")
        folder = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
        module_name = f"user_methods_{file.stem}_{folder}"  # another folder may have a file of this name
        if module_name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None:
            raise BenchError(f"{file}: not a Python file; a methods file ends in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BenchError:
            del sys.modules[module_name]
            raise
        except Exception as error:
            del sys.modules[module_name]
            raise BenchError(f"{file}: {type(error).__name__}: {error}") from error
