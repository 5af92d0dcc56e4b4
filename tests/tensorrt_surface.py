"""What the real TensorRT libraries and CUDA's runtime offer, and fakes of them that may do no more and no less.

No GPU is needed. A test writes plain objects that do what it wants of a library, and hands them to the code under test inside
`strict`, which refuses whatever the real class would refuse:

    trt = real("tensorrt_rtx")
    engine = strict(surface(trt.ICudaEngine), FakeEngine())
    library = strict(surface(trt), SimpleNamespace(Runtime=FakeRuntime))
    driver = strict(surface(real("cuda.bindings.runtime")), FakeDriver())
"""

from __future__ import annotations

import inspect
import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, Signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TENSORRTS = ("tensorrt_rtx", "tensorrt")

# The symbols of TensorRT's libraries that its bindings refer to.
_ENTRY_POINTS = rb"create\w+_INTERNAL|get(?:Builder)?PluginRegistry|getNvOnnxParserVersion|initLibNvInferPlugins"


@cache
def real(library: str) -> ModuleType:
    """`tensorrt_rtx`, `tensorrt` (its bindings, which can create nothing) or `cuda.bindings.runtime`."""
    return _tensorrt_bindings() if library == "tensorrt" else import_module(library)


def _tensorrt_bindings() -> ModuleType:
    """The module `tensorrt_bindings`: a copy that does not ask for TensorRT's libraries, which are gigabytes."""
    if sys.platform != "linux":
        pytest.skip("TensorRT's bindings can be loaded without its libraries on Linux only")
    installed = find_spec("tensorrt_bindings")
    assert installed is not None, "tensorrt-cu13-bindings is not installed: pip install -e '.[dev]'"
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        copy = Path(folder) / "tensorrt_without_libraries"
        shutil.copytree(Path(str(installed.origin)).parent, copy)
        _unlink(copy / "tensorrt.so")
        patch.setitem(sys.modules, "tensorrt_libs", None)  # the bindings would load them where they are installed
        patch.syspath_prepend(folder)
        return import_module(copy.name)


def _unlink(binary: Path) -> None:
    """Has an ELF file ask libc for what it wants of libnv*.so: sched_yield() takes nothing and returns 0, a null pointer."""
    content = binary.read_bytes()
    for pattern, name in ((rb"libnv\w+\.so\.\d+", b"libc.so.6"), (_ENTRY_POINTS, b"sched_yield")):
        content = re.sub(rb"(?<=\0)(?:%b)(?=\0)" % pattern, lambda found, name=name: name.ljust(len(found[0]), b"\0"), content)
    binary.write_bytes(content)


@dataclass(frozen=True)
class Property:
    """How a property may be used."""

    readable: bool
    settable: bool


@dataclass(frozen=True)
class Function:
    """How a function or method may be called: one signature for each overload, without self."""

    overloads: tuple[Signature, ...]
    results: int | None = None
    """The length of the tuple it returns, for those that say so."""

    def refusal(self, *args: Any, **kwargs: Any) -> str | None:
        """Why it cannot be called so; None if it can."""
        refusals = []
        for overload in self.overloads:
            try:
                overload.bind(*args, **kwargs)
            except TypeError as reason:
                refusals.append(f"{reason} for {_plain(overload)}")
            else:
                return None
        return "; ".join(refusals)


@dataclass(frozen=True)
class Surface:
    """The public members of a class or module; a class that can be constructed has the function `__init__`."""

    name: str
    functions: dict[str, Function] = field(default_factory=dict)
    properties: dict[str, Property] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    """The real ones: members of enums, nested classes; of a module also classes, numbers and functions written in Python."""


@cache
def surface(of: type | ModuleType) -> Surface:
    """The surface of a class that pybind11 made, or of a module made by pybind11 or Cython."""
    described = Surface(of.__name__ if inspect.ismodule(of) else f"{of.__module__.rpartition('.')[2]}.{of.__name__}")
    for name in dir(of):
        if name.startswith("_") and name not in ("__init__", "__version__"):
            continue
        member = getattr(of, name)
        if isinstance(member, property):
            described.properties[name] = Property(member.fget is not None, member.fset is not None)
        elif callable(member) and not inspect.isclass(member) and not inspect.isfunction(member):
            if (function := _function(of, name)) is not None:
                described.functions[name] = function
        else:
            described.constants[name] = member
    return described


def enumeration(enum: Any) -> dict[str, int]:
    """The members of an enum of any of the libraries, and their values."""
    return {name: int(member) for name, member in enum.__members__.items()}


def _function(of: type | ModuleType, name: str) -> Function | None:
    """None if it does not tell its arguments, as the `__init__` of a class that cannot be constructed does not."""
    function = getattr(of, name)
    documentation = function.__doc__ or ""
    if hasattr(function, "__code__"):  # Cython's
        return Function((inspect.signature(function),), _results(documentation))
    told = re.findall(rf"^(?:\d+\. )?{name}\((.*)\)(?: -> .*)?$", documentation, re.MULTILINE)
    overloads = told[1:] if "\nOverloaded function.\n" in documentation else told[:1]
    bound = inspect.isclass(of) and not isinstance(inspect.getattr_static(of, name), staticmethod)
    return Function(tuple(_signature(arguments, bound) for arguments in overloads)) if overloads else None


