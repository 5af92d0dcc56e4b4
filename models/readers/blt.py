"""Reader of BLT checkpoints, as transformers' `BltForCausalLM.save_pretrained` writes them (5.24 read and run).

Everything that `config.json` may say is read, or known to change no logits, or refused by name. Two things are ours to choose:
`boundaries`, another rule for where patches end, and `patching_threshold`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ..blt.boundaries import BYTES, ENTROPY, FIXED, SPECIAL
from ..blt.config import BltConfig
from ..blt.model import Blt
from ..checkpoint import check_tensors
from ..config import LayerConfig
from ..weight_files import PAGE
from ..weights import Reading, read_weights
from .settings import ANNOTATIONS, NO_EFFECT, require_known, words

EXAMPLE = "that which save_pretrained wrote with it"
MODEL_TYPE, CLASS = "blt", "BltForCausalLM"
EMBEDDING, HEAD = "local_encoder.embed_tokens.weight", "lm_head.weight"
GROUPS = "encoder_hash_tok_embedding.weight"
PATCHER = "patcher."
Shapes = dict[str, tuple[int, ...]]
MODES = ("entropy", "bpe", "bpe_patcher", "space", "static", "byte")
"""Of the original project. transformers has the first; with any other it makes each byte a patch of its own."""
_SILENT = NO_EFFECT | words(
    "patching_batch_size tie_word_embeddings max_position_embeddings encoder_cross_output_size is_encoder_decoder"
)
"""Of a tower, or of the whole: what changes nothing. Towers are never tied."""
_ROPE = words("rope_parameters rope_theta rope_scaling")


class _Tower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of one of the four models; None or 0: what transformers takes for it."""

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    num_key_value_heads: int | None = None
    intermediate_size: int | None = None
    rms_norm_eps: float = 1e-5
    hidden_act: str = "silu"
    head_dim: int | None = None
    vocab_size: int | None = None
    cross_attn_all_layers: bool = False
    cross_attn_k: int = 2
    hidden_size_global: int | None = None
    sliding_window: int | None = None
    attention_bias: bool = False
    mlp_bias: bool = False


_DEFAULTS: dict[str, dict[str, Any]] = {
    "encoder_config": {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 1, "vocab_size": 260},
    "global_config": {
        "hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 25, "intermediate_size": 5632,
    },
    "decoder_config": {
        "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 9, "intermediate_size": 2816,
        "cross_attn_all_layers": True, "hidden_size_global": 2048, "vocab_size": 260,
    },
    "patcher_config": {
        "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 14, "intermediate_size": 2048,
        "sliding_window": 512, "vocab_size": 260,
    },
}  # fmt: skip
"""Of transformers, by tower."""
_THETAS = {"encoder_config": 500_000.0, "global_config": 500_000.0, "decoder_config": 500_000.0, "patcher_config": 10_000.0}


class _Whole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of the whole."""

    vocab_size: int = 260
    max_position_embeddings: int = 4096
    patch_in_forward: bool | None = True
    patch_size: int | None = 4
    patching_mode: str | None = ENTROPY
    patching_threshold: float | None = 1.335442066192627
    max_patch_length: int | None = None
    local_attention_window_len: int | None = 512
    cross_attn_k: int = 2
    encoder_hash_byte_group_size: list[int] | None = None
    encoder_hash_byte_group_vocab: int = 500002
    encoder_hash_byte_group_nb_functions: int = 1
    tie_word_embeddings: bool = False
    boundaries: str | None = None


def is_blt(config: Mapping[str, Any], _path: Path) -> bool:
    """Whether `config.json` is of a BLT: no shape shows its heads, so without it a checkpoint can't be read."""
    architectures = config.get("architectures")
    named = isinstance(architectures, list) and CLASS in architectures
    return config.get("model_type") == MODEL_TYPE or config.get("class") == CLASS or named


