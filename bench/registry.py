"""The methods there are: `@register` puts one in, `find` takes it out, and a name stands for it in YAML.

A registry entry is a class and the defaults it is known under, so one class may carry several names of
the field ("ldam" and "ldam_drw" differ in a default). Hyper-parameters are the keyword arguments of the
class, with their types and defaults; nothing else declares them. What is published of a method of this
project stands in `bench.facts`; any other one says it where it is registered.
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
_entries: dict[str, Entry] = {}


@dataclass(frozen=True, kw_only=True)
class Entry(Facts):
    """A method as the field knows it: what to build, and where it comes from.

    `version` rises when a change makes old numbers incomparable; `reconstruction` marks a method whose
    authors published no code and whose details are ours; `golden` says that its loss is tested against
    values of the authors' own code; `pretrained` that it starts from weights trained on other data.
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
        """The hash of its source as it was registered; None for this project's, which have `version`."""
        return None if self.name in built_in() else _hash_of(self.build)

    @property
    def summary(self) -> str:
        """The first sentence of the class's docstring."""
        return (inspect.getdoc(self.build) or "").split("\n\n")[0].replace("\n", " ")

    @cached_property
    def hyperparameters(self) -> type[BaseModel]:
        """A strict model of the keyword arguments: it fills defaults and refuses unknown names.

        A class that hands `**more` to its base has the base's arguments too.
        """
        defaults, fields = dict(self.defaults), dict[str, Any]()
        for owner in self.build.__mro__:
            if "__init__" not in vars(owner):
                continue
            build = vars(owner)["__init__"]
            parameters, hints = inspect.signature(build).parameters.values(), typing.get_type_hints(build)
            for p in parameters:
                if p.kind is p.KEYWORD_ONLY:
                    fields.setdefault(p.name, (hints[p.name], defaults.get(p.name, p.default)))
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
        config = ConfigDict(extra="forbid", strict=True, validate_default=True)
        return create_model(self.name, __config__=config, **fields)

    @property
    def arguments(self) -> dict[str, str]:
        """What the docstrings of the class and its bases say of each keyword argument."""
        found: dict[str, str] = {}
        for owner in reversed(self.build.__mro__):
            listed = inspect.cleandoc(vars(owner).get("__doc__") or "").partition("\nArgs:\n")[2]
            own = re.split(r"\n(?=\S)", listed)[0]  # without the sections that follow
            for names, text in re.findall(r"^ {4}([\w, ]+): (.+(?:\n {8}.+)*)", own, re.MULTILINE):
                found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
        return found

    def choose(self, **params: Any) -> MethodChoice:
        """Check hyper-parameters, and write out all of them.

        Raises:
            pydantic.ValidationError: an unknown name or a wrong type.
        """
        return self.choice(self.hyperparameters(**params))

    def choice(self, given: BaseModel) -> MethodChoice:
        """Write out checked hyper-parameters, and name those that are not the defaults."""
        values = _plain(given)
        changed = tuple(sorted(name for name in values if values[name] != self.unchanged[name]))
        return MethodChoice(name=self.name, version=self.version, params=values, changed=changed)

    @cached_property
    def unchanged(self) -> dict[str, Any]:
        """The hyper-parameters as they are where nothing is said of them.

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
    """Enter a method class under `name`; keywords that are not `Entry` fields are its defaults.

    A method of this project has its title, family, venue, year and paper in `bench.facts`; any other one
    gives them here, title and family at least.
    """

    def enter(build: _M) -> _M:
        known = {key: more.pop(key) for key in list(more) if key in Entry.__dataclass_fields__}
        if name in _entries:
            there = _file_of(_entries[name].build)
            raise BenchError(
                f"{_file_of(build)}: method {name!r} is there already, in {there}; rename this one"
            )
        facts = _facts(name, Facts(title, family, venue, year, paper), build)
        entry = Entry(**vars(facts), name=name, build=build, defaults=tuple(more.items()), **known)
        fields = entry.hyperparameters.model_fields
        for key in more:
            if key not in fields:
                raise BenchError(f"{build.__module__}: {name!r} has no hyper-parameter {key!r}")
        for key, field in fields.items():
            if field.default is inspect.Parameter.empty:
                raise BenchError(f"{build.__module__}: {name!r}: hyper-parameter {key!r} needs a default")
        _entries[name] = entry
        _ = entry.source  # now, as its file may change while it is in use
        return build

    return enter


def _facts(name: str, said: Facts, build: type) -> Facts:
    """Look up what is known of a method of this project, or take what is said of another one."""
    known = built_in().get(name)
    if known is not None and said == Facts("", ""):
        return known
    if known is not None:
        raise BenchError(
            f"{_file_of(build)}: {name!r} is a method of this project, described in methods/{FILE.name}; "
            "rename yours"
        )
    if not (said.title and said.family):
        raise BenchError(
            f"{_file_of(build)}: {name!r} needs title= and family=, or a row in methods/{FILE.name}"
        )
    return said


def _file_of(build: type) -> str:
    return getattr(sys.modules.get(build.__module__), "__file__", None) or build.__module__


def methods() -> dict[str, Entry]:
    """Return every registered method by name: this project's, and those of installed plug-ins."""
    import methods as package

    _import_all(tuple(package.__path__))
    return dict(sorted(_entries.items()))


@cache  # a recipe of hundreds of cells asks for each
def _import_all(folders: tuple[str, ...]) -> None:
    for module in pkgutil.iter_modules(folders):
        importlib.import_module(f"methods.{module.name}")
    _import_plug_ins()


def _import_plug_ins() -> None:
    for point in importlib.metadata.entry_points(group="longtail_bench.methods"):
        point.load()


def described(files: Iterable[Path] = ()) -> dict[str, Facts]:
    """Return what is known of each method by name, importing only what is not of this project.

    Args:
        files: a user's own method files.
    """
    load_files(files)
    _import_plug_ins()
    return dict(sorted({**built_in(), **_entries}.items()))


def find(name: str) -> Entry:
    """Return the entry of one method; the error for an unknown name has the nearest one."""
    known = methods()
    if name not in known:
        raise BenchError(f"unknown method {name!r}{did_you_mean(name, known)}")
    return known[name]


def sources() -> dict[str, str]:
    """Return by name the hash of the source of each method that is not of this project, as it is now."""
    found = {name: _hash_of(entry.build) for name, entry in methods().items() if name not in built_in()}
    return {name: source for name, source in found.items() if source is not None}


def _hash_of(build: type) -> str | None:
    """Hash the files of a class and of its bases that are not of this project; None where there is none."""
    modules = dict.fromkeys(owner.__module__ for owner in build.__mro__)
    known = {"bench", "methods", "torch", *sys.stdlib_module_names}
    own = [name for name in modules if name.partition(".")[0] not in known and name in sys.modules]
    files = [file for file in (getattr(sys.modules[name], "__file__", None) for name in own) if file]
    if not files:
        return None
    parts = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def load_files(files: Iterable[Path]) -> None:
    """Import a user's own method files, so that what they register can be named in a recipe."""
    files = list(files)
    if files:
        methods()  # first, so that of two methods of one name the error is about the user's
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
