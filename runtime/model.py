"""A loaded bundle: engines, manifest and tokenizer, shared by any number of sessions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..bundle import Bundle, Manifest, check_target, open_bundle
from ..contract import StageSpec, late_stages
from ..errors import ConfigError, InputError
from ..storage import storage_errors
from .backends import open_engines
from .batches.batch import PREFILL_SECONDS, Batch
from .batches.generate_many import GeneratedMany, Request, counted, settings_of_all, settings_of_each
from .batches.phases import Policy
from .engines.onnxruntime import OnnxRuntimeEngine
from .engines.onnxruntime_library import import_onnxruntime, require_threads, shared_threads
from .generate import GeneratedIds, GeneratedText, generate_ids
from .ids import checked_ids
from .races import remembered
from .resident import ResidentEngines
from .sampling import SamplingParams
from .session import Session
from .text import TextStream
from .threads import fastest_thread_count, overlap_helps, thread_counts
from .tokenizer import TextTokenizer, check_text, load_tokenizer


class Model:
    """Engines of one bundle. Immutable; its sessions may run in different threads (on a GPU their calls take turns: they share
    a stream)."""

    def __init__(
        self, bundle: Bundle, target: str, threads: int, provider: str | None = None, overlap: bool | None = None
    ) -> None:
        self.bundle, self.target, self.threads, self.provider = bundle, target, threads, provider
        self.engines = open_engines(bundle, target, threads, provider, overlap=overlap)
        self.overlap = self.engines.overlap if isinstance(self.engines, ResidentEngines) else bool(overlap)
        self.identity = bundle.identity(target)
        self.tokenizer: TextTokenizer | None = load_tokenizer(bundle.manifest.tokenizer, bundle.path)

    @property
    def host_engines(self) -> tuple[OnnxRuntimeEngine, ...]:
        """The engines that work in the host's memory: all of target `cpu`'s, none of another's."""
        engines = self.engines if isinstance(self.engines, tuple) else ()
        return tuple(engine for engine in engines if isinstance(engine, OnnxRuntimeEngine))

    @property
    def specs(self) -> Sequence[StageSpec]:
        """Of the stages, in dataflow order."""
        return [entry.spec for entry in self.manifest.stages]

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
        return Session(self.engines, self.manifest.model, batch, capacity, self.overlap, self.identity)

    def batch(
        self,
        slots: int,
        capacity: int | None = None,
        policy: Policy = "staggered",
        prefill_seconds: float = PREFILL_SECONDS,
    ) -> Batch:
        """Room for `slots` sequences of at most `capacity` tokens, each of which joins, decodes and leaves by itself.

        Args and raises: as `Batch`.
        """
        return Batch(self.engines, self.manifest.model, slots, capacity, policy, prefill_seconds, self.identity)

    def generate(
        self,
        prompt: str | npt.ArrayLike,
        *,
        max_new_tokens: int = SamplingParams.max_new_tokens,
        temperature: float = SamplingParams.temperature,
        top_k: int = SamplingParams.top_k,
        top_p: float = SamplingParams.top_p,
        min_p: float = SamplingParams.min_p,
        repetition_penalty: float = SamplingParams.repetition_penalty,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        end: int | str | Sequence[int | str] = (),
    ) -> GeneratedText:
        """Continue `prompt`, text or ids `[T]`; gives pieces of text as they become certain (none is taken back).

        The same seed gives the same text. At temperature 0, or with a `top_k` of 1, the likeliest token is always taken: then
        `top_k`, `top_p`, `min_p` and `seed` change nothing. Ends at `max_new_tokens`, before a stop string or one of the tokens
        `end` (ids, or as the tokenizer writes them, such as `"</s>"`), or when the context is full: `finish_reason` of the
        result says which.

        Raises (at the call):
            InputError: settings out of range, an empty prompt, one that is no text, several prompts, or an unknown end token.
            CapacityError: the prompt is longer than the context.
            ConfigError: the bundle has no tokenizer.
        """
        request = self._request(
            prompt,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            max_new_tokens=max_new_tokens,
            stop=stop,
            end=end,
        )
        ids = generate_ids(self.session(), request.ids, request.params, request.end_ids)
        return GeneratedText(ids, request.stream)

    def generate_many(
        self,
        prompts: Iterable[str | npt.ArrayLike],
        slots: int = 16,
        *,
        capacity: int | None = None,
        policy: Policy = "aligned",
        prefill_seconds: float = 0.1,
        **settings: Any,
    ) -> GeneratedMany:
        """Continue any number of prompts, `slots` at a time; gives (index of the prompt, piece of text) as they become certain.

        The text of each is what `generate` gives for it alone, with the same settings and seed, up to how the engine's kernels
        round for several rows (docs/batches.md). A prompt that can't be taken raises an error that names it when its turn
        comes; the others go on: ask for the next piece.

        Args:
            prompts: texts or ids `[T]`; taken one by one as slots become free, so that there may be any number.
            slots: sequences at once.
            capacity, policy, prefill_seconds: as of `batch`; the defaults are for the most tokens per second of all, where no
                one waits for single tokens.
            settings: as of `generate`. A list gives each prompt its own; of `stop` and `end` a list of lists does.

        Raises (at the call):
            InputError: an unknown setting or end token, one out of range, a list of another length than there are prompts, or
                a single prompt. Where it is not known how many prompts there are, what a list has for each is looked at when
                its turn comes.
            ConfigError, CapacityError, EngineMismatchError: as `batch`; ConfigError if the bundle has no tokenizer.
        """
        self.required_tokenizer()
        each, count = counted(prompts)
        _check_names(settings)
        self._check_settings(**settings_of_all(settings))
        for index in range(count or 0):
            self._check_settings(**settings_of_each(settings, index, count))
        batch = self.batch(slots, capacity, policy, prefill_seconds)

        def request(index: int, prompt: str | npt.ArrayLike) -> Request:
            return self._request(prompt, **settings_of_each(settings, index, count))

        return GeneratedMany(batch, each, request)

    def _request(self, prompt: str | npt.ArrayLike, end: int | str | Sequence[int | str] = (), **settings: Any) -> Request:
        """What to continue, and how; raises as `generate`."""
        params = self._params(**settings)
        stream = TextStream(self.required_tokenizer(), params.stop)
        return Request(self._prompt_ids(prompt), params, frozenset(self.end_ids(end)), stream)

    def _check_settings(self, end: int | str | Sequence[int | str] = (), **settings: Any) -> None:
        self._params(**settings)
        self.end_ids(end)

    def _params(self, **settings: Any) -> SamplingParams:
        params = SamplingParams(**settings)
        for text in params.stop:
            check_text(text, "the stop string")
        return params

    def generate_ids(
        self,
        prompt: str | npt.ArrayLike,
        params: SamplingParams | None = None,
        *,
        end: int | str | Sequence[int | str] = (),
    ) -> GeneratedIds:
        """Continue ids `[T]`, or text, by ids, which takes no tokenizer; `end` and `finish_reason` as of `generate`.

        Raises (at the call): as `generate`; InputError for stop strings, which are of text.
        """
        params = params or SamplingParams()
        if params.stop:
            raise InputError("stop strings are of text, and ids have none; give end tokens (end=2, or --end 2), or write text")
        return generate_ids(self.session(), self._prompt_ids(prompt), params, self.end_ids(end))

    def end_ids(self, end: int | str | Sequence[int | str]) -> tuple[int, ...]:
        """Ids of tokens given as ids, or as the tokenizer writes them.

        Raises:
            InputError: a token that the tokenizer has not, or an id that the model has not.
        """
        given = tuple(end) if isinstance(end, Iterable) and not isinstance(end, str) else (end,)
        ids = [self._token_id(one) if isinstance(one, str) else one for one in given]
        return tuple(checked_ids(ids, self.manifest.model.vocab_size, "the end tokens").tolist())

    def required_tokenizer(self) -> TextTokenizer:
        """The tokenizer of a model of text.

        Raises:
            ConfigError: there is none.
        """
        if self.tokenizer is None:
            raise ConfigError(
                f"{self.bundle.path} has no tokenizer, so it takes ids only; use generate_ids, or foveal generate --ids; "
                'for text convert the checkpoint again with a tokenizer.json in its directory, or with tokenizer="bytes" '
                "(--tokenizer bytes) if its ids are bytes"
            )
        return self.tokenizer

    def _token_id(self, token: str) -> int:
        found = self.required_tokenizer().token_id(token)
        if found is None:
            raise InputError(f'the tokenizer has no token "{token}"; give it as the tokenizer.json writes it, or its id')
        return found

    def _prompt_ids(self, prompt: str | npt.ArrayLike) -> list[int]:
        if isinstance(prompt, str):
            check_text(prompt, "the prompt")
            return self.required_tokenizer().encode(prompt)
        if isinstance(prompt, Sequence) and any(isinstance(one, str) for one in prompt):
            raise InputError(f"got {len(prompt)} prompts, expected one; call generate for each, it is as fast")
        found: list[int] = checked_ids(prompt, self.manifest.model.vocab_size, "the prompt's ids").tolist()
        return found


