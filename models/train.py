"""A small, honest trainer: one process, AdamW, a cosine schedule, resumable to the step, its curve on disk."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from ..errors import CheckpointError, ConfigError, reason_of
from ..files import write_atomically
from ..json_files import decode
from .architecture import Architecture
from .architectures import OwnModel, build_model
from .checkpoint import read_config, save_checkpoint
from .compute import training_flops_per_token
from .config import ModelConfig
from .dynamic.model import Dynamic
from .text import byte_tokenizer, encode, read_texts, train_tokenizer

Ids = npt.NDArray[np.int64]
_START_AGAIN = "remove it to start again, or choose another directory"


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train; everything that changes the result.

    With a `cooldown` the learning rate stays at its peak until this share of the steps is left, and falls along a line to a
    hundredth over those: so far a run does not depend on how many steps it will have, unlike along a cosine.

    `bf16` autocast pays only on CPUs with AVX512-BF16 or AMX: without them it is many times slower than fp32.

    Raises:
        ConfigError: a number that nothing can be trained with.
    """

    steps: int
    batch: int = 4
    context: int = 512
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    eval_every: int = 250
    seed: int = 0
    bf16: bool = False
    cooldown: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "context", "eval_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"the learning rate is {self.learning_rate}, expected more than 0 and finite")
        if self.cooldown is not None and not 0 < self.cooldown <= 1:
            raise ConfigError(f"the cooldown is {self.cooldown}, expected a share of the steps, above 0 and at most 1")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"the seed is {self.seed}, expected 0 to 2^63 - 1")


class CurvePoint(msgspec.Struct, frozen=True):
    """One evaluation; seconds are wall-clock seconds of training so far, evaluation excluded."""

    step: int
    tokens: int
    seconds: float
    train_loss_nats: float
    valid_loss_nats: float
    valid_bits_per_byte: float


class TrainReport(msgspec.Struct, kw_only=True):
    """What a run was and what came of it (`training.json`)."""

    settings: TrainSettings
    parameters: int
    train_tokens: int
    flops_per_token: float
    curve: list[CurvePoint]


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Linear warm-up, then a cosine down to a tenth, or a constant and a cooldown."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.cooldown is not None:
        left = (settings.steps - step) / max(settings.cooldown * settings.steps, 1)
        return settings.learning_rate * min(1.0, max(left, 0.01))
    done = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    return settings.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0))))


def batch_at(step: int, data: Ids, settings: TrainSettings) -> Tensor:
    """Random windows `[batch, context + 1]` that depend on the seed and the step only, so a resumed run sees the same."""
    rng = np.random.default_rng((settings.seed, step))
    starts = rng.integers(0, len(data) - settings.context, settings.batch)
    return torch.from_numpy(np.stack([data[start : start + settings.context + 1] for start in starts]))


