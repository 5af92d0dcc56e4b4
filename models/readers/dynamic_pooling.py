"""Reader of PiotrNawrot/dynamic-pooling's checkpoints (1e6f360, Apache 2.0).

Its trainer's `checkpoint_last.pt` holds the weights under `model_state`, the arguments of `MemTransformerLM` under
`model_config`, and all options of the training under `args`, where the stride of `fixed` boundaries is; `vocab` has the id of
the space, at which `whitespaces` are. Weights alone need a `config.json` with the same arguments under `kwargs`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from torch import Tensor

from ...errors import CheckpointError
from ..dynamic_pooling.config import EXPECTED_TOKENS, Activation, Boundaries, DynamicPoolingConfig
from ..dynamic_pooling.model import DynamicPooling
from ..weight_files import PAGE
from ..weights import Reading, names_in, read_weights, saved_beside
from .renaming import Change, Original, fill
from .settings import assumed, package_kwargs, require_known, words

CLASS = "MemTransformerLM"
CONTEXT = 2048
"""Tokens of a training sequence in all of the original's configurations."""
EXAMPLE = (
    f'{{"class": "{CLASS}", "kwargs": {{"n_token": 27, "n_head": 8, "d_model": 512, "d_head": 64, "d_inner": 2048, '
    '"model_config": "[2, (8,), 2]", "activation_function": "gelu", "boundaries_type": "entropy"}}'
)
FREQUENCIES = "pos_emb.inv_freq"
_SIGNS = {"word_emb.weight", "r_w_bias", "r_r_bias", "final_cast.weight", FREQUENCIES}
_BESIDE = ("context", "fixed_sf", "whitespace_id")
"""What `config.json` may say that is none of the class's arguments."""
_NOTES = ("repository", "commit", "boundary")
_TRAINING = words(
    "work_dir cuda log_interval data dataset init emb_init init_range emb_init_range init_std proj_init_std tokenizer_path "
    "optim lr scheduler warmup_step clip weight_decay adam_b1 adam_b2 adam_eps max_step batch_size batch_chunk roll shuffle "
    "fp16 seed nw eval_max_steps eval_interval eval_batch_size ckpt_path local_rank n_all_param autoreg"
)
"""Options of its trainer that change no logits."""


class _Kwargs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of the original's class, which has no defaults.

    Dropout and what the predictor of boundaries was trained on (`spikes_left`, `temp`, `prior`) change no logits.
    """

    n_token: int
    n_head: int
    d_model: int
    d_head: int
    d_inner: int
    model_config: Any
    activation_function: Activation
    boundaries_type: Boundaries
    pre_lnorm: Literal[False] = False
    dropout: float | None = None
    dropatt: float | None = None
    spikes_left: int | None = None
    temp: float | None = None
    prior: float | None = None


class _Said(NamedTuple):
    """What a checkpoint says of its model, and in what."""

    kwargs: Mapping[str, Any]
    beside: Mapping[str, Any]
    what: str


def is_dynamic_pooling(config: Mapping[str, Any], checkpoint: Path) -> bool:
    """Whether `config.json` names the original's class, or says nothing and the weights are those of one."""
    if config:
        return config.get("class") == CLASS
    return names_in(checkpoint) >= _SIGNS


def load_dynamic_pooling(path: Path, config: Mapping[str, Any], reading: Reading | None = None) -> DynamicPooling:
    """Load a checkpoint, its directory or its file, given its parsed `config.json` (empty: it has none); fp32, in eval mode.

    Raises:
        CheckpointError: no arguments or unknown ones, no weights, or tensors that are missing, left over or of another shape,
            by their original names.
        ConfigError: sizes that contradict each other.
    """
    reading = reading or Reading()
    said = _said(path, config)
    model_config = config_from_kwargs(said.kwargs, said.beside, said.what)
    if model_config.boundaries == "gumbel":
        reading.notes.append(
            "the original draws noise for gumbel boundaries whenever it runs, so that no two runs of it agree; here a boundary "
            "is where its probability is above 0.5"
        )
    assumed(reading.notes, said.beside, {"context": model_config.context})
    return _from_state_dict(read_weights(path, reading), model_config, path)


