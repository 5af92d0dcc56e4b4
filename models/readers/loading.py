"""Any checkpoint foveal knows, recognised by what it says of itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import CheckpointError, ConfigError
from ...hub.names import Source, hub_name
from ...progress import Progress
from ...storage import storage_errors
from ..architecture import Architecture
from ..checkpoint import load_foveal
from ..weight_files import PAGE, foreign_kind, require_weights
from ..weights import Reading, names_in
from . import blt, hnet, lucidrains, megabyte, x_transformers
from .block_transformer import is_block_transformer, load_block_transformer
from .blt import is_blt, load_blt
from .damage import damage_named
from .dynamic_pooling import is_dynamic_pooling, load_dynamic_pooling
from .from_hub import fetch_checkpoint, said_of
from .hnet import is_hnet, load_hnet
from .lucidrains import is_lucidrains, load_lucidrains
from .megabyte import is_megabyte, load_megabyte
from .patch_decoder import is_patch_decoder, load_patch_decoder
from .trax import is_trax, load_trax
from .x_transformers import is_x_transformers, load_x_transformers

Config = dict[str, Any]
LARGEST = 2**31
"""No size of a model is as large; building one that is would take forever before it failed."""


class Layout(NamedTuple):
    """One way in which checkpoints are laid out.

    Attributes:
        name: as manifests and messages have it.
        sign: what it is recognised by, in a few words.
        recognises: whether a directory with this `config.json` (empty: it has none) is laid out so.
        load: reads one, in eval mode, fp32; raises CheckpointError or ConfigError.
    """

    name: str
    sign: str
    recognises: Callable[[Config, Path], bool]
    load: Callable[[Path, Config, Reading], Architecture]
    takes_boundaries: bool = False


def _is_foveal(config: Config, _path: Path) -> bool:
    return "hierarchy" in config and "class" not in config


LAYOUTS = (
    Layout("foveal", 'a "hierarchy"', _is_foveal, lambda path, _, reading: load_foveal(path, reading)),
    Layout("lucidrains", 'the class "HourglassTransformerLM"', lambda config, _: is_lucidrains(config), load_lucidrains),
    Layout("trax", 'the class "HourglassLM", or kwargs with "vanilla_layers"', is_trax, load_trax),
    Layout("megabyte", 'the class "MEGABYTE"', is_megabyte, load_megabyte),
    Layout("dynamic-pooling", 'the class "MemTransformerLM", or its weights', is_dynamic_pooling, load_dynamic_pooling),
    Layout("patch-decoder", "weights of NotaGen or bGPT, patch_level_decoder.*", is_patch_decoder, load_patch_decoder),
    Layout("block-transformer", "the weights of a Block Transformer", is_block_transformer, load_block_transformer),
    Layout("hnet", 'the class "HNetForCausalLM", or an "arch_layout"', is_hnet, load_hnet),
    Layout("blt", 'the model_type "blt"', is_blt, load_blt, takes_boundaries=True),
    Layout("x-transformers", 'the class "TransformerWrapper"', is_x_transformers, load_x_transformers),
)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model in eval mode, fp32; the tokenizer that lay beside it; and whose layout it was.

    Attributes:
        ids: what is known of its ids without a tokenizer: `"bytes+4"`; None: nothing.
        notes: what was assumed, chosen, taken off or widened, one line each.
        source: where on a hub it was; None: on the disk.
    """

    model: Architecture
    tokenizer_path: Path | None
    source_format: str
    notes: tuple[str, ...] = ()
    ids: str | None = None
    source: Source | None = None


@storage_errors()
def load_model(
    checkpoint: str | Path,
    boundaries: str | None = None,
    threshold: float | None = None,
    on_progress: Progress | None = None,
) -> LoadedCheckpoint:
    """Load a checkpoint directory, or a file of weights that says enough by itself, of any layout foveal knows.

    Args:
        checkpoint: where it is; or its name on a hub, `hf:owner/name@revision/path` (docs/hub.md).
        boundaries: another rule for where patches end than the checkpoint's, of layouts that take one (BLT).
        threshold: another threshold of the checkpoint's rule, likewise.
        on_progress: told how much of a checkpoint on a hub is there.

    Raises:
        CheckpointError: nothing there, or a layout that is none of these, or several; the message says what was found.
        ConfigError: a configuration that can't be decoded incrementally, or another rule for a layout that takes none.
        HubError, StorageError, BackendUnavailable: a hub does not give it; no room for it; huggingface_hub is not installed.
    """
    name = hub_name(checkpoint)
    if name is None:
        return _load(*_asked(Path(checkpoint)), boundaries, threshold)
    path, source = fetch_checkpoint(name, on_progress)
    with said_of(name, path):
        return replace(_load(path, Reading(name.entry), boundaries, threshold), source=source)