def _signature(arguments: str, bound: bool) -> Signature:
    """The signature that pybind11 writes as `self: Class, size: int = 3`."""
    nested = r"<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)|\{[^{}]*\}|'[^']*'"
    while arguments != (flat := re.sub(nested, "", arguments)):
        arguments = flat
    given = arguments.split(", ")[bound:] if arguments else []
    required = max((place for place, argument in enumerate(given, 1) if "=" not in argument), default=0)
    return Signature([_parameter(argument, place > required) for place, argument in enumerate(given, 1)])


def _parameter(argument: str, optional: bool) -> Parameter:
    """One of them. An argument without a name is called arg0 and so on, and cannot be given by name."""
    name = argument.partition(":")[0]
    nameless = re.fullmatch(r"arg\d+", name) or keyword.iskeyword(name)
    kind = Parameter.POSITIONAL_ONLY if nameless else Parameter.POSITIONAL_OR_KEYWORD
    return Parameter(name + "_" * keyword.iskeyword(name), kind, default=... if optional else Parameter.empty)


def _results(documentation: str) -> int | None:
    """How many entries the section "Returns" has, in numpy's style."""
    section = re.search(r"^( *)Returns\n\1-+\n((?:\1.+\n)+)", documentation + "\n", re.MULTILINE)
    return len(re.findall(rf"^{section[1]}\S", section[2], re.MULTILINE)) if section else None


def strict(original: Surface, fake: Any) -> Any:
    """`fake`, with the members of the real one and no others, which must be called and set as the real ones are.

    What the fake lacks is refused when it is used, except for constants, which are the real ones. Attributes that the real one
    lacks are the fake's own business; its methods must be the real ones' or private. The fake of a module may have classes for
    some of the real ones: what they construct is strict as well.
    """
    if found := mismatches(original, fake):
        raise TypeError(f"{type(fake).__name__} is not like {original.name}: " + "; ".join(found))
    return _Strict(original, fake)


def mismatches(original: Surface, fake: Any) -> list[str]:
    """Where the public methods of `fake` are not the real ones."""
    names = [name for name in dir(fake) if not name.startswith("_") and callable(inspect.getattr_static(fake, name))]
    return [mismatch for name in names if (mismatch := _mismatch(original, name, getattr(fake, name)))]


def _mismatch(original: Surface, name: str, fake: Callable[..., Any]) -> str | None:
    theirs = original.functions.get(name)
    if inspect.isclass(original.constants.get(name)):
        theirs = surface(original.constants[name]).functions.get("__init__")
    if theirs is None:
        return f"it has no function {name}"
    ours = inspect.signature(fake)
    kinds = {parameter.kind for parameter in ours.parameters.values()}
    if kinds >= {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD} or any(_alike(ours, each) for each in theirs.overloads):
        return None
    return f"{name}{_plain(ours)} should be {name}" + " or ".join(map(_plain, theirs.overloads))


def _alike(ours: Signature, theirs: Signature) -> bool:
    pairs = zip(ours.parameters.values(), theirs.parameters.values(), strict=False)
    return len(ours.parameters) == len(theirs.parameters) and all(
        (our.default is Parameter.empty) == (their.default is Parameter.empty)
        and (our.name == their.name or their.kind is Parameter.POSITIONAL_ONLY)
        for our, their in pairs
    )


def _plain(signature: Signature) -> str:
    """Names only: `(name, strategy=...)`."""
    parameters = [
        each.replace(annotation=Parameter.empty, default=each.empty if each.default is each.empty else ...)
        for each in signature.parameters.values()
    ]
    return str(Signature(parameters)).replace("Ellipsis", "...")


class _Strict:
    """See `strict`."""

    __slots__ = ("_fake", "_original")

    def __init__(self, original: Surface, fake: Any) -> None:
        object.__setattr__(self, "_original", original)
        object.__setattr__(self, "_fake", fake)

    def __repr__(self) -> str:
        return f"<strict {self._original.name}: {self._fake!r}>"

    def __getattr__(self, name: str) -> Any:
        original = self._original
        if name in original.functions and name != "__init__":
            return _checked(f"{original.name}.{name}", original.functions[name], self._given(name))
        if name in original.constants:
            return self._constant(name)
        if name not in original.properties:
            raise AttributeError(f"{original.name} has no member {name}")
        if not original.properties[name].readable:
            raise AttributeError(f"{original.name}.{name} can only be set")
        return self._given(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._original.properties:
            raise AttributeError(f"{self._original.name} has no property {name}")
        if not self._original.properties[name].settable:
            raise AttributeError(f"{self._original.name}.{name} is read-only")
        setattr(self._fake, name, value)

    def _given(self, name: str) -> Any:
        try:
            return getattr(self._fake, name)
        except AttributeError as error:  # hasattr() must answer for the real class
            raise NotImplementedError(f"{type(self._fake).__name__} does not fake {self._original.name}.{name}") from error

    def _constant(self, name: str) -> Any:
        constant = self._original.constants[name]
        if not (inspect.isclass(constant) and hasattr(self._fake, name)):
            return constant
        described = surface(constant)
        construct = _checked(described.name, described.functions["__init__"], self._given(name))
        return lambda *args, **kwargs: strict(described, construct(*args, **kwargs))


def _checked(name: str, original: Function, fake: Callable[..., Any]) -> Callable[..., Any]:
    """`fake`, called and returning as the real function."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if refusal := original.refusal(*args, **kwargs):
            raise TypeError(f"{name}: {refusal}")
        result = fake(*args, **kwargs)
        if original.results is not None and not (isinstance(result, tuple) and len(result) == original.results):
            raise TypeError(f"{name} returns a tuple of {original.results}, the fake {result!r}")
        return result

    return call