def config_from_kwargs(kwargs: Mapping[str, Any], beside: Mapping[str, Any], what: str) -> DynamicPoolingConfig:
    """Translate the constructor's arguments.

    Args:
        kwargs: of `MemTransformerLM`.
        beside: `context`, `fixed_sf` and `whitespace_id`, where they are known.
        what: they are, for messages.

    Raises:
        CheckpointError: arguments that the original does not have, or that no stage is computed for.
        ConfigError: sizes that contradict each other.
    """
    if kwargs.get("pre_lnorm"):
        raise CheckpointError(f"{what} says pre_lnorm true, expected false: the original refuses it, too, and computes nothing")
    try:
        given = msgspec.convert(dict(kwargs), _Kwargs)
        others = msgspec.convert({name: value for name, value in beside.items() if value is not None}, _Beside)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{what}: {error}; expected something like {EXAMPLE}; {PAGE}") from error
    return DynamicPoolingConfig(
        vocab_size=given.n_token,
        dim=given.d_model,
        heads=given.n_head,
        head_dim=given.d_head,
        ff_dim=given.d_inner,
        layers=_layers(given.model_config, what),
        boundaries=given.boundaries_type,
        activation=given.activation_function,
        context=others.context,
        stride=_stride(given, others, what),
        ids=_ids(given, others, what),
        tokens_per_firing=_tokens_per_firing(given),
    )


class _Beside(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    context: int = CONTEXT
    fixed_sf: int | None = None
    whitespace_id: int | None = None


def _said(path: Path, config: Mapping[str, Any]) -> _Said:
    """From `config.json`, or else from the trainer's file."""
    if config:
        kwargs = package_kwargs(config, CLASS, EXAMPLE, (*_BESIDE, *_NOTES))
        twice = next((name for name in _BESIDE if name in kwargs and kwargs[name] != config.get(name, kwargs[name])), None)
        if twice is not None:
            raise CheckpointError(f"config.json says {twice} {config[twice]!r} and in kwargs {kwargs[twice]!r}; leave one")
        both = {**kwargs, **config}
        own = {name: value for name, value in kwargs.items() if name not in _BESIDE}
        return _Said(own, {name: both[name] for name in _BESIDE if name in both}, f"config.json of {CLASS}")
    saved = saved_beside(path)
    args = _as_mapping(saved.get("args"))
    kwargs = _as_mapping(saved.get("model_config")) or {name: args[name] for name in _Kwargs.__struct_fields__ if name in args}
    if not kwargs:
        raise CheckpointError(
            f"{path} holds the weights of a {CLASS}, but neither model_config nor args, which say its sizes; write a "
            f"config.json beside it, for instance {EXAMPLE}; {PAGE}"
        )
    others = ("fixed_sf", "tgt_len", "eval_tgt_len", "eval_total_len")
    require_known(args, {*_TRAINING, *_Kwargs.__struct_fields__, *others}, f"args of {path}")
    lengths = [args[name] for name in ("tgt_len", "eval_total_len") if isinstance(args.get(name), int)]
    symbols = _as_mapping(_as_mapping(saved.get("vocab")).get("sym2idx"))
    beside = {"fixed_sf": args.get("fixed_sf"), "whitespace_id": symbols.get(" ")}
    return _Said(kwargs, {**beside, **({"context": max(lengths)} if lengths else {})}, f"model_config of {path}")


def _as_mapping(value: Any) -> Mapping[str, Any]:
    """A dict, or the attributes of a namespace; nothing else has any."""
    if isinstance(value, Mapping):
        return value
    return vars(value) if hasattr(value, "__dict__") else {}


def _layers(said: Any, what: str) -> tuple[int, int, int]:
    """Layers of the three towers: the original evaluates a text such as `[2, (8,), 2]`."""
    try:
        first, (coarse,), last = ast.literal_eval(said) if isinstance(said, str) else said
        return msgspec.convert((first, coarse, last), tuple[int, int, int])
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, msgspec.ValidationError) as error:
        raise CheckpointError(
            f'{what} says the model_config {said!r}, expected layers before, inside and after, such as "[2, (8,), 2]"'
        ) from error


def _stride(given: _Kwargs, others: _Beside, what: str) -> int | None:
    if given.boundaries_type != "fixed":
        return None
    if others.fixed_sf is None:
        raise CheckpointError(f"{what} does not say how many tokens there are between fixed boundaries: add fixed_sf; {PAGE}")
    return others.fixed_sf