def _load(path: Path, reading: Reading, boundaries: str | None, threshold: float | None) -> LoadedCheckpoint:
    reading.boundaries, reading.threshold = boundaries, threshold
    config = _read_config(path)
    with damage_named(path):
        layout = _layout_of(path, config)
        if not layout.takes_boundaries and (boundaries is not None or threshold is not None):
            raise ConfigError(
                f"{path} is of the layout {layout.name}, whose boundaries can't be replaced; leave boundaries and threshold "
                "out: they are for BLT"
            )
        model = layout.load(path, config, reading)
    tokenizer = (path if path.is_dir() else path.parent) / "tokenizer.json"
    return LoadedCheckpoint(model, tokenizer if tokenizer.is_file() else None, layout.name, tuple(reading.notes), reading.ids)


def _asked(path: Path) -> tuple[Path, Reading]:
    """The path, and which of several models in the file is asked for: `run.pt#ema`."""
    place, mark, entry = str(path).rpartition("#")
    if mark and not path.exists() and Path(place).exists():
        return Path(place), Reading(entry)
    return path, Reading()


def _layout_of(path: Path, config: Config) -> Layout:
    found = [layout for layout in LAYOUTS if layout.recognises(config, path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(
            f"{path} looks like several layouts: {' and like '.join(f'{x.name} ({x.sign})' for x in found)}; "
            "leave in config.json what belongs to one of them"
        )
    hint = _package_of(path)
    if hint is not None:
        raise CheckpointError(
            f"{path} holds the weights of {hint[0]}, but not its sizes, which its names do not tell; write a config.json beside "  # noqa: E501
            f"it, for instance {hint[1]}; {PAGE}"
        )
    require_weights(path)  # what a file is that can't hold weights says more than that no layout fits
    signs = "; ".join(f"{layout.name}: {layout.sign}" for layout in LAYOUTS)
    raise CheckpointError(f"{path} is of no layout foveal knows: got {_seen(path, config)}; expected one of: {signs}; {PAGE}")


_PACKAGES = {
    "token_emb.emb.weight": ("x-transformers", x_transformers.EXAMPLE),
    "transformer.norm_out.weight": ("hourglass-transformer-pytorch", lucidrains.EXAMPLE),
    "transformer.norm.weight": ("hourglass-transformer-pytorch", lucidrains.EXAMPLE),
    "start_tokens.0": ("MEGABYTE-pytorch", megabyte.EXAMPLE),
    "backbone.routing_module.q_proj_layer.weight": ("H-Net", hnet.EXAMPLE),
    "model.local_encoder.patch_embedding_projection.weight": ("transformers' BltForCausalLM", blt.EXAMPLE),
    "local_encoder.patch_embedding_projection.weight": ("transformers' BltForCausalLM", blt.EXAMPLE),
}
"""Packages whose configuration has to be written, by a tensor that only they have."""


def _package_of(path: Path) -> tuple[str, str] | None:
    names = names_in(path)
    return next((found for name, found in _PACKAGES.items() if name in names), None)


def _seen(path: Path, config: Config) -> str:
    if config:
        kind = f' and class "{config["class"]}"' if "class" in config else ""
        return f"a config.json with the keys {sorted(config)}{kind}"
    if path.is_file():
        return f"the file {path.name}"
    names = sorted(file.name for file in path.iterdir())
    return f"no config.json, and {', '.join(names[:8]) if names else 'no files at all'}"


def _read_config(path: Path) -> Config:
    """The checkpoint's `config.json`; empty if it has none."""
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}; expected a directory with config.json and weights")
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=partial(_once_each, file))
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        what = foreign_kind(file)
        raise CheckpointError(f"{file} is {what}" if what else f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} holds a {type(config).__name__}, expected an object")
    if not isinstance(config.get("class", ""), str):
        raise CheckpointError(f"{file} has the class {config['class']!r}, expected the name of a class")
    beyond = next((number for number in _integers(config) if abs(number) >= LARGEST), None)
    if beyond is not None:
        raise CheckpointError(f"{file} has the number {beyond}, expected sizes below {LARGEST}")
    return config


def _once_each(file: Path, pairs: list[tuple[str, Any]]) -> Config:
    """An object of JSON, in which a key that stands twice would be passed over once."""
    twice = next((key for key, count in Counter(key for key, _ in pairs).items() if count > 1), None)
    if twice is not None:
        raise CheckpointError(f'{file} says "{twice}" more than once; leave one')
    return dict(pairs)


def _integers(said: Any) -> Iterator[int]:
    if isinstance(said, int):
        yield said
    elif isinstance(said, (dict, list)):
        for part in said.values() if isinstance(said, dict) else said:
            yield from _integers(part)