def _check_names(settings: Iterable[str]) -> None:
    known = {"end", *(field.name for field in fields(SamplingParams))}
    for name in settings:
        if name not in known:
            raise InputError(f'there is no setting "{name}"; there are: {", ".join(sorted(known))}')


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
            measurement on this machine, which is remembered (`races.py`). Only `cpu` engines have threads: for others it is
            refused.
        provider: what `cuda` engines run on: `"cuda"` (None), `"tensorrt"`, `"tensorrt-rtx"`, or `"cpu"` where there is no GPU.
        overlap: whether engines that a decode step does not wait for, where the model has such stages, run beside the others:
            those of `cpu` in a second thread (None: where it is measured to be quicker), those of TensorRT on a second stream
            (None: they do; whether it is quicker, no GPU has shown). Those of `cuda` can't.

    Raises:
        BundleError: not a bundle, or not whole.
        ConfigError: an unknown target, one the bundle has no engines for, a thread count below 1, not the shared pool's or of
            other engines than `cpu`'s, a provider that is unknown or for another target, or an overlap that the target can't
            do.
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

    if not late_stages(model.specs):
        return False
    shared = ", shared" if shared_threads() else ""
    question = f"whether late stages run beside the others with {model.threads} threads{shared}"
    return bool(remembered(question, model.bundle, _library(), (False, True), race))


def _thread_count(bundle: Bundle, target: str, threads: int | None) -> int:
    if threads is not None:
        require_threads(threads)
    if target != "cpu":
        if threads is not None:
            raise ConfigError(f"got threads={threads} for target {target}: only cpu engines have threads; leave it out")
        return 1
    shared = shared_threads()
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
