"""What `serve deploy` and KubeRay make the application with: `import_path: foveal.distributed.deploy:build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ..contents import Verify
from ..errors import ConfigError
from ..runtime.batches.phases import Policy
from ..serve.bearers import read_tokens
from ..serve.loading import NO_DRAFTS, ServiceOptions, named
from ..serve.settings import ServeSettings
from .application import Scale, application

_MB = 1 << 20


class Arguments(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The `args` of an application in a Serve config: options of `foveal serve` in other spelling.

    Attributes:
        bundles: paths, or NAME=PATH; the same on all machines.
        slots, queue, capacity, policy, target, threads, verify, keep_prefixes: of each replica's services.
        store_memory: megabytes for sessions in each replica.
        draft, draft_tokens: as `foveal serve` has them.
        token_file: of bearer tokens.
        max_prompt, max_output, max_body, timeout: what a request may ask for.
        page: whether there is a page at `/`; private_metrics: whether `/metrics` needs a token.
        chat_template: a Jinja file in the place of the bundle's own; chat_ends: tokens that end a message of a chat.
        replicas: so many; or `min_replicas` and `max_replicas`.
        cpus, gpus: that each replica reserves.
        max_queued: requests that wait at each proxy.
        drain: seconds that what has begun may take when a replica is to end.
        log_level: of the replicas.
    """

    bundles: list[str]
    slots: int = 16
    queue: int = 64
    capacity: int | None = None
    policy: Policy = "staggered"
    target: str = "cpu"
    threads: int | None = None
    verify: Verify = "used"
    keep_prefixes: bool = False
    store_memory: int = 256
    draft: str | None = None
    draft_tokens: int | None = None
    token_file: str | None = None
    max_prompt: int | None = None
    max_output: int | None = None
    max_body: int = 4 * _MB
    timeout: float = 600.0
    page: bool = True
    private_metrics: bool = False
    chat_template: str | None = None
    chat_ends: list[str] = []
    replicas: int | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    max_queued: int = 64
    drain: float = 30.0
    log_level: str = "info"

    @property
    def options(self) -> ServiceOptions:
        """Of the services."""
        return ServiceOptions(
            slots=self.slots,
            queue=self.queue,
            capacity=self.capacity,
            policy=self.policy,
            target=self.target,
            threads=self.threads,
            verify=self.verify,
            store_memory=self.store_memory * _MB,
            keeps_prefixes=self.keep_prefixes,
            draft=None if self.draft == NO_DRAFTS else self.draft,
            draft_tokens=self.draft_tokens,
            chat_template=None if self.chat_template is None else Path(self.chat_template),
            chat_ends=self.chat_ends,
        )

    @property
    def settings(self) -> ServeSettings:
        """Of the servers."""
        tokens = read_tokens(None if self.token_file is None else Path(self.token_file))
        if self.private_metrics and not tokens:
            raise ConfigError("private_metrics does nothing without tokens; give a token_file, or leave it out")
        return ServeSettings(
            tokens=tokens,
            opens_metrics=not self.private_metrics,
            page=self.page,
            max_prompt=self.max_prompt,
            max_output=self.max_output,
            max_body=self.max_body,
            timeout=self.timeout,
            drafts=self.draft != NO_DRAFTS,
        )

    @property
    def scale(self) -> Scale:
        """How many replicas."""
        shares = {"cpus": self.cpus, "gpus": self.gpus, "queued": self.max_queued, "drain_seconds": self.drain}
        return Scale.of(self.replicas, self.min_replicas, self.max_replicas, **shares)


def build(args: dict[str, Any]) -> Any:
    """The application.

    Args:
        args: as `Arguments`.

    Raises:
        ConfigError: arguments that there are not, of another type, or that can't be.
        StorageError: the file of tokens can't be read.
    """
    try:
        wanted = msgspec.convert(args, Arguments)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"the args of the application: {error}; there are: {', '.join(Arguments.__struct_fields__)}"
        ) from None
    return application(named(wanted.bundles), wanted.options, wanted.settings, wanted.scale, wanted.log_level)
