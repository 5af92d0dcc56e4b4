"""Before an engine is loaded: does it fit this machine? Answered from sidecars, hashes and headers; nothing is deserialised.

`match`: every engine runs here. `rebuild`: building them again, here, mends it. `refuse`: something else must be mended first.
An engine file is native code, as trustworthy as whoever sent it: what is checked here is that it fits and is whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ...bundle import SAMPLER, Bundle, Manifest, check_target, local, open_without_contents
from ...errors import BackendUnavailable, ConfigError, EngineMismatchError
from ..engines.tensorrt_library import Library, library_of
from .engine_files import build_command, changed, files_of_no_stage, read_checked_sidecar
from .engine_fit import Case, fit, obstacle
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
        BundleError: not a bundle. A file of it that is not whole is an answer: refuse.
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
        are_hashed: its files are known to be what the manifest says.
        machine: to run them.
        is_here: it is this machine.
        library: TensorRT-RTX, if it is not the installed one.
        hashed: what was found of the files that were hashed so far.
    """

    path: Path
    manifest: Manifest
    are_hashed: bool
    machine: Machine
    is_here: bool
    library: Library | None
    hashed: dict[str, Finding | None] = field(default_factory=dict)

    @staticmethod
    def of(bundle: str | Path | Bundle, machine: Machine | None, library: Library | None) -> _Checker:
        """Open the bundle, and describe this machine if none is given."""
        known, is_here = machine or read_machine(), machine is None
        if isinstance(bundle, Bundle):
            return _Checker(bundle.path, bundle.manifest, True, known, is_here, library)
        path = local(bundle)
        return _Checker(path, open_without_contents(path), False, known, is_here, library)

    def check(self, target: str) -> Preflight:
        """Look at every stage, and sum up."""
        engines = self.manifest.engines.get(target, {})
        names = [entry.spec.name for entry in self.manifest.stages] + [SAMPLER] * (SAMPLER in engines)
        stages = {name: self._check_stage(name, target) for name in names if name in engines}
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

    def _check_stage(self, stage: str, target: str) -> Finding:
        """What is wrong with an engine; of several things one that can't be mended here, if there is one."""
        for name in files_of_no_stage(self.manifest):
            if found := self._what_changed(name):
                return found
        sidecar = read_checked_sidecar(self.path, self.manifest, target, stage, self._what_changed)
        if isinstance(sidecar, Finding):
            return self._or_obstacle(sidecar, target)
        found = fit(Case(self.path, target, sidecar, self.machine))
        if found.answer == "match" and target == "tensorrt-rtx" and (self.is_here or self.library is not None):
            return self._ask_library(self.manifest.engines[target][stage]) or found
        return self._or_obstacle(found, target)

    def _what_changed(self, name: str) -> Finding | None:
        if self.are_hashed:
            return None
        if name not in self.hashed:
            self.hashed[name] = changed(self.path, self.manifest, name)
        return self.hashed[name]

    def _or_obstacle(self, found: Finding, target: str) -> Finding:
        """Engines that would be refused once they are rebuilt are refused at once."""
        if found.answer != "rebuild" or (why := obstacle(self.path, target, self.machine)) is None:
            return found
        return Finding("refuse", why.reason, f"{why.sentence}. Then rebuild them: {found.sentence}")

    def _ask_library(self, engine: str) -> Finding | None:
        try:
            return ask_library(self.library or library_of("tensorrt-rtx"), self.path, engine)
        except BackendUnavailable as error:  # it is installed, and broken
            return Finding("refuse", "library missing", str(error))

    def _sum_up(self, target: str, stages: dict[str, Finding]) -> Finding:
        if not stages:
            built = ", ".join(self.manifest.engines) or "none"
            text = f"there are no engines for {target}, only for: {built}; run {build_command(self.path, target)}"
            return self._or_obstacle(Finding("rebuild", "no engines", text), target)
        worst = gravest(stages.values())
        if len(set(stages.values())) == 1:
            return worst
        name = next(name for name, finding in stages.items() if finding == worst)
        return Finding(worst.answer, worst.reason, f'stage "{name}": {worst.sentence}')
