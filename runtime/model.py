"""A loaded bundle: engines, manifest and tokenizer, shared by any number of sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ..bundle import Bundle, Manifest, check_target, open_bundle
from ..contents import Verify
from ..contract import EndRule, StageSpec, late_stages, rules_by_name
from ..errors import ConfigError, InputError
from ..parallel import together
from ..storage import storage_errors
from .backends import open_engines
from .batches.batch import PREFILL_SECONDS, Batch
from .batches.generate_many import GeneratedMany, counted, settings_of_all, settings_of_each
from .batches.phases import Policy
from .capacity import whole
from .decoder_factory import Engines
from .engines.native import NativeEngine
from .engines.native_library import native_library
from .engines.onnxruntime import OnnxRuntimeEngine
from .engines.onnxruntime_library import import_onnxruntime, require_threads, shared_threads
from .generation.generate import GeneratedIds, GeneratedText, begin
from .generation.request import Request
from .generation.settings import Settings, check_count, check_names, params_of
from .given import several, shown
from .guides.constraint import Constraint
from .ids import checked_ids
from .native_engines import runs_on, stages_with_programs
from .races import remembered
from .sampling import SamplingParams
from .session import Session
from .speculation.costs import CallCosts
from .speculation.drafting import Drafting
from .speculation.model_drafter import Guesses
from .speculation.opening import checked_bundle, drafting_of
from .state_copies import COPIES_BYTES
from .threads import fastest_thread_count, overlap_helps, thread_counts
from .tokenizer import TextTokenizer, check_text, load_tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .generation.observer import GenerationObserver
    from .guides.guide import Guide
    from .guides.guides import Guides

_NO_STOP = "stop strings are of text, and ids have none; give end tokens (end=2, or --end 2), or write text"


class Model:
    """Engines of one bundle. Immutable; its sessions may run in different threads (on a GPU their calls take turns: they share
    a stream)."""

    def __init__(
        self,
        bundle: Bundle,
        target: str,
        threads: int,
        provider: str | None = None,
        overlap: bool | None = None,
        native: bool | None = None,
        engines: Engines | None = None,
    ) -> None:
        self.bundle, self.target, self.threads, self.provider = bundle, target, threads, provider
        if engines is None:
            engines = open_engines(bundle, target, threads, provider, overlap=overlap, native=native)
        self.engines = engines
        self.overlap = bool(overlap) if isinstance(engines, Sequence) else engines.overlap
        self.identity = bundle.identity(target)
        self._costs, self._drafting_models = CallCosts(self.specs), dict[Path, Model]()
        self.guesses = Guesses()
        self.tokenizer: TextTokenizer | None = load_tokenizer(bundle.manifest.tokenizer, bundle.path)

    @property
    def host_engines(self) -> tuple[OnnxRuntimeEngine, ...]:
        """The graphs that work in the host's memory: all of target `cpu`'s, none of another's."""
        engines = self.engines if isinstance(self.engines, tuple) else ()
        return tuple(engine.graph if isinstance(engine, NativeEngine) else engine for engine in engines)

    def open_graphs(self) -> None:
        """Open now what is otherwise opened at the first call that needs it.

        Of stages with native steps ONNX Runtime's graph, which runs calls of more than 16 rows; of stages in 8 or 4 bits the
        second graph, for 32 rows and more (docs/engines.md). Of other targets everything is open.

        Raises:
            EngineMismatchError: this onnxruntime can't load one.
        """
        together([engine.open for engine in self.host_engines], [entry.weight_bytes for entry in self.manifest.stages])

    @property
    def runs_on(self) -> dict[str, str]:
        """What each stage of `cpu` engines runs on, for people, and why not natively; none of another target's."""
        if self.target != "cpu":
            return {}
        told = runs_on(self.bundle)
        return {name: on if name in self.native_stages else _not_natively(on) for name, on in told.items()}

    @property
    def native_stages(self) -> frozenset[str]:
        """Names of the stages that run their program of native steps for a few rows (docs/engines.md)."""
        engines = self.engines if isinstance(self.engines, tuple) else ()
        return frozenset(engine.spec.name for engine in engines if isinstance(engine, NativeEngine))

    @property
    def specs(self) -> Sequence[StageSpec]:
        """Of the stages, in dataflow order."""
        return [entry.spec for entry in self.manifest.stages]

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    def session(self, batch: int = 1, capacity: int | None = None, copies_bytes: int = COPIES_BYTES) -> Session:
        """A fresh session for `batch` sequences of at most `capacity` tokens (None: as many as the engines
        hold of the model's context).

        Of a model with recurrent state, `copies_bytes` are for copies of it: the more there are, the fewer rows run again after
        a rewind (docs/embedding.md).

        Raises:
            ConfigError: a batch below 1, or `copies_bytes` that are no number of at least 0.
            CapacityError: a capacity beyond the model's positions.
        """
        return Session(self.engines, self.manifest.model, batch, capacity, self.overlap, self.identity, copies_bytes)

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
        self, prompt: str | npt.ArrayLike, *, observer: GenerationObserver | None = None, **settings: Unpack[Settings]
    ) -> GeneratedText:
        """Continue `prompt`, text or ids `[T]`; gives pieces of text as they become certain (none is taken back).

        The same seed gives the same text. At temperature 0, or with a `top_k` of 1, the likeliest token is always taken: then
        `top_k`, `top_p`, `min_p` and `seed` change nothing. Ends at `max_new_tokens`, before a stop string or one of the tokens
        `end` (ids, or as the tokenizer writes them, such as `"</s>"`), by one of the model's own `end_rules`, when the context
        is full, when a constraint allows nothing more, or after `max_seconds`: `finish_reason` of the result says which. `for`
        and `async for` go through it.

        With `draft` several tokens are checked in one call where that saves time; the text is the same. `"ngrams"` drafts from
        the prompt and the text itself, a bundle's path or a model by that model, which needs the same tokenizer.
        `draft_tokens` are the most of one draft; how many are best is measured. `speculation` of the result says what it came
        to (docs/speculation.md).

        Args:
            prompt: text or ids.
            observer: is told of calls, firings, draws and drafts (`runtime/generation/observer.py`, docs/tracing.md).
            settings: those of `SamplingParams`; `json_schema`, `regex` or `grammar`, of which the text follows one; `end` and
                `end_rules`; `draft` and `draft_tokens`.

        Raises (at the call):
            InputError: an unknown setting, settings out of range, an empty prompt, one that is no text, several prompts, or an
                unknown end token or end rule.
            CapacityError: the prompt is longer than the context.
            ConfigError: the bundle has no tokenizer.
        """
        request = self.request(prompt, settings, observer=observer)
        return GeneratedText(*begin(self._session(observer), request, observer))

    def _session(self, observer: GenerationObserver | None) -> Session:
        if observer is None:
            return self.session()
        from .generation.observed import ObservedSession

        return ObservedSession.of(self, observer)

    def generate_many(
        self,
        prompts: Iterable[str | npt.ArrayLike],
        slots: int = 16,
        *,
        capacity: int | None = None,
        policy: Policy = "aligned",
        prefill_seconds: float = 0.1,
        n: int = 1,
        **settings: Any,
    ) -> GeneratedMany:
        """Continue any number of prompts, `slots` at a time; gives (index of the text, piece of it) as they become certain.

        The text of each is what `generate` gives for it alone, with the same settings and seed, up to how the engine's kernels
        round for several rows (docs/batches.md). A prompt that can't be taken raises an error that names it when its turn
        comes; the others go on: ask for the next piece.

        Args:
            prompts: texts or ids `[T]`; taken one by one as slots become free, so that there may be any number.
            slots: sequences at once.
            capacity: as of `batch`.
            policy: as of `batch`; the default gives the most tokens per second of all texts together.
            prefill_seconds: likewise.
            n: texts of each prompt, which is read once for all of them; text k of prompt i has index `i * n + k`, and a seed
                that is larger by k, if there is one.
            settings: as of `generate`. A list gives each prompt its own; of `stop`, `end` and `end_rules` a list of lists does.
                With `draft`, texts leave the steps that they share where that saves time, as with few of them at once.

        Raises (at the call):
            InputError: an unknown setting or end token, one out of range, a list of another length than there are prompts, or
                a single prompt. Where it is not known how many prompts there are, what a list has for each is looked at when
                its turn comes.
            ConfigError, CapacityError, EngineMismatchError: as `batch`; ConfigError if the bundle has no tokenizer.
        """
        self.required_tokenizer()
        each, count = counted(prompts)
        n = whole("n", n, InputError)
        check_count(n)
        check_names(settings)
        of_all = settings_of_all(settings)
        self._check_settings(of_all)
        if count is None and not any(isinstance(settings.get(name), list) for name in ("draft", "draft_tokens")):
            self._drafting(of_all.get("draft"), of_all.get("draft_tokens"))
        for index in range(count or 0):
            of_each = settings_of_each(settings, index, count)
            self._check_settings(of_each)
            self._drafting(of_each.get("draft"), of_each.get("draft_tokens"))
        batch = self.batch(slots, capacity, policy, prefill_seconds)

        def request(index: int, prompt: str | npt.ArrayLike) -> Request:
            return self.request(prompt, settings_of_each(settings, index, count))

        return GeneratedMany(batch, each, request, n)

    def request(
        self,
        prompt: str | npt.ArrayLike,
        settings: Mapping[str, Any],
        as_text: bool = True,
        observer: GenerationObserver | None = None,
    ) -> Request:
        """What to continue, and how, checked.

        Args:
            prompt: text or ids `[T]`.
            settings: as of `generate`.
            as_text: whether text is made of what comes, or ids alone.
            observer: is told of a drafting model's calls.

        Raises: as `generate`, but for the length of the prompt; InputError for stop strings of ids alone.
        """
        drafting = self._drafting(settings.get("draft"), settings.get("draft_tokens"), observer)
        return self._request(
            prompt, params_of(settings), settings.get("end", ()), settings.get("end_rules", ()), as_text, drafting
        )

    def _request(
        self,
        prompt: str | npt.ArrayLike,
        params: SamplingParams,
        end: int | str | Sequence[int | str],
        end_rules: str | Sequence[str],
        as_text: bool,
        drafting: Drafting | None,
    ) -> Request:
        self._check_params(params)
        if params.stop and not as_text:
            raise InputError(_NO_STOP)
        tokenizer, ends = self.required_tokenizer() if as_text else None, frozenset(self.end_ids(end))
        guide = self._guide(params.constraint, ends)
        return Request(self.prompt_ids(prompt), params, ends, tokenizer, guide, self.end_rules(end_rules), drafting)

    def _drafting(self, draft: object, most: object, observer: GenerationObserver | None = None) -> Drafting | None:
        if draft is None:
            if most is not None:
                raise InputError("draft_tokens is given, and no draft: there is nothing that it is the length of")
            return None
        if observer is None:
            return drafting_of(draft, most, self, self._costs, self._drafting_model)
        from .generation.observed import ObservedModel

        return drafting_of(draft, most, self, self._costs, lambda one: ObservedModel(self._drafting_model(one), observer))

    def _drafting_model(self, draft: object) -> Model:
        """One that is loaded, or a bundle's, loaded once, on the same target and with as many threads."""
        if isinstance(draft, Model):
            return draft
        bundle = checked_bundle(draft)
        path = (bundle.path if isinstance(bundle, Bundle) else Path(bundle)).resolve()
        if path not in self._drafting_models:
            threads = self.threads if self.target == "cpu" and shared_threads() is None else None
            self._drafting_models[path] = load(bundle, self.target, threads, self.provider)
        return self._drafting_models[path]

    def _check_params(self, params: SamplingParams) -> None:
        """What depends on the model."""
        size = self.manifest.model.vocab_size
        if params.logit_bias and max(params.logit_bias) >= size:
            raise InputError(f"logit_bias has id {max(params.logit_bias)}, expected ids below {size}")

    def _guide(self, constraint: Constraint | None, end_ids: frozenset[int]) -> Callable[[], Guide] | None:
        if constraint is None:
            return None
        guides, wanted = self.guides, constraint
        return lambda: guides.guide(wanted, end_ids)

    @cached_property
    def guides(self) -> Guides:
        """Opens constraints for the model's tokenizer.

        Raises:
            ConfigError: the bundle has none.
            InputError: what its tokens are in bytes can't be said.
            BackendUnavailable: llguidance is not installed.
        """
        from .guides.guides import Guides

        return Guides(self.required_tokenizer(), self.manifest.model.vocab_size)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        self._check_params(params_of(settings))
        self.end_ids(settings.get("end", ()))
        self.end_rules(settings.get("end_rules", ()))

    def generate_ids(
        self,
        prompt: str | npt.ArrayLike,
        params: SamplingParams | None = None,
        *,
        end: int | str | Sequence[int | str] = (),
        end_rules: str | Sequence[str] = (),
        draft: str | Path | Bundle | Model | None = None,
        draft_tokens: int | None = None,
        observer: GenerationObserver | None = None,
    ) -> GeneratedIds:
        """Continue ids `[T]`, or text, by ids, which takes no tokenizer; ends, drafts, `observer` and `finish_reason` as of
        `generate`.

        Raises (at the call): as `generate`; InputError for stop strings, which are of text.
        """
        drafting = self._drafting(draft, draft_tokens, observer)
        request = self._request(prompt, params or SamplingParams(), end, end_rules, False, drafting)
        return GeneratedIds(*begin(self._session(observer), request, observer))

    def end_rules(self, names: str | Sequence[str]) -> tuple[EndRule, ...]:
        """The model's own ends, by name.

        Raises:
            InputError: a name that the model has no rule of.
        """
        there = rules_by_name(self.manifest.model.end_rules)
        given = several(names)
        for name in given:
            if not isinstance(name, str) or name not in there:
                listed = "; ".join(f"{one}: {' or '.join(map(str, rules))}" for one, rules in there.items())
                raise InputError(f"the model has no end rule {shown(name)}; it has {listed or 'none: name end tokens'}")
        return tuple(rule for name in dict.fromkeys(given) for rule in there[name])

    def end_ids(self, end: int | str | Sequence[int | str]) -> tuple[int, ...]:
        """Ids of tokens given as ids, or as the tokenizer writes them.

        Raises:
            InputError: a token that the tokenizer has not, or an id that the model has not.
        """
        ids = [self._token_id(one) if isinstance(one, str) else one for one in several(end)]
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
        check_text(token, "the end token")
        found = self.required_tokenizer().token_id(token)
        if found is None:
            raise InputError(f"the tokenizer has no token {shown(token)}; give it as the tokenizer.json writes it, or its id")
        return found

    def prompt_ids(self, prompt: str | npt.ArrayLike) -> list[int]:
        """Ids of a prompt, text or ids `[T]`.

        Raises:
            InputError: no text, ids that the model has not, or several prompts.
            ConfigError: text, and the bundle has no tokenizer.
        """
        if isinstance(prompt, str):
            check_text(prompt, "the prompt")
            return self.required_tokenizer().encode(prompt)
        if isinstance(prompt, Sequence) and any(isinstance(one, str) for one in prompt):
            raise InputError(f"got {len(prompt)} prompts, expected one; call generate for each, it is as fast")
        found: list[int] = checked_ids(prompt, self.manifest.model.vocab_size, "the prompt's ids").tolist()
        return found


