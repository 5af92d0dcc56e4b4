"""`foveal serve BUNDLE...`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Optional, cast

import typer

from ..errors import ConfigError
from .conditions import require
from .console import err
from .on_ray import (
    OF_SERVE,
    Address,
    AppName,
    CpusPerReplica,
    GpusPerReplica,
    MaxQueued,
    MaxReplicas,
    MinReplicas,
    OnRay,
    Replicas,
    serve_on_ray,
)
from .options import Native, Threads, Verified, checked_draft, native_counts, threads_count
from .threads import pool_threads

_MB = 1 << 20
Draft = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Guess tokens to come: ngrams, or a bundle with the same tokenizer; none: not even for requests that ask for it."
    ),
]
DraftTokens = Annotated[Optional[int], typer.Option(help="Tokens of one draft at most.")]  # noqa: UP045


def serve(
    context: typer.Context,
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="Bundles, or NAME=BUNDLE: as clients call them.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; set tokens for others than this machine's own.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    slots: Annotated[int, typer.Option(help="Texts that decode at once, of each bundle.")] = 16,
    queue: Annotated[int, typer.Option(help="Texts that may wait for a slot; beyond, requests are refused (429).")] = 64,
    capacity: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens of a sequence at most; the model's context if not given."),
    ] = None,
    policy: Annotated[str, typer.Option(help="staggered: even steps; aligned: more tokens per second.")] = "staggered",
    threads: Threads = None,
    native: Native = None,
    verify: Verified = "used",
    target: Annotated[str, typer.Option(help="Whose engines to run.")] = "cpu",
    store: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A directory for sessions that exceed --store-memory, and for the next start."),
    ] = None,
    store_memory: Annotated[int, typer.Option(min=0, help="Megabytes of memory for sessions; 0: none are kept.")] = 256,
    store_disk: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Megabytes of --store at most; all there is if not given."),
    ] = None,
    keep_prefixes: Annotated[
        bool, typer.Option("--keep-prefixes", help="Keep what requests leave, for prompts that begin alike.")
    ] = False,
    draft: Draft = None,
    draft_tokens: DraftTokens = None,
    token_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Bearer tokens, one a line, beside those of FOVEAL_TOKENS; requests need one of them."),
    ] = None,
    max_prompt: Annotated[Optional[int], typer.Option(min=1, help="Tokens of a prompt at most.")] = None,  # noqa: UP045
    max_output: Annotated[Optional[int], typer.Option(min=1, help="New tokens of a text at most.")] = None,  # noqa: UP045
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request at most.")] = 4 * _MB,
    timeout: Annotated[float, typer.Option(help="Seconds after which a text ends with what it has.")] = 600.0,
    drain: Annotated[float, typer.Option(min=0, help="Seconds that requests may still take after SIGTERM.")] = 30.0,
    chat_template: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A Jinja template of chats, in the place of the bundle's own."),
    ] = None,
    chat_end: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A token that ends a message of a chat, such as </s>; may be repeated."),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    no_page: Annotated[bool, typer.Option("--no-page", help="No page at /.")] = False,
    private_metrics: Annotated[bool, typer.Option("--private-metrics", help="/metrics needs a token, too.")] = False,
    on_ray: OnRay = False,
    replicas: Replicas = None,
    min_replicas: MinReplicas = None,
    max_replicas: MaxReplicas = None,
    cpus_per_replica: CpusPerReplica = 1.0,
    gpus_per_replica: GpusPerReplica = 0.0,
    max_queued: MaxQueued = 64,
    address: Address = None,
    app_name: AppName = "foveal",
) -> None:
    """Serve models over HTTP, as OpenAI's clients expect them, with a log of JSON lines on stderr."""
    from ..bundle import checked_verify
    from ..runtime.batches.phases import Policy, check_policy
    from ..serve.app import create_app
    from ..serve.bearers import VARIABLE, read_tokens
    from ..serve.loading import NO_DRAFTS, ServiceOptions, named, opened
    from ..serve.logs import LEVELS, log_to
    from ..serve.process import Listening, bind
    from ..serve.process import serve as listen
    from ..serve.settings import ServeSettings

    check_policy(policy)
    if log_level not in LEVELS:
        raise ConfigError(f'--log-level is "{log_level}", expected one of {", ".join(LEVELS)}')
    models, tokens = named(bundles), read_tokens(token_file)
    require(
        context,
        {
            "threads": threads_count(target),
            "native": native_counts(target),
            "store": (not on_ray, "no --ray: each replica keeps its sessions in memory"),
            **dict.fromkeys(OF_SERVE, (on_ray, "--ray")),
            "store_disk": (store is not None, "--store"),
            "keep_prefixes": (bool(store_memory) or store is not None, "a store: --store-memory, or --store"),
            "draft_tokens": (draft not in (None, NO_DRAFTS), "--draft, ngrams or a bundle"),
            "chat_end": (_chats(models, chat_template), "a chat template: --chat-template, or that of a bundle"),
            "private_metrics": (bool(tokens), f"tokens: --token-file, or {VARIABLE}"),
        },
    )
    settings = ServeSettings(
        tokens=tokens,
        opens_metrics=not private_metrics,
        page=not no_page,
        max_prompt=max_prompt,
        max_output=max_output,
        max_body=max_body,
        timeout=timeout,
        drafts=draft != NO_DRAFTS,
    )
    options = ServiceOptions(
        slots=slots,
        queue=queue,
        capacity=capacity,
        policy=cast(Policy, policy),
        target=target,
        verify=checked_verify(verify),
        threads=threads if on_ray else pool_threads(next(iter(models.values())), target, threads, native),
        native=native,
        store_memory=store_memory * _MB,
        store_directory=store,
        store_disk=None if store_disk is None else store_disk * _MB,
        keeps_prefixes=keep_prefixes,
        draft=None if draft == NO_DRAFTS else checked_draft(draft),
        draft_tokens=draft_tokens,
        chat_template=chat_template,
        chat_ends=chat_end or (),
    )
    if not tokens and not _is_own(host):
        err.print(f"foveal: warning: {host} is not this machine alone, and there are no tokens: whoever reaches it may ask")
    if on_ray:
        from ..distributed.application import Scale

        shares = {"cpus": cpus_per_replica, "gpus": gpus_per_replica, "queued": max_queued, "drain_seconds": drain}
        scale = Scale.of(replicas, min_replicas, max_replicas, **shares)
        serve_on_ray(models, options, settings, scale, log_level, (app_name, host, port, address))
        return
    bind(host, port).close()  # before models are loaded, which may take minutes
    with ExitStack() as stack:
        served = {name: stack.enter_context(opened(name, path, options)) for name, path in models.items()}
        log_to(level=log_level)
        listen(create_app(served, settings), Listening(host, port, drain), _say)


def _say(address: str) -> None:
    err.print(f"foveal serves at {address}; Ctrl+C ends it")


def _chats(models: dict[str, Path], template: Path | None) -> bool:
    """Whether there is a template for any of the models."""
    from ..serve.chat_template import find_template

    return template is not None or any(find_template(path) is not None for path in models.values())


def _is_own(host: str) -> bool:
    """Whether only this machine reaches an address."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