def load_blt(
    path: Path,
    config: Mapping[str, Any],
    reading: Reading | None = None,
) -> Blt:
    """Load a checkpoint; weights widened to fp32, in eval mode.

    Args:
        path: its directory with one file of weights (or shards with an index), or that file.
        config: the parsed `config.json`.
        reading: which of several models in the file, another rule for where patches end (`"entropy"`, `"space"`, `"fixed:4"`)
            or threshold in nats than `config.json` says, and where to note what was assumed.

    Raises:
        CheckpointError: no weights, tensors that are missing, left over or of another shape, or settings that are unknown,
            contradict each other or can't be honoured.
        ConfigError: sizes that mean nothing, a threshold that entropy can't have, or an unknown rule.
    """
    reading = reading or Reading()
    whole = _whole(config)
    rule = reading.boundaries or whole.boundaries or _rule_of(whole, reading.notes)
    if reading.threshold is not None and rule != ENTROPY:
        raise ConfigError(f'a threshold is for boundaries "{ENTROPY}", got {reading.threshold} for "{rule}"; leave it out')
    sizes = _sizes(config, whole, rule, whole.patching_threshold if reading.threshold is None else reading.threshold)
    if sizes.vocab_size == SPECIAL + BYTES:
        reading.ids = f"bytes+{SPECIAL}"
    tensors = {name.removeprefix("model."): value for name, value in read_weights(path, reading).items()}
    return _filled(sizes, _all_read(config), tensors, path, reading.notes)


def _filled(config: BltConfig, all_read: bool, tensors: dict[str, Tensor], path: Path, notes: list[str]) -> Blt:
    if config.patcher is None:
        unused = [name for name in tensors if name.startswith(PATCHER)]
        if unused:
            notes.append(f'the patcher is left out: boundaries "{config.boundaries}" have no use for it')
        tensors = {name: value for name, value in tensors.items() if not name.startswith(PATCHER)}
    elif not any(name.startswith(PATCHER) for name in tensors):
        raise CheckpointError(
            f'{path} has no patcher, which boundaries "{ENTROPY}" need; give it another rule, such as "boundaries": "space" in '
            f"its config.json; {PAGE}"
        )
    if config.tied:
        tensors = _tied(tensors, path)
    origins = dict(_originals(config, all_read))
    expected = {name: shape for shapes in origins.values() for name, shape in shapes.items()}
    check_tensors(tensors, {**expected, **dict(_dead(config, all_read))}, path)
    tensors = {name: _halved(value, name, config) for name, value in tensors.items()}
    model = Blt(config)
    model.load_state_dict({ours: torch.cat([tensors[name] for name in shapes]) for ours, shapes in origins.items()})
    return model.eval()


def _halved(tensor: Tensor, name: str, config: BltConfig) -> Tensor:
    """With the pairs of dimensions that positions rotate, which are neighbours there, half a head apart, as ours are.

    Scores are the same if queries and keys have their dimensions in any order.
    """
    tower, _, rest = name.partition(".layers.")
    towers = {PATCHER: config.patcher, "local_encoder.": config.encoder, "global_transformer.": config.middle}
    layer = towers.get(f"{tower}.", config.decoder)
    if layer is None or not rest.endswith((".self_attn.q_proj.weight", ".self_attn.k_proj.weight")):
        return tensor
    heads = tensor.reshape(-1, layer.head_dim, tensor.shape[1])
    return torch.cat((heads[:, 0::2], heads[:, 1::2]), dim=1).reshape(tensor.shape)