@storage_errors()
def load(
    bundle: str | Path | Bundle,
    target: str = "cpu",
    threads: int | None = None,
    provider: str | None = None,
    overlap: bool | None = None,
    verify: Verify = "used",
    native: bool | None = None,
) -> Model:
    """Load a bundle's engines.

    Args:
        bundle: a bundle directory, its name on a hub (`hf:owner/name@revision`, docs/hub.md), or one that was opened before.
        target: what the engines were built for.
        threads: threads of the engine library; None: those of `share_threads` if it was called, else chosen by a quick
            measurement on this machine, which is remembered (`races.py`). Only `cpu` engines have threads: for others it is
            refused.
        provider: what `cuda` engines run on: `"cuda"` (None), `"tensorrt"`, `"tensorrt-rtx"`, or `"cpu"` where there is no GPU.
        overlap: whether engines that a decode step does not wait for, where the model has such stages, run beside the others:
            those of `cpu` in a second thread (None: where it is measured to be quicker), those of TensorRT on a second stream
            (None: they do; whether it is quicker, no GPU has shown). Those of `cuda` can't.
        verify: which files of a directory are hashed before anything is computed: `"used"`: those that this target reads;
            `"all"`: every one; `"once"`: as used, but large ones that this machine has hashed before are taken as whole if
            nobody wrote to them since. That every file is there, of its size, is looked at always.
        native: whether stages run their programs of native steps (docs/engines.md): None: those that have one, where
            foveal-native is installed; True: all of them, else it is refused; False: none. Of `cpu` engines only.

    Raises:
        BundleError: not a bundle, or not whole.
        HubError: a hub does not give it.
        ConfigError: an unknown target, one the bundle has no engines for, a thread count below 1, not the shared pool's or of
            other engines than `cpu`'s, a provider that is unknown or for another target, an overlap that the target can't
            do, another `verify`, or `native` where it can't be.
        BackendUnavailable: the target's engine library is not installed, or there is no GPU where it needs one; or
            foveal-native is not, and `native` is True.
        EngineMismatchError: the engines were made for something else.
    """
    opened, raced = _opened(bundle, target, verify), _Raced(native)
    chosen = _thread_count(opened, target, threads, raced)
    model = Model(opened, target, chosen, provider, overlap, native, raced.engines.get(chosen))
    if target == "cpu" and overlap is None:
        model.overlap = _overlap_helps(model)
    return model


