"""Before an engine is loaded: does it fit this machine? Answered from sidecars, hashes and headers; nothing is deserialised.

`match`: every engine runs here. `rebuild`: building them again, here, mends it. `refuse`: something else must be mended first.
An engine file is native code, as trustworthy as whoever sent it: what is checked here is that it fits and is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...bundle import Bundle, Manifest, StageEntry, check_target, open_all_but_engines
from ...errors import BackendUnavailable, ConfigError, EngineMismatchError
from ..engines.tensorrt_library import Library, library_of
from .engine_files import build_command, read_checked_sidecar
from .engine_fit import Case, fit
from .findings import Answer, Finding, Reason, gravest
from .machine import Machine, read_machine
from .validity import ask_library


class Preflight(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a target's engines: one answer with one sentence, and the finding of each stage, in dataflow order."""

    bundle: str
    target: str
    machine: Machine
    answer: Answer
    reason: Reason
    sentence: str
    stages: dict[str, Finding]

    @property
    def is_unanimous(self) -> bool:
        """Whether the one sentence says it all."""
        return len(set(self.stages.values())) <= 1


def check(
    bundle: str | Path | Bundle, target: str, machine: Machine | None = None, library: Library | None = None
) -> Preflight:
    """Whether the engines of a bundle for one target run on a machine.

    Args:
        bundle: a bundle directory, every file of which is checked, or one that `open_bundle` has checked.
        target: whose engines.
        machine: to run them; None: this one.
        library: TensorRT-RTX, to be asked for its own opinion; None: on this machine the installed one is, else none.

    Raises:
        BundleError: not a bundle, or another file than an engine or a sidecar is not whole.
        ConfigError: an unknown target.
    """
    check_target(target)
    return _Checker.of(bundle, machine, library).check(target)


def check_all(bundle: str | Path | Bundle, machine: Machine | None = None) -> tuple[Preflight, ...]:
    """As `check`, for every target that the bundle has engines for.

    Raises:
        BundleError: as `check`.
        ConfigError: it has no engines.
    """
    checker = _Checker.of(bundle, machine, None)
    if not checker.manifest.engines:
        raise ConfigError(f"{checker.path} has no engines to check; make some, as with {build_command(checker.path, 'cpu')}")
    return tuple(checker.check(target) for target in checker.manifest.engines)


def require_match(bundle: str | Path | Bundle, target: str, machine: Machine | None = None) -> None:
    """As `check`, and let only a match pass.

    Raises:
        EngineMismatchError: the answer is rebuild or refuse.
        BackendUnavailable: it is refuse, as the engine library is not installed.
    """
    found = check(bundle, target, machine)
    if found.reason == "library missing":
        raise BackendUnavailable(f"{found.bundle}, {target}: {found.sentence}")
    if found.answer != "match":
        raise EngineMismatchError(f"{found.bundle}, {target}: {found.sentence}")


@dataclass(frozen=True)
class _Checker:
    """A bundle and a machine.

    Attributes:
        path: of the bundle.
        manifest: of the bundle.
        are_hashed: its engines too are known to be what the manifest says.
        machine: to run them.
        is_here: it is this machine.
        library: TensorRT-RTX, if it is not the installed one.
    """

    path: Path
    manifest: Manifest
    are_hashed: bool
    machine: Machine
    is_here: bool
    library: Library | None

    @staticmethod
    def of(bundle: str | Path | Bundle, machine: Machine | None, library: Library | None) -> _Checker:
        """Open the bundle, and describe this machine if none is given."""
        known, is_here = machine or read_machine(), machine is None
        if isinstance(bundle, Bundle):
            return _Checker(bundle.path, bundle.manifest, True, known, is_here, library)
        return _Checker(Path(bundle), open_all_but_engines(bundle), False, known, is_here, library)

    def check(self, target: str) -> Preflight:
        """Look at every stage, and sum up."""
        is_built = target in self.manifest.engines
        stages = {entry.spec.name: self._check_stage(entry, target) for entry in self.manifest.stages} if is_built else {}
        overall = self._sum_up(target, stages)
        return Preflight(
            bundle=str(self.path),
            target=target,
            machine=self.machine,
            answer=overall.answer,
            reason=overall.reason,
            sentence=overall.sentence,
            stages=stages,
        )

    def _check_stage(self, stage: StageEntry, target: str) -> Finding:
        sidecar = read_checked_sidecar(self.path, self.manifest, target, stage, are_hashed=self.are_hashed)
        if isinstance(sidecar, Finding):
            return sidecar
        found = fit(Case(self.path, target, sidecar, self.machine))
        if found.answer == "match" and target == "tensorrt-rtx" and (self.is_here or self.library is not None):
            return self._ask_library(self.manifest.engines[target][stage.spec.name]) or found
        return found

    def _ask_library(self, engine: str) -> Finding | None:
        try:
            return ask_library(self.library or library_of("tensorrt-rtx"), self.path, engine)
        except BackendUnavailable as error:  # it is installed, and broken
            return Finding("refuse", "library missing", str(error))

    def _sum_up(self, target: str, stages: dict[str, Finding]) -> Finding:
        if not stages:
            built = ", ".join(self.manifest.engines) or "none"
            text = f"there are no engines for {target}, only for: {built}; run {build_command(self.path, target)}"
            return Finding("rebuild", "no engines", text)
        worst = gravest(stages.values())
        if len(set(stages.values())) == 1:
            return worst
        name = next(name for name, finding in stages.items() if finding == worst)
        return Finding(worst.answer, worst.reason, f'stage "{name}": {worst.sentence}')