def _ids(given: _Kwargs, others: _Beside, what: str) -> tuple[int, ...]:
    if given.boundaries_type != "whitespaces":
        return ()
    if others.whitespace_id is None:
        raise CheckpointError(f"{what} does not say which token is the space, where groups close: add whitespace_id; {PAGE}")
    return (others.whitespace_id,)


def _tokens_per_firing(given: _Kwargs) -> float:
    """Gumbel boundaries were trained to have a share of all tokens."""
    if given.boundaries_type == "gumbel" and given.prior is not None and 0 < given.prior <= 1:
        return 1 / given.prior
    return EXPECTED_TOKENS


def _from_state_dict(tensors: dict[str, Tensor], config: DynamicPoolingConfig, where: Path) -> DynamicPooling:
    """Build the model from the original's `state_dict`; `where` is named in errors."""
    shape = (config.dim // 2,)
    frequencies = tensors.get(FREQUENCIES)
    model = DynamicPooling(config, frequencies if frequencies is not None and frequencies.shape == shape else None)
    return fill(model, dict(_originals(config)), {FREQUENCIES: shape}, tensors, where)


Originals = Iterator[tuple[str, Original]]


def _originals(config: DynamicPoolingConfig) -> Originals:
    dim, towers = config.dim, ("pre", "middle.tower", "post")
    yield from _biases("biases.", config)
    yield "embed.weight", Original("word_emb.weight", (config.vocab_size, dim))
    yield from _linear("head", "final_cast", dim, config.vocab_size)
    for place, (tower, layers) in enumerate(zip(towers, config.layers, strict=True)):
        for layer in range(layers):
            yield from _layer(f"{tower}.layers.{layer}.", f"layers.{place}.{layer}.", config)
    if not config.is_vanilla:
        yield "middle.null", Original("null_group", (1, 1, dim))
        yield from _norm("middle.norm", "down_ln", dim)
    if config.is_predicted:
        yield from _linear("predictor.up", "boundary_predictor.boundary_predictor.0", dim, config.ff_dim)
        yield from _linear("predictor.out", "boundary_predictor.boundary_predictor.2", config.ff_dim, 1)


def _layer(ours: str, theirs: str, config: DynamicPoolingConfig) -> Originals:
    dim, inner = config.dim, config.heads * config.head_dim
    attention = f"{theirs}dec_attn."
    for part, shape in (("weight", (3 * inner, dim)), ("bias", (3 * inner,))):
        name = f"{attention}qkv_net.{part}"
        yield f"{ours}attention.attend.query.{part}", Original(name, shape, _rows(0, inner))
        yield f"{ours}key_value.projection.{part}", Original(name, shape, _rows(inner, 3 * inner))
    yield from _linear(f"{ours}attention.position", f"{attention}r_net", dim, inner)
    yield from _linear(f"{ours}attention.attend.out", f"{attention}o_net", inner, dim)
    yield from _biases(f"{ours}attention.attend.biases.", config)
    yield from _norm(f"{ours}norm", f"{attention}layer_norm", dim)
    yield from _linear(f"{ours}up", f"{theirs}pos_ff.CoreNet.0", dim, config.ff_dim)
    yield from _linear(f"{ours}down", f"{theirs}pos_ff.CoreNet.3", config.ff_dim, dim)
    yield from _norm(f"{ours}norm_out", f"{theirs}pos_ff.layer_norm", dim)


def _biases(ours: str, config: DynamicPoolingConfig) -> Originals:
    shape = (config.heads, config.head_dim)
    for ours_part, theirs in (("context", "r_w_bias"), ("location", "r_r_bias")):
        yield f"{ours}{ours_part}", Original(theirs, shape, lambda bias: bias[:, None])


def _linear(ours: str, theirs: str, inputs: int, outputs: int) -> Originals:
    yield f"{ours}.weight", Original(f"{theirs}.weight", (outputs, inputs))
    yield f"{ours}.bias", Original(f"{theirs}.bias", (outputs,))


def _norm(ours: str, theirs: str, dim: int) -> Originals:
    for part in ("weight", "bias"):
        yield f"{ours}.{part}", Original(f"{theirs}.{part}", (dim,))


def _rows(first: int, end: int) -> Change:
    return lambda tensor: tensor[first:end]
