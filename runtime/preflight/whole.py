"""Whether engines belong to the stages and graphs of their bundle: what every target asks before it loads them."""

from __future__ import annotations

from ...bundle import Bundle, sidecar_name
from ...errors import EngineMismatchError
from .engine_files import read_checked_sidecar
from .findings import Finding


def require_whole(bundle: Bundle, target: str) -> None:
    """Let only engines pass that belong to the stages and graphs of their bundle, whatever the machine.

    Raises:
        BundleError: a sidecar was altered.
        EngineMismatchError: an engine is another's, or was made of another graph or of other weights.
    """
    for stage, engine in bundle.manifest.engines.get(target, {}).items():
        bundle.check(sidecar_name(engine))
        found = read_checked_sidecar(bundle.path, bundle.manifest, target, stage, lambda _: None)
        if isinstance(found, Finding):
            raise EngineMismatchError(f'{bundle.path}, {target}: stage "{stage}": {found.sentence}')
