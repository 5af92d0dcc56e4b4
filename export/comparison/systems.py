"""The two systems of a comparison: whose engines they run, and that they are of one model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ...bundle import Bundle, open_bundle
from ...calibration.text import Texts, as_texts, read_ids
from ...contract import ClockSpec, StageSpec, clocks_of
from ...errors import ConfigError
from ...runtime.decoder_factory import Engines
from ...runtime.engines.onnxruntime_library import shared_threads
from ...runtime.model import load
from ...runtime.session import Session
from .portable_engines import PORTABLE, portable_engines
from .teacher_forcing import Ids

_SEED = 20211026


@dataclass(frozen=True)
class System:
    """A bundle, and the target whose engines run it; `provider` is for target `cuda`."""

    bundle: Bundle
    target: str
    provider: str | None = None

    def __str__(self) -> str:
        on = f" on {self.provider}" if self.provider else ""
        return f"{self.bundle.path} ({self.bundle.manifest.precision}, {self.target}{on})"

    def opener(self, tokens: int) -> Callable[[], Session]:
        """Load the engines; what comes back opens a session of one sequence on them.

        Raises:
            As `runtime.load`.
        """
        if self.target == PORTABLE:
            engines: Engines = portable_engines(self.bundle)
        else:
            engines = load(self.bundle, self.target, _threads(self.target), self.provider).engines
        return lambda: Session(engines, self.bundle.manifest.model, 1, tokens)


def pair_of(
    bundle: str | Path | Bundle, targets: Sequence[str], other: str | Path | Bundle | None, provider: str | None
) -> tuple[System, System]:
    """The reference, and what is compared with it.

    Raises:
        ConfigError: not two systems, or of different models; a provider, but no target `cuda`.
        BundleError: a bundle is broken.
    """
    if not 1 <= len(targets) <= 2 or (len(targets) == 1 and other is None):
        raise ConfigError(
            f"got {'one bundle' if other is None else 'two bundles'} and {len(targets)} target(s), expected two systems: "
            "give two targets, the first of which is the reference, or one target and --other BUNDLE"
        )
    if provider is not None and "cuda" not in targets:
        raise ConfigError(f'provider "{provider}" is for target cuda, got targets {", ".join(targets)}; leave it out')
    opened = [given if isinstance(given, Bundle) else open_bundle(given) for given in (bundle, other) if given is not None]
    reference, compared = (
        System(of, target, provider if target == "cuda" else None)
        for of, target in ((opened[0], targets[0]), (opened[-1], targets[-1]))
    )
    _check_same_model(reference.bundle, compared.bundle)
    if (reference.bundle.path, reference.target) == (compared.bundle.path, compared.target):
        raise ConfigError(f"{reference} would be compared with itself; give another target, or --other BUNDLE")
    return reference, compared


def token_ids(bundle: Bundle, texts: Texts, tokens: int | None) -> Ids:
    """Ids `[1, T]` over at least two whole periods of firing: the beginning of a text, or random.

    Where the data decides, a period is what a clock expects.

    Raises:
        ConfigError: fewer or more tokens than that takes or the context has; text that can't be read.
    """
    model = bundle.manifest.model
    period = expected_period([entry.spec for entry in bundle.manifest.stages])
    least = min(2 * period, model.context)
    length = min(model.context, max(2 * period + 3, 61)) if tokens is None else tokens  # by default a multiple of nothing
    if not least <= length <= model.context:
        raise ConfigError(
            f"got {length} tokens, expected {least} to {model.context}: two periods of {period} tokens, and the model's context"
        )
    if not as_texts(texts):
        return np.random.default_rng(_SEED).integers(0, model.vocab_size, (1, length))
    target = next(iter(bundle.manifest.engines))
    ids = read_ids(texts, load(bundle, target, _threads(target))).ids[:length]
    if len(ids) < (wanted := least if tokens is None else tokens):
        raise ConfigError(f"the text has {len(ids)} tokens, expected at least {wanted}; give more text")
    return ids[None]


def expected_period(specs: Sequence[StageSpec]) -> int:
    """Tokens after which every stage has fired; where the data decides, as its clock expects."""
    return math.ceil(max(spec.tokens_per_firing for spec in specs))


def _threads(target: str) -> int | None:
    """One, unless the process shares a pool: what is compared need not be quick."""
    return shared_threads() or 1 if target == "cpu" else None


def differing_rules(clocks: Sequence[ClockSpec], expected: Sequence[ClockSpec]) -> str:
    """In words, where rules of when stages fire differ: field by field; as a whole if there are more of one than the other."""
    if len(clocks) != len(expected):
        return f"got {clocks}, expected {expected}"
    pairs = [(msgspec.structs.asdict(one), msgspec.structs.asdict(other)) for one, other in zip(clocks, expected, strict=True)]
    fields = [(name, one[name], other[name]) for one, other in pairs for name in one if one[name] != other[name]]
    return ", ".join(f"{name} {found}, expected {wanted}" for name, found, wanted in fields)


def _check_same_model(reference: Bundle, other: Bundle) -> None:
    expected, got = ((m.hierarchy, m.vocab_size, m.dim) for m in (reference.manifest.model, other.manifest.model))
    if got != expected:
        raise ConfigError(
            f"{other.path} is of another model than {reference.path}: got hierarchy, vocabulary and width {got}, "
            f"expected {expected}; compare bundles of one model"
        )
    rules, expected_rules = (clocks_of([entry.spec for entry in bundle.manifest.stages]) for bundle in (other, reference))
    if rules != expected_rules:
        raise ConfigError(
            f"{other.path} decides otherwise when stages fire than {reference.path}: {differing_rules(rules, expected_rules)}; "
            "compare bundles of one rule, or by what they say: foveal eval BUNDLE --against OTHER"
        )
