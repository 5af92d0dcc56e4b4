"""What a `config.json` says, nothing of it passed over: a key is used, known to change no logits, or refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from ...errors import CheckpointError
from ..weight_files import PAGE


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


ANNOTATIONS = words(
    "package version torch made_by source notes names comment description license name title author date url seed "
    "seq_len batch params factors towers logits logits_index training greedy_min_top2_margin_f64 f32_vs_f64_max_abs "
    "_comment"
)
"""Top-level keys that tell people where a checkpoint is from."""
NO_EFFECT = words(
    "architectures model_type _name_or_path name_or_path transformers_version torch_dtype dtype use_cache "
    "initializer_range attn_pdrop embd_pdrop resid_pdrop attention_dropout hidden_dropout classifier_dropout "
    "embedding_dropout dropout summary_activation summary_first_dropout summary_proj_to_labels summary_type "
    "summary_use_proj reorder_and_upcast_attn bos_token_id eos_token_id pad_token_id sep_token_id "
    "decoder_start_token_id forced_bos_token_id forced_eos_token_id task_specific_params gradient_checkpointing "
    "output_attentions output_hidden_states return_dict id2label label2id num_labels problem_type finetuning_task "
    "tokenizer_class prefix max_length min_length do_sample early_stopping num_beams num_beam_groups "
    "diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size "
    "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores suppress_tokens "
    "begin_suppress_tokens return_dict_in_generate exponential_decay_length_penalty remove_invalid_values "
    "tf_legacy_loss use_bfloat16 torchscript is_decoder cross_attention_hidden_size attn_implementation "
    "_attn_implementation _attn_implementation_autoset use_flash_attention_2 chunk_size_feed_forward auto_map "
    "generation_config tie_encoder_decoder unk_token_id base_model_tp_plan base_model_pp_plan"
)
"""Keys of transformers' configurations that do not change logits in eval mode: dropouts, ids that only samplers know, dtypes
that are widened, kernels."""
_ONLY: dict[str, tuple[Any, ...]] = {
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "attention_bias": (True,),
    "rope_scaling": (None,),
    "pruned_heads": ({}, None),
    "sliding_window": (None,),
}
"""Keys that may say one thing only, that which GPT-2 and GPT-NeoX do unless told otherwise."""
_ALIASES = {
    "heads": ("heads", "n_head", "n_heads", "num_heads", "num_attention_heads"),
    "layers": ("n_layer", "n_layers", "num_layers", "num_hidden_layers"),
    "dim": ("n_embd", "hidden_size", "d_model"),
    "ff_dim": ("n_inner", "intermediate_size"),
    "positions": ("n_positions", "n_ctx", "max_position_embeddings"),
    "vocab_size": ("vocab_size",),
    "activation": ("activation_function", "hidden_act"),
    "norm_eps": ("layer_norm_epsilon", "layer_norm_eps"),
    "rotary_share": ("rotary_pct", "partial_rotary_factor"),
    "rotary_base": ("rotary_emb_base", "rope_theta"),
    "parallel": ("use_parallel_residual",),
    "tied": ("tie_word_embeddings",),
}
_ROTARY = ("rotary_share", "rotary_base", "parallel")
_ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh"]] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
}

Struct = TypeVar("Struct", bound=msgspec.Struct)


class Tower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration of a GPT-2 or GPT-NeoX tower says; None: nothing."""

    heads: int | None = None
    layers: int | None = None
    dim: int | None = None
    ff_dim: int | None = None
    positions: int | None = None
    vocab_size: int | None = None
    activation: str | None = None
    norm_eps: float | None = None
    rotary_share: float | None = None
    rotary_base: float | None = None
    parallel: bool | None = None
    tied: bool | None = None

    def gelu(self, default: Literal["gelu", "gelu_tanh"], what: str) -> Literal["gelu", "gelu_tanh"]:
        """The activation; raises CheckpointError if it is no GELU."""
        if self.activation is None:
            return default
        if self.activation not in _ACTIVATIONS:
            raise CheckpointError(f"{what} has the activation {self.activation!r}, expected one of {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[self.activation]

    def require(self, what: str, **sizes: int) -> None:
        """Raise a CheckpointError if it says other sizes than those of the tensors."""
        for name, size in sizes.items():
            said = getattr(self, name)
            if said is not None and said != size:
                raise CheckpointError(
                    f"{what} says {' or '.join(_ALIASES[name])} {said}, but the tensors have {size}; correct it or remove it"
                )


def read_tower(config: Mapping[str, Any], what: str, *, is_rotary: bool, also: Collection[str] = ()) -> Tower:
    """What a transformers configuration says, by whichever of its names.

    Args:
        config: the JSON.
        what: it is, for messages.
        is_rotary: as GPT-NeoX, else as GPT-2.
        also: other keys that it may have, which the caller reads.

    Raises:
        CheckpointError: an unknown key, names of one thing that disagree, or a setting that can't be honoured.
    """
    config = _without_rope_parameters(config, what)
    fields = {name: keys for name, keys in _ALIASES.items() if is_rotary or name not in _ROTARY}
    known = {key for keys in fields.values() for key in keys} | NO_EFFECT | _ONLY.keys()
    require_known(config, known | set(also), what)
    for key, choices in _ONLY.items():
        if key in config and not any(config[key] is choice or config[key] == choice for choice in choices):
            raise CheckpointError(
                f"{what} says {key} {config[key]!r}, expected {choices[0]!r}: nothing else is computed; {PAGE}"
            )
    said: dict[str, Any] = {}
    for name, keys in fields.items():
        values = {key: config[key] for key in keys if config.get(key) is not None}
        if any(value != next(iter(values.values())) for value in values.values()):
            raise CheckpointError(f"{what} says {' and '.join(f'{key} {value!r}' for key, value in values.items())}; leave one")
        if values:
            said[name] = next(iter(values.values()))
    try:
        tower = msgspec.convert(said, Tower)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{what}: {error}") from error
    for name in ("heads", "norm_eps", "rotary_base"):
        value = getattr(tower, name)
        if value is not None and not 0 < value < 1e18:
            raise CheckpointError(f"{what} says {' or '.join(_ALIASES[name])} {value}, expected more than 0")
    if tower.rotary_share is not None and not 0 <= tower.rotary_share <= 1:
        raise CheckpointError(f"{what} says rotary_pct {tower.rotary_share}, expected 0 to 1")
    return tower


def _without_rope_parameters(config: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """With what transformers 5 has in an object of its own put beside the rest."""
    rope = config.get("rope_parameters")
    if "rope_parameters" not in config or rope is None:
        return {key: value for key, value in config.items() if key != "rope_parameters"}
    if not isinstance(rope, Mapping) or rope.get("rope_type", "default") != "default":
        raise CheckpointError(f'{what} says rope_parameters {rope!r}, expected the rope_type "default": no other is computed')
    rest = {key: value for key, value in config.items() if key != "rope_parameters"}
    for key, value in rope.items():
        if key != "rope_type" and rest.setdefault(key, value) != value:
            raise CheckpointError(f"{what} says {key} {rest[key]!r} and in rope_parameters {value!r}; leave one")
    return rest


def require_known(config: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """Raise a CheckpointError for a key that nobody reads; one that is like it is suggested."""
    for key in config:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise CheckpointError(
                f'{what} has the unknown field "{key}"{hint}; remove it if it does not change what the model computes; {PAGE}'
            )


def package_kwargs(config: Mapping[str, Any], name: str, example: str, also: Collection[str] = ()) -> Mapping[str, Any]:
    """The arguments of a package's class, as `config.json` has them under `kwargs`; raises CheckpointError if it has none."""
    require_known(config, {"class", "kwargs", *ANNOTATIONS, *also}, "config.json")
    kwargs = config.get("kwargs")
    if not isinstance(kwargs, Mapping):
        raise CheckpointError(
            f"config.json has no kwargs, expected an object with the arguments of {name}, for instance {example}; {PAGE}"
        )
    return kwargs


def assumed(notes: list[str], said: Mapping[str, Any], taken: Mapping[str, Any]) -> None:
    """Note what shapes do not show and config.json did not say."""
    missing = [f"{name} {value}" for name, value in taken.items() if name not in said]
    if missing:
        notes.append(f"not in config.json, nor seen in the tensors, so assumed: {', '.join(missing)}")
