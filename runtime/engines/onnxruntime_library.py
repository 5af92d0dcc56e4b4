"""The onnxruntime library: imported when it is first asked for, its threads, and sessions on the provider asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ...errors import BackendUnavailable, ConfigError, EngineMismatchError, install, reason_of
from .cpu_features import has_vnni

# Every stage has its own pool of threads, which by default spin for about a second after a run and so take the cores from the
# next stage. This long is enough to bridge two operators and short enough to be gone (docs/adr/0004 has the measurements).
_SPIN_US = 100


_UNSIGNED_WEIGHTS = "session.x64quantprecision"
"""Lets ONNX Runtime, while it optimises a graph, turn signed weights of 8 bits into unsigned ones: the same numbers, by
kernels that do not saturate, and half as fast as those of VNNI (docs/adr/0005)."""

SINCE = {"cpu": "1.23", "cuda": "1.24"}
"""The least version that runs a target's engines, as `pyproject.toml` asks for."""

# Before, ONNX Runtime refuses int8 caches (to 1.24), fails at the first run (1.25, 1.26) or is wrong for batches (1.27).
INT8_CACHES_SINCE = "1.28"


MOST_THREADS = 1024


def require_threads(threads: int) -> None:
    """Raise a ConfigError for a number of threads that no pool can have."""
    if not isinstance(threads, int) or isinstance(threads, bool):
        raise ConfigError(f"threads must be an integer, got {threads!r}; leave it out to have the number measured")
    if not 1 <= threads <= MOST_THREADS:
        problem = f"at least 1, got {threads}" if threads < 1 else f"at most {MOST_THREADS}, got {threads}"
        raise ConfigError(f"threads must be {problem}; leave it out to have the number measured")


def has_int8_caches() -> bool:
    """Whether the installed onnxruntime attends over int8 caches, and rightly."""
    installed = import_onnxruntime().__version__.split(".")
    return tuple(map(int, installed[:2])) >= tuple(map(int, INT8_CACHES_SINCE.split(".")))


def import_onnxruntime() -> Any:
    """The onnxruntime module; raises BackendUnavailable with the line that installs it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailable(f"onnxruntime can't be imported ({error}); target cpu runs on it: {install('cpu')}") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise BackendUnavailable(
            "onnxruntime is an empty package: onnxruntime and onnxruntime-gpu overwrote each other; "
            f"uninstall both and install one: {install('cpu')}"
        )
    return onnxruntime


class _ProcessPool:
    """The one pool of threads that all sessions of this process use, if it was asked for."""

    threads: int | None = None


def share_threads(threads: int) -> None:
    """Let all engines of this process, from now on, run on one pool of `threads` threads instead of one pool each.

    Pools of their own get into each other's way when stages take turns: on two cores a shared one decodes up to a fifth faster
    (docs/adr/0004). But it belongs to the process: ONNX Runtime then refuses sessions, of other code too, that do not set
    `use_per_session_threads = False`. So it is for programs that run no other ONNX models, as the `foveal` command.
    Nor is it for stages that run natively: its threads spin for some 50 ms after a prompt, and take a core from the native
    steps behind it.

    Raises:
        ConfigError: fewer than one thread or more than 1024, or there is a shared pool of another size already.
        BackendUnavailable: onnxruntime is not installed.
    """
    require_threads(threads)
    if _ProcessPool.threads not in (None, threads):
        raise ConfigError(
            f"this process shares {_ProcessPool.threads} threads already, got {threads}; the number is fixed once it is set"
        )
    if _ProcessPool.threads is None:
        import_onnxruntime().set_global_thread_pool_sizes(threads, 1)
        _ProcessPool.threads = threads


def shared_threads() -> int | None:
    """The size of the pool that `share_threads` made; None: engines have pools of their own."""
    return _ProcessPool.threads


def session_options(threads: int = 1) -> Any:
    """Options that every session of foveal starts from: its threads, and nothing in the log: what is an error is raised too."""
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 4
    if not has_vnni():  # the engines' products are of unsigned by signed bytes
        options.add_session_config_entry(_UNSIGNED_WEIGHTS, "1")
    if _ProcessPool.threads is not None:
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    return options


def run_options() -> Any:
    """Options of a run that only queues its work: else a provider waits for its stream, which can't be recorded then."""
    options = import_onnxruntime().RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def open_session(
    path: Path, stage: str, builder: str, options: Any, provider: str, settings: dict[str, str] | None = None
) -> Any:
    """An `InferenceSession` on a provider.

    Raises:
        EngineMismatchError: this onnxruntime can't load the graph, or loaded it on another provider than asked.
    """
    ort = import_onnxruntime()
    try:
        session = ort.InferenceSession(str(path), options, providers=[(provider, settings or {})])
    except Exception as error:  # onnxruntime's exceptions share no base class
        reason = reason_of(error)
        raise EngineMismatchError(
            f'onnxruntime {ort.__version__} can\'t load the engine of stage "{stage}", built by {builder}: {reason}'
        ) from error
    if session.get_providers()[0] != provider:  # it falls back without a word
        raise EngineMismatchError(f"asked for {provider}, onnxruntime gave {session.get_providers()}")
    return session


def memory_of(kind: Literal["cpu", "cuda"]) -> Any:
    """How bindings name the host's memory, or the first GPU's."""
    from onnxruntime.capi._pybind_state import OrtDevice

    return OrtDevice(OrtDevice.cuda() if kind == "cuda" else OrtDevice.cpu(), OrtDevice.default_memory(), 0)