def forward_to_train(model: OwnModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Ids `[B, L]` -> logits `[B, L, V]`, and what a model that learns its own schedule adds to their loss, a number."""
    return model.forward_to_train(ids) if isinstance(model, Dynamic) else (model(ids), torch.zeros(()))


@torch.no_grad()
def evaluate(model: Architecture, data: Ids, context: int, batch: int = 8, limit: int | None = None) -> float:
    """Mean loss in nats per token over consecutive windows of `context` tokens (each starts without a past)."""
    windows = (len(data) - 1) // context
    windows = min(windows, limit) if limit else windows
    total = 0.0
    for start in range(0, windows, batch):
        rows = [data[i * context : (i + 1) * context + 1] for i in range(start, min(start + batch, windows))]
        ids = torch.from_numpy(np.stack(rows))
        logits = model(ids[:, :-1])
        total += F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").item()
    return total / (windows * context)


class Trainer:
    """Trains one model in one directory; a second `run()` there goes on where the first one stopped.

    Given more steps than the first, it goes on too, from there on by the longer schedule's learning rates.

    The directory holds a checkpoint (fp16), `training.json` with the curve, and `resume.pt`, which may be deleted at the end.

    Raises:
        ConfigError: the text is shorter than one context.
        CheckpointError: the directory holds a run with other settings or another tokenizer, or a model and no run.
    """

    def __init__(
        self,
        config: ModelConfig,
        settings: TrainSettings,
        tokenizer: Tokenizer,
        train: list[Path],
        valid: list[Path],
        out: Path,
    ) -> None:
        self.settings, self.out = settings, out
        valid_texts = read_texts(valid)
        self.train_ids, self.valid_ids = encode(tokenizer, read_texts(train)), encode(tokenizer, valid_texts)
        for name, ids in (("training", self.train_ids), ("validation", self.valid_ids)):
            if len(ids) <= settings.context:
                raise ConfigError(
                    f"the {name} text has {len(ids)} tokens, expected more than the context of {settings.context}"
                )
        self.bytes_per_token = sum(len(text.encode()) for text in valid_texts) / len(self.valid_ids)
        torch.manual_seed(settings.seed)
        self.model = build_model(config)
        decayed = [p for p in self.model.parameters() if p.dim() >= 2]
        plain = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
        self.step, self.seconds = 0, 0.0
        self.report = TrainReport(
            settings=settings,
            parameters=sum(p.numel() for p in self.model.parameters()),
            train_tokens=len(self.train_ids),
            flops_per_token=training_flops_per_token(self.model, settings.context),
            curve=[],
        )
        self._resume(config, tokenizer)  # refuses before anything is written
        write_atomically(out / "tokenizer.json", tokenizer.to_str(pretty=True).encode())

    def run(
        self,
        on_step: Callable[[int, float], None] | None = None,
        minutes: float | None = None,
        until_step: int | None = None,
    ) -> TrainReport:
        """Train to `settings.steps`, or for so many minutes of this call; `on_step(step, loss)` is called after each step.

        Where the minutes end first, or the run comes to `until_step`, the last step is evaluated and kept like any other, and
        the next call goes on from there; the learning rates are those of a run to `settings.steps`.

        Raises:
            ConfigError: no more than 0 minutes.
            CheckpointError: the loss is infinite or NaN; no such model is written.
        """
        if minutes is not None and not minutes > 0:
            raise ConfigError(f"got {minutes} minutes, expected more than 0, or None for as long as it takes")
        until = math.inf if minutes is None else time.monotonic() + 60 * minutes
        last_step = self.settings.steps if until_step is None else min(until_step, self.settings.steps)
        losses: list[float] = []
        while self.step < last_step:
            started = time.perf_counter()
            losses.append(self._train_step())
            if not math.isfinite(losses[-1]):
                raise CheckpointError(
                    f"the loss is {losses[-1]} at step {self.step + 1}: the training has gone astray; {self.out} has what was "
                    "kept before, if anything. Start again elsewhere with a lower learning rate"
                )
            self.seconds += time.perf_counter() - started
            self.step += 1
            if on_step is not None:
                on_step(self.step, losses[-1])
            is_over = time.monotonic() >= until
            if is_over or self.step % self.settings.eval_every == 0 or self.step == last_step:
                self._evaluate(sum(losses) / len(losses))
                losses.clear()
            if is_over:
                break
        return self.report

    def _train_step(self) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        ids = batch_at(self.step, self.train_ids, self.settings)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16):
            logits, extra = forward_to_train(self.model, ids[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        self.optimizer.zero_grad(set_to_none=True)
        (loss + extra).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        return loss.item()

    def _evaluate(self, train_loss: float) -> None:
        is_last = self.step == self.settings.steps
        self.model.eval()
        loss = evaluate(self.model, self.valid_ids, self.settings.context, limit=None if is_last else 64)
        self.model.train()
        tokens = self.step * self.settings.batch * self.settings.context
        bits = loss / math.log(2) / self.bytes_per_token
        self.report.curve.append(CurvePoint(self.step, tokens, self.seconds, train_loss, loss, bits))
        save_checkpoint(self.model, self.out)
        write_atomically(self.out / "training.json", msgspec.json.format(msgspec.json.encode(self.report), indent=1) + b"\n")
        self._save_resume()

    def _save_resume(self) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        data = io.BytesIO()  # torch's own writer says nothing of a full disk
        torch.save({**state, "seconds": self.seconds}, data)
        write_atomically(self.out / "resume.pt", data.getvalue())

    def _resume(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        path = self.out / "resume.pt"
        if not path.exists():
            self._require_room()
            return
        try:
            report = decode((self.out / "training.json").read_bytes(), TrainReport)
        except msgspec.MsgspecError as error:
            raise CheckpointError(
                f"{self.out / 'training.json'} is not the report of a run: {error}; {_START_AGAIN}"
            ) from error
        if found := [*_differences(read_config(self.out), config), *_differences(report.settings, self.settings)]:
            raise CheckpointError(
                f"{self.out} holds a run with other settings: {', '.join(found)}; use them again or choose another directory"
            )
        self._require_tokenizer(tokenizer)
        data = io.BytesIO(path.read_bytes())
        try:
            state = torch.load(data, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
        except Exception as error:  # torch raises whatever the broken file provokes
            raise CheckpointError(f"{path} is not the state of this run: {reason_of(error)}; {_START_AGAIN}") from error
        self.report = report
        self.report.settings = self.settings
        self.report.curve = [point for point in report.curve if point.step <= self.step]  # it is written before the state

    def _require_room(self) -> None:
        """Training replaces what has these names, so that a model of someone else's would be lost."""
        found = next(
            (name for name in ("manifest.json", "config.json", "model.safetensors") if (self.out / name).exists()), None
        )
        if found is not None:
            raise CheckpointError(
                f"{self.out} holds {found}, but no resume.pt of a run to go on with; choose another directory, or remove what "
                "is there"
            )

    def _require_tokenizer(self, tokenizer: Tokenizer) -> None:
        """The model knows the ids of its own only."""
        path = self.out / "tokenizer.json"
        if path.exists() and _read_tokenizer(path).to_str() != tokenizer.to_str():
            raise CheckpointError(
                f"{self.out} holds a run with another tokenizer, as one of other text is; go on with --tokenizer {path}, "
                "or choose another directory"
            )


def _differences(there: msgspec.Struct, asked: msgspec.Struct) -> list[str]:
    """As `seed is 0 there, 1 was asked for`; a run may be given more steps."""
    pairs = ((name, getattr(there, name), getattr(asked, name)) for name in there.__struct_fields__ if name != "steps")
    return [f"{name} is {old!r} there, {new!r} was asked for" for name, old, new in pairs if old != new]


def tokenizer_for(train: list[Path], vocab_size: int, given: str | Path | None) -> Tokenizer:
    """The tokenizer of a path, that of `"bytes"`, or one of `vocab_size` tokens trained on the training text.

    Raises:
        ConfigError: the file is no tokenizer, or has ids that the vocabulary has not.
    """
    if given is None:
        return train_tokenizer(read_texts(train), vocab_size)
    tokenizer = byte_tokenizer() if given == "bytes" else _read_tokenizer(Path(given))
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= vocab_size:
        raise ConfigError(f"the tokenizer has ids up to {largest}, the model's vocabulary {vocab_size} tokens")
    return tokenizer


def _read_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizer.json`, without its truncation and padding, which would cut texts and fill them up.

    Raises:
        ConfigError: it is none.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # a plain Exception is all that the library raises
        raise ConfigError(f"{path} is not a tokenizer.json: {reason_of(error)}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def use_threads(threads: int | None) -> None:
    """Set the number of PyTorch threads; None leaves its choice.

    Raises:
        ConfigError: fewer than one.
    """
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}; leave it out for PyTorch's own choice")
        torch.set_num_threads(threads)
