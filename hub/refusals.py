"""What a hub, the way to it or its cache refuse, each in a sentence of its own that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ..errors import ConfigError, FovealError, HubError, reason_of, unavailable
from ..storage import named
from .names import HubName


def library() -> ModuleType:
    """huggingface_hub.

    Raises:
        BackendUnavailable: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise unavailable(error, "a name on a model hub") or error from error
    return huggingface_hub


@contextmanager
def refusals(name: HubName, doing: str = "read") -> Iterator[None]:
    """Turn what huggingface_hub raises inside the block into foveal's errors.

    Args:
        name: what is asked for.
        doing: what for: `"read"` or `"write"`.

    Raises:
        HubError: the hub refuses, is not there or sends something else than it says.
        ConfigError: the name is none that a hub has.
        StorageError: the disk refuses.
    """
    library()
    from httpx2 import HTTPError
    from huggingface_hub import constants, errors

    try:
        yield
    except FovealError:
        raise
    except errors.HFValidationError as error:
        raise ConfigError(f"{name}: {reason_of(error)}") from error
    except errors.GatedRepoError as error:
        raise HubError(_gated(name)) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f'{_bare(name)} has no revision "{name.revision or constants.DEFAULT_REVISION}"; give a branch, a tag or a commit '
            f"of {_page(name)}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(_not_found(name, doing)) from error
    except errors.RemoteEntryNotFoundError as error:
        raise HubError(f"{_bare(name)} has no such file any more: {reason_of(error)}; repeat the command") from error
    except errors.HfHubHTTPError as error:
        raise HubError(_answered(name, error, doing)) from error
    except (errors.RevisionResolutionError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise HubError(_unreachable(name, error)) from error
    except HTTPError as error:
        raise HubError(_unreachable(name, error)) from error
    except OSError as error:
        if error.errno is not None:
            raise named(error, Path(constants.HF_HUB_CACHE)) from error
        raise HubError(f"{_bare(name)}: {reason_of(error)}; repeat the command, which goes on with what is there") from error
    except (RuntimeError, ValueError) as error:  # hf_xet's, and answers that are none of a hub
        raise HubError(
            f"{_bare(name)}: the transfer failed ({reason_of(error)}); repeat the command, or set HF_HUB_DISABLE_XET=1 if "
            f"{constants.ENDPOINT} is a mirror without Xet storage"
        ) from error


def _gated(name: HubName) -> str:
    return f"{_bare(name)} is gated: accept its conditions at {_page(name)}, then {_give_token()}"


def _not_found(name: HubName, doing: str) -> str:
    if doing == "write":
        return f"{_bare(name)} can't be written: there is no such repository, or the token may not write to it; {_give_token()}"
    return f"there is no {_bare(name)} at {_host()}, or it is private: check the name; if it is private, {_give_token()}"


def _answered(name: HubName, error: object, doing: str) -> str:
    response = error.response  # type: ignore[attr-defined]
    status, said = response.status_code, _said(response, error)
    if status == 401:
        return f"{_host()} does not take the token that is set{said}; {_give_token()}"
    if status == 403:
        return f"{_host()} forbids to {doing} {_bare(name)}{said}; {_give_token()}"
    if status == 412:
        return f"somebody else wrote to {_bare(name)} meanwhile{said}; nothing of the bundle was published: repeat the command"
    if status == 429:
        wait = response.headers.get("Retry-After")
        return (
            f"{_host()} takes no more requests for now (429){said}; wait {f'{wait} s' if wait else 'some minutes'}, and repeat"
        )
    if status >= 500:
        return f"{_host()} is out of order ({status}){said}; repeat the command later"
    return f"{_host()} refused to {doing} {_bare(name)} ({status}){said}"


def _said(response: object, error: object) -> str:
    """What the hub said of it, in one line, if it did."""
    said = getattr(error, "server_message", None) or response.headers.get("X-Error-Message") or ""  # type: ignore[attr-defined]
    return f": {' '.join(said.split())[:200]}" if said else ""


def _unreachable(name: HubName, error: BaseException) -> str:
    from huggingface_hub import constants, errors

    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    answer = next((one for one in chain if isinstance(one, errors.HfHubHTTPError)), None)
    absent = f"{_bare(name)} is not in {constants.HF_HUB_CACHE}, or not whole"
    if answer is not None:
        return f"{_answered(name, answer, 'read')}; and {absent}"
    if constants.is_offline_mode():
        return f"HF_HUB_OFFLINE is set, and {absent}; unset it, or fetch {_bare(name)} where there is a network"
    return f"{_host()} can't be reached ({reason_of(error)}), and {absent}; check the network, HTTPS_PROXY and HF_ENDPOINT"


def _give_token() -> str:
    from huggingface_hub import get_token

    if get_token() is None:
        return "give a token that may: HF_TOKEN, or `hf auth login` (no token is set)"
    return "give a token that may: HF_TOKEN, or `hf auth login` (the one that is set may not)"


def _bare(name: HubName) -> str:
    """The name without what is inside the repository."""
    return str(name._replace(path="", entry=None, revision=None))


def _host() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _page(name: HubName) -> str:
    return f"{_host()}/{name.repository}"
