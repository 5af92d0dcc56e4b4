"""From bundles to models that are served."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..contents import Verify
from ..errors import ConfigError
from ..runtime.batches.phases import Policy
from ..runtime.model import load
from ..runtime.service.service import Service
from ..runtime.store.session_store import SessionStore
from .chat_template import find_template
from .measurements import Measurements
from .served import Served

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")

NO_DRAFTS = "none"
"""As a server's draft: no request has any, whatever it asks for."""


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """How each bundle is served.

    Attributes:
        slots, queue, capacity, policy: as of `Service`.
        target, threads, verify, native: as of `load`.
        store_memory: bytes for sessions in memory; 0: none are kept.
        store_directory: where sessions go that exceed it, and `store_disk` bytes of them.
        keeps_prefixes: whether what prompts have in common is kept.
        draft, draft_tokens: as of `Service`.
        chat_template: in the place of the bundle's own.
        chat_ends: tokens that end a message, in the place of the one that the bundle names.
    """

    slots: int = 16
    queue: int = 64
    capacity: int | None = None
    policy: Policy = "staggered"
    target: str = "cpu"
    threads: int | None = None
    verify: Verify = "used"
    native: bool | None = None
    store_memory: int = 256 << 20
    store_directory: Path | None = None
    store_disk: int | None = None
    keeps_prefixes: bool = False
    draft: str | None = None
    draft_tokens: int | None = None
    chat_template: Path | None = None
    chat_ends: Sequence[str] = ()


def named(bundles: Sequence[str]) -> dict[str, Path]:
    """Bundles as they are given, `PATH` or `NAME=PATH`, by their names; that of a path is its last part, without `.bundle`.

    Raises:
        ConfigError: a name twice, or one that is none.
    """
    found: dict[str, Path] = {}
    for given in bundles:
        name, is_named, path = given.partition("=")
        if not is_named or "/" in name or Path(given).exists():
            path = given
            name = Path(given).resolve().name.removesuffix(".bundle")
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f'"{name}" can\'t be the name of a model; name it: NAME={path}, of letters, digits, dots and hyphens'
            )
        if name in found:
            raise ConfigError(f'two bundles are called "{name}"; name one of them: OTHER={path}')
        found[name] = Path(path)
    return found


@contextmanager
def opened(name: str, bundle: Path, options: ServiceOptions) -> Iterator[Served]:
    """A model as long as it is served; its store is flushed and closed at the end.

    Raises:
        ConfigError: options that can't be, a template that can't be read, or ends that the tokenizer has not.
        FovealError: as `load`, `Service` and `SessionStore`.
    """
    with ExitStack() as stack:
        model = load(bundle, options.target, options.threads, verify=options.verify, native=options.native)
        model.open_graphs()  # so that nobody waits for them behind the first long prompt
        template = find_template(bundle, options.chat_template, options.chat_ends)
        if template is not None:
            model.end_ids(template.ends)
        store = None
        if options.store_memory or options.store_directory is not None:
            store = SessionStore(model, options.store_memory, options.store_directory, options.store_disk)
            stack.callback(store.close)
        measurements = Measurements(model.specs)
        service = stack.enter_context(
            Service(
                model,
                options.slots,
                options.capacity,
                options.queue,
                options.policy,
                store=store,
                keeps_prefixes=options.keeps_prefixes,
                observer=measurements,
                draft=options.draft,
                draft_tokens=options.draft_tokens,
            )
        )
        yield Served(name, model, service, measurements, template)