def _tied(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The same with both matrices, of which one is saved."""
    found = [tensors[name] for name in (EMBEDDING, HEAD) if name in tensors]
    if not found:
        raise CheckpointError(f"{path} lacks {EMBEDDING} and {HEAD}, expected one of them: they are tied")
    if len(found) > 1 and not torch.equal(*found):
        raise CheckpointError(
            f"config.json says tie_word_embeddings true, but {EMBEDDING} and {HEAD} in {path} differ; correct one of them"
        )
    return {**tensors, EMBEDDING: found[0], HEAD: found[0]}


def _whole(config: Mapping[str, Any]) -> _Whole:
    known = {*_Whole.__struct_fields__, *_DEFAULTS, *_SILENT, "class", *ANNOTATIONS, *_ROPE}
    require_known(config, known, "config.json")
    whole: _Whole = _converted(
        {name: config[name] for name in _Whole.__struct_fields__ if name in config}, _Whole, "config.json"
    )
    if whole.max_patch_length is not None:
        raise CheckpointError(
            f"config.json says max_patch_length {whole.max_patch_length}, expected null: transformers cuts patches so that the "
            f"last byte's logits are others than in a longer text, which no stream can give; {PAGE}"
        )
    if whole.patching_mode not in MODES:
        raise CheckpointError(f"config.json says patching_mode {whole.patching_mode!r}, expected one of {', '.join(MODES)}")
    return whole


def _rule_of(whole: _Whole, notes: list[str]) -> str:
    """The rule for where patches end that transformers follows."""
    if whole.patching_mode == ENTROPY and whole.patch_in_forward:
        for name in ("patch_size", "patching_threshold"):
            if getattr(whole, name) is None:
                raise CheckpointError(f"config.json says {name} null, expected a number: entropy is not looked at without it")
        return ENTROPY
    said = f"patching_mode {whole.patching_mode!r}" if whole.patch_in_forward else "patch_in_forward false"
    notes.append(
        f"config.json says {said}, with which transformers makes each byte a patch of its own, and so is done here; another "
        f'rule is asked for by "boundaries" in config.json: "{ENTROPY}", "space", "{FIXED}4"'
    )
    return f"{FIXED}1"


def _sizes(config: Mapping[str, Any], whole: _Whole, rule: str, threshold: float | None) -> BltConfig:
    encoder, middle, decoder = (_tower(config, name) for name in ("encoder_config", "global_config", "decoder_config"))
    patcher = _tower(config, "patcher_config") if rule == ENTROPY else None
    _check_agreement(whole, encoder, middle, decoder, patcher)
    window, layers = whole.local_attention_window_len, decoder.num_hidden_layers
    if window is not None and window < 1:
        raise ConfigError(f"local_attention_window_len must be at least 1, got {window}")
    return BltConfig(
        vocab_size=whole.vocab_size,
        encoder=_layer(config, encoder, "encoder_config", window),
        encoder_layers=encoder.num_hidden_layers,
        middle=_layer(config, middle, "global_config", None),
        middle_layers=middle.num_hidden_layers,
        decoder=_layer(config, decoder, "decoder_config", window),
        decoder_layers=layers,
        patcher=None if patcher is None else _layer(config, patcher, "patcher_config", patcher.sliding_window),
        patcher_layers=0 if patcher is None else patcher.num_hidden_layers,
        patch_rows=whole.cross_attn_k,
        reads=layers if decoder.cross_attn_all_layers else 1,
        hash_sizes=tuple(whole.encoder_hash_byte_group_size or (3, 4, 5, 6, 7, 8)),
        hash_functions=whole.encoder_hash_byte_group_nb_functions,
        hash_rows=whole.encoder_hash_byte_group_vocab,
        boundaries=rule,
        threshold=0.0 if threshold is None else threshold,
        tied=whole.tie_word_embeddings,
        context=whole.max_position_embeddings,
    )


def _check_agreement(whole: _Whole, encoder: _Tower, middle: _Tower, decoder: _Tower, patcher: _Tower | None) -> None:
    """Raise a CheckpointError for sizes that are said twice and differ."""
    said: list[tuple[str, int | None, str, int | None]] = [
        ("encoder_config.vocab_size", encoder.vocab_size, "vocab_size", whole.vocab_size),
        ("encoder_config.cross_attn_k", encoder.cross_attn_k, "cross_attn_k", whole.cross_attn_k),
        ("decoder_config.cross_attn_k", decoder.cross_attn_k, "cross_attn_k", whole.cross_attn_k),
        ("decoder_config.hidden_size_global", decoder.hidden_size_global, "global_config.hidden_size", middle.hidden_size),
    ]
    if patcher is not None:
        said.append(("patcher_config.vocab_size", patcher.vocab_size, "vocab_size", whole.vocab_size))
    if encoder.sliding_window is not None:
        window = whole.local_attention_window_len
        said.append(("encoder_config.sliding_window", encoder.sliding_window, "local_attention_window_len", window))
    for name, value, other, expected in said:
        if value != expected:
            raise CheckpointError(f"config.json says {name} {value}, expected that of {other}, {expected}")


def _all_read(config: Mapping[str, Any]) -> bool:
    """Whether the encoder has a cross attention for each of its layers, of which the last one counts."""
    return _tower(config, "encoder_config").cross_attn_all_layers


def _tower(config: Mapping[str, Any], name: str) -> _Tower:
    what, given = f"{name} in config.json", config.get(name)
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise CheckpointError(f"{what} is {given!r}, expected an object")
    require_known(given, {*_Tower.__struct_fields__, *_SILENT, *_ROPE}, what)
    said = {key: given[key] for key in _Tower.__struct_fields__ if key in given}
    tower: _Tower = _converted({**_DEFAULTS[name], **said}, _Tower, what)
    for option, value in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if getattr(tower, option) != value:
            raise CheckpointError(
                f"{what} says {option} {getattr(tower, option)!r}, expected {value!r}: nothing else is computed; {PAGE}"
            )
    for size in ("hidden_size", "num_attention_heads", "num_hidden_layers"):
        if getattr(tower, size) < 1:
            raise ConfigError(f"{what} says {size} {getattr(tower, size)}, expected at least 1")
    return tower


def _layer(config: Mapping[str, Any], tower: _Tower, name: str, window: int | None) -> LayerConfig:
    what, dim, heads = f"{name} in config.json", tower.hidden_size, tower.num_attention_heads
    head_dim, kv_heads = dim // heads, tower.num_key_value_heads or heads
    if head_dim < 2 or head_dim % 2:
        raise ConfigError(f"{what} has heads of {head_dim} dimensions, expected an even number: positions rotate pairs")
    if kv_heads < 1 or heads % kv_heads:
        raise ConfigError(f"num_key_value_heads of {what} must divide its {heads} heads, got {kv_heads}")
    if tower.head_dim is not None and tower.head_dim != head_dim:
        raise CheckpointError(f"{what} says head_dim {tower.head_dim}, expected hidden_size / num_attention_heads, {head_dim}")
    if window is not None and window < 1:
        raise ConfigError(f"the window of {what} must be at least 1, got {window}")
    return LayerConfig(
        dim=dim,
        heads=heads,
        head_dim=head_dim,
        kv_heads=kv_heads,
        ff_dim=tower.intermediate_size or int(8 * dim / 3),
        norm="rms_eps",
        norm_eps=tower.rms_norm_eps,
        activation="swiglu",
        ff_bias=False,
        out_bias=False,
        rotary_base=_theta(config.get(name) or {}, what, _THETAS[name]),
        window=window,
    )


def _theta(given: Mapping[str, Any], what: str, default: float) -> float:
    """The base of the rotary positions; raises CheckpointError for any scaling of them."""
    rope = given.get("rope_parameters") or {}
    scaling = given.get("rope_scaling") or {}
    for name, said in (("rope_parameters", rope), ("rope_scaling", scaling)):
        kind = said.get("rope_type", said.get("type", "default")) if isinstance(said, Mapping) else None
        if kind != "default" or said.keys() - {"rope_type", "type", "rope_theta"}:
            raise CheckpointError(
                f'{what} says {name} {said!r}, expected the rope_type "default" and a rope_theta, nothing else'
            )
    found = {value for value in (rope.get("rope_theta"), given.get("rope_theta")) if value is not None}
    if len(found) > 1:
        raise CheckpointError(f"{what} says rope_theta {' and '.join(map(str, found))}; leave one")
    theta = found.pop() if found else default
    if not isinstance(theta, (int, float)) or isinstance(theta, bool) or not 0 < theta < 1e18:
        raise CheckpointError(f"{what} says rope_theta {theta!r}, expected a number above 0")
    return float(theta)


def _converted(said: Mapping[str, Any], into: Any, what: str) -> Any:
    try:
        return msgspec.convert(dict(said), into)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{what}: {error}; {PAGE}") from error


def _originals(config: BltConfig, all_read: bool) -> Iterator[tuple[str, Shapes]]:
    """Each of our tensors, and those of the checkpoint that it is, one below the other."""
    encoder, middle, decoder, vocab_size = config.encoder, config.middle, config.decoder, config.vocab_size
    if config.patcher is not None:
        dim = config.patcher.dim
        yield "patcher.entry.weight", {"patcher.embed_tokens.weight": (vocab_size, dim)}
        yield from _layers("patcher.stack.", PATCHER, config.patcher, config.patcher_layers)
        yield "patcher.exit.norm.scale", {"patcher.norm.weight": (dim,)}
        yield "patcher.exit.next.weight", {"patcher.lm_head.weight": (vocab_size, dim)}
    yield "embed.tokens.weight", {EMBEDDING: (vocab_size, encoder.dim)}
    if config.hashes:
        yield "embed.groups.weight", {GROUPS: (config.hashes * config.hash_rows, encoder.dim)}
    yield from _layers("encoder.", "local_encoder.", encoder, config.encoder_layers)
    wide = config.patch_rows * encoder.dim
    yield "pool.project.weight", {"local_encoder.patch_embedding_projection.weight": (wide, encoder.dim)}
    pooling = f"local_encoder.cross_attn_layers.{config.encoder_layers - 1 if all_read else 0}."
    yield from _cross("pool.offer.", "pool.read.", pooling, encoder)
    if wide != middle.dim:
        yield "entry.weight", {"global_transformer.token_embedding_projection.weight": (middle.dim, wide)}
    yield from _layers("middle.", "global_transformer.", middle, config.middle_layers)
    handed = (config.patch_rows * decoder.dim, middle.dim)
    yield "hand_down.project.weight", {"local_decoder.patch_embedding_projection.weight": handed}
    for index in range(config.reads):
        original = f"local_decoder.cross_attn_layers.{index}."
        yield from _cross(f"hand_down.offers.{index}.", f"decoder.reads.{index}.", original, decoder)
    yield from _layers("decoder.stack.", "local_decoder.", decoder, config.decoder_layers)
    yield "decoder.head.norm.scale", {"local_decoder.norm.weight": (decoder.dim,)}
    yield "decoder.head.logits.weight", {HEAD: (vocab_size, decoder.dim)}


def _layers(ours: str, theirs: str, config: LayerConfig, layers: int) -> Iterator[tuple[str, Shapes]]:
    dim, wide = config.dim, config.ff_dim
    for index in range(layers):
        block, original = f"{ours}layers.{index}.", f"{theirs}layers.{index}."
        shapes = _attention_shapes(config)
        yield f"{block}norm.scale", {f"{original}input_layernorm.weight": (dim,)}
        yield f"{block}attention.qkv.weight", {f"{original}self_attn.{x}_proj.weight": shapes[f"{x}_proj"] for x in "qkv"}
        yield f"{block}attention.out.weight", {f"{original}self_attn.o_proj.weight": shapes["o_proj"]}
        yield f"{block}feed_forward.norm.scale", {f"{original}post_attention_layernorm.weight": (dim,)}
        yield f"{block}feed_forward.up.weight", {f"{original}mlp.{x}_proj.weight": (wide, dim) for x in ("gate", "up")}
        yield f"{block}feed_forward.down.weight", {f"{original}mlp.down_proj.weight": (dim, wide)}


def _cross(offer: str, read: str, theirs: str, config: LayerConfig) -> Iterator[tuple[str, Shapes]]:
    """A cross attention's two halves."""
    shapes = {name: {f"{theirs}{name}.weight": shape} for name, shape in _cross_shapes(config).items()}
    yield f"{offer}norm.scale", shapes["k_norm"]
    yield f"{offer}key_value.weight", {**shapes["k_proj"], **shapes["v_proj"]}
    yield f"{read}norm.scale", shapes["q_norm"]
    yield f"{read}query.weight", shapes["q_proj"]
    yield f"{read}out.weight", shapes["o_proj"]


def _dead(config: BltConfig, all_read: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors that no logit depends on: cross attentions of the encoder whose outcome the next one replaces."""
    if not config.hashes:
        yield GROUPS, (0, config.encoder.dim)
    for index in range(config.encoder_layers - 1 if all_read else 0):
        for name, shape in _cross_shapes(config.encoder).items():
            yield f"local_encoder.cross_attn_layers.{index}.{name}.weight", shape


def _cross_shapes(config: LayerConfig) -> Shapes:
    return {"q_norm": (config.dim,), "k_norm": (config.dim,), **_attention_shapes(config)}


def _attention_shapes(config: LayerConfig) -> Shapes:
    dim, inner = config.dim, config.heads * config.head_dim
    narrow = config.key_value_heads * config.head_dim
    return {"q_proj": (inner, dim), "k_proj": (narrow, dim), "v_proj": (narrow, dim), "o_proj": (dim, inner)}