def threads_of(bundle: str | Path | Bundle, target: str = "cpu", verify: Verify = "used", native: bool | None = None) -> int:
    """The engine threads that `load` would choose here, without loading what is known already.

    Raises:
        BundleError, ConfigError, BackendUnavailable, EngineMismatchError: as `load`.
    """
    return _thread_count(_opened(bundle, target, verify), target, None, _Raced(native))


def runs_natively(bundle: str | Path | Bundle, native: bool | None = None) -> bool:
    """Whether a stage of its `cpu` engines would run native steps here, loaded with this `native`.

    Raises:
        BundleError, ConfigError: as `load`.
    """
    return native is not False and bool(stages_with_programs(_opened(bundle, "cpu", "used")))


def _opened(bundle: str | Path | Bundle, target: str, verify: Verify) -> Bundle:
    check_target(target)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle, verify)
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
    return bool(remembered(question, model.bundle, _library(bool(model.native_stages)), (False, True), race))


@dataclass
class _Raced:
    """Engines that raced, by their threads: one of them is the model's, and need not be opened again; `native` as of `load`."""

    native: bool | None
    engines: dict[int, Engines] = field(default_factory=dict)


def _thread_count(bundle: Bundle, target: str, threads: int | None, raced: _Raced) -> int:
    if threads is not None:
        require_threads(threads)
    if target != "cpu":
        if threads is not None:
            raise ConfigError(f"got threads={threads} for target {target}: only cpu engines have threads; leave it out")
        return 1
    shared = shared_threads()
    if shared is None:
        return threads or _fastest_thread_count(bundle, raced)
    if threads not in (None, shared):
        raise ConfigError(f"this process shares a pool of {shared} threads, got threads={threads}; leave it out")
    return shared


def _fastest_thread_count(bundle: Bundle, raced: _Raced) -> int:
    def opened(threads: int) -> Session:
        raced.engines[threads] = open_engines(bundle, "cpu", threads, native=raced.native)
        return Session(raced.engines[threads], bundle.manifest.model)

    def race() -> int:
        return fastest_thread_count(opened)

    library = _library(runs_natively(bundle, raced.native))
    return remembered("how many threads decode fastest", bundle, library, tuple(thread_counts()), race)


def _not_natively(told: str) -> str:
    """Of a stage that does not run natively, though it could: it was told not to."""
    return told if told.startswith("onnxruntime") else "onnxruntime: loaded with native=False (--no-native)"


def _library(with_native: bool) -> str:
    name = f"onnxruntime {import_onnxruntime().__version__}"
    return f"{name}, foveal-native {native_library().version} ({native_library().isa})" if with_native else name
