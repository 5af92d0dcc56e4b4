"""A loaded bundle: engines, manifest and tokenizer, shared by any number of sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..bundle import Bundle, Manifest, check_target, open_bundle
from ..contract import late_stages
from ..errors import ConfigError
from ..storage import storage_errors
from .backends import open_engines
from .engines.onnxruntime import OnnxRuntimeEngine
from .engines.onnxruntime_library import import_onnxruntime, shared_threads
from .generate import generate_ids
from .races import remembered
from .resident import ResidentEngines
from .sampling import SamplingParams
from .session import Session
from .text import TextStream
from .threads import fastest_thread_count, overlap_helps, thread_counts
from .tokenizer import TextTokenizer, load_tokenizer


class Model:
    """Engines of one bundle. Immutable; its sessions may run in different threads (on a GPU their calls take turns: they share
    a stream)."""

    def __init__(
        self, bundle: Bundle, target: str, threads: int, provider: str | None = None, overlap: bool | None = None
    ) -> None:
        self.bundle, self.target, self.threads, self.provider = bundle, target, threads, provider
        self.engines = open_engines(bundle, target, threads, provider, overlap=overlap)
        self.overlap = self.engines.overlap if isinstance(self.engines, ResidentEngines) else bool(overlap)
        self.tokenizer: TextTokenizer | None = load_tokenizer(bundle.manifest.tokenizer, bundle.path)

    @property
    def host_engines(self) -> tuple[OnnxRuntimeEngine, ...]:
        """The engines that work in the host's memory: all of target `cpu`'s, none of another's."""
        engines = self.engines if isinstance(self.engines, tuple) else ()
        return tuple(engine for engine in engines if isinstance(engine, OnnxRuntimeEngine))

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    def session(self, batch: int = 1, capacity: int | None = None) -> Session:
        """A fresh session for `batch` sequences of at most `capacity` tokens (None: as many as the engines
        hold of the model's context).

        Raises:
            ConfigError: a batch below 1.
            CapacityError: a capacity beyond the model's positions.
        """
        return Session(self.engines, self.manifest.model, batch, capacity, self.overlap)

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Continue `prompt`; yields pieces of text as they become certain (whole characters, no stop string).

        The same seed gives the same text. Ends at `max_new_tokens`, at a stop string, or when the context is full.

        Raises (at the call):
            InputError: settings out of range, or an empty prompt.
            CapacityError: the prompt is longer than the context.
            ConfigError: the bundle has no tokenizer.
        """
        params = SamplingParams(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            max_new_tokens=max_new_tokens,
            stop=tuple(stop),
        )
        tokenizer = self._required_tokenizer()
        ids = generate_ids(self.session(), tokenizer.encode(prompt), params)
        return _pieces(ids, TextStream(tokenizer, params.stop))

    def _required_tokenizer(self) -> TextTokenizer:
        if self.tokenizer is None:
            raise ConfigError(
                f"{self.bundle.path} has no tokenizer, so it takes ids only; convert the checkpoint again with a "
                'tokenizer.json in its directory, or with tokenizer="bytes" if its ids are bytes'
            )
        return self.tokenizer


def _pieces(ids: Iterator[int], stream: TextStream) -> Iterator[str]:
    for token in ids:
        if piece := stream.push(token):
            yield piece
        if stream.stopped:
            return
    if piece := stream.finish():
        yield piece


@storage_errors()
def load(
    bundle: str | Path | Bundle,
    target: str = "cpu",
    threads: int | None = None,
    provider: str | None = None,
    overlap: bool | None = None,
) -> Model:
    """Load a bundle's engines.

    Args:
        bundle: a bundle directory, every file of which is checked first, or one that was opened before.
        target: what the engines were built for.
        threads: threads of the engine library; None: those of `share_threads` if it was called, else chosen by a quick
            measurement on this machine, which is remembered (`races.py`). Only `cpu` engines have threads.
        provider: what `cuda` engines run on: `"cuda"` (None), `"tensorrt"`, `"tensorrt-rtx"`, or `"cpu"` where there is no GPU.
        overlap: whether engines that a decode step does not wait for, where the model has such stages, run beside the others:
            those of `cpu` in a second thread (None: where it is measured to be quicker), those of TensorRT on a second stream
            (None: they do; whether it is quicker, no GPU has shown). Those of `cuda` can't.

    Raises:
        BundleError: not a bundle, or not whole.
        ConfigError: an unknown target, one the bundle has no engines for, a thread count below 1 or not the shared pool's, a
            provider that is unknown or for another target, or an overlap that the target can't do.
        BackendUnavailable: the target's engine library is not installed, or there is no GPU where it needs one.
        EngineMismatchError: the engines were made for something else.
    """
    opened = _opened(bundle, target)
    model = Model(opened, target, _thread_count(opened, target, threads), provider, overlap)
    if target == "cpu" and overlap is None:
        model.overlap = _overlap_helps(model)
    return model


def threads_of(bundle: str | Path | Bundle, target: str = "cpu") -> int:
    """The engine threads that `load` would choose here, without loading what is known already.

    Raises:
        BundleError, ConfigError, BackendUnavailable, EngineMismatchError: as `load`.
    """
    return _thread_count(_opened(bundle, target), target, None)


def _opened(bundle: str | Path | Bundle, target: str) -> Bundle:
    check_target(target)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    if target not in opened.manifest.engines:
        built = ", ".join(opened.manifest.engines) or "none"
        raise ConfigError(
            f"{opened.path} has no engines for {target}, only for: {built}; "
            f"add them: foveal build {opened.path} --target {target}"
        )
    return opened


def _overlap_helps(model: Model) -> bool:
    def race() -> bool:
        return overlap_helps(lambda overlap: Session(model.engines, model.manifest.model, overlap=overlap))

    if not late_stages([entry.spec for entry in model.manifest.stages]):
        return False
    shared = ", shared" if shared_threads() else ""
    question = f"whether late stages run beside the others with {model.threads} threads{shared}"
    return bool(remembered(question, model.bundle, _library(), (False, True), race))


def _thread_count(bundle: Bundle, target: str, threads: int | None) -> int:
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}; leave it out to have the number measured")
    shared = shared_threads()
    if target != "cpu":
        return threads or 1
    if shared is None:
        return threads or _fastest_thread_count(bundle)
    if threads not in (None, shared):
        raise ConfigError(f"this process shares a pool of {shared} threads, got threads={threads}; leave it out")
    return shared


def _fastest_thread_count(bundle: Bundle) -> int:
    def race() -> int:
        return fastest_thread_count(lambda threads: Session(open_engines(bundle, "cpu", threads), bundle.manifest.model))

    return remembered("how many threads decode fastest", bundle, _library(), tuple(thread_counts()), race)


def _library() -> str:
    return f"onnxruntime {import_onnxruntime().__version__}"
