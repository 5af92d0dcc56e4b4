"""Weights as they lie about: whatever they are called, wrapped in and beside, every layout gives the logits of its package."""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from specimens import random_model
from torch import Tensor
from torch_sessions import logits_of

from foveal import CheckpointError, ConfigError, ExportError
from foveal.export import convert_model
from foveal.models.checkpoint import save_checkpoint
from foveal.models.readers.loading import LoadedCheckpoint, load_model
from foveal.models.weights import names_in, read_weights

TESTS = Path(__file__).parent.parent
LAYOUTS = {
    "lucidrains": TESTS / "golden/s3_linear_noattn",
    "megabyte": TESTS / "golden_families/megabyte_16x4",
    "x-transformers": TESTS / "golden_families/x_transformers",
    "trax": TESTS / "golden_families/trax_h3_attn",
    "dynamic-pooling": TESTS / "golden_families/dynamic_pooling_tiny",
    "notagen": TESTS / "golden_families/notagen_tiny",
    "bgpt": TESTS / "golden_families/bgpt_tiny",
    "block-transformer": TESTS / "golden_families/block_transformer_tiny",
    "hnet": TESTS / "golden_families/hnet_2stage_tiny",
    "blt": TESTS / "golden_families/blt_tiny",
}
NAMES = [*LAYOUTS, "foveal"]
Tensors = dict[str, Tensor]
Write = Callable[[Tensors, Path], Path]


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of foveal's own."""
    directory = tmp_path_factory.mktemp("own")
    save_checkpoint(random_model("1@1 1@2 1@1"), directory)
    return directory


def lying(name: str, own: Path, directory: Path, write: Write) -> Path:
    """What `write` makes of a layout's weights, its config.json beside them; the path that it answers."""
    source = LAYOUTS.get(name, own)
    shutil.copy(source / "config.json", directory / "config.json")
    return write(load_file(source / "model.safetensors"), directory)


@cache
def reference(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids, and the logits of the plain file."""
    model = load_model(source).model
    ids = np.random.default_rng(0).integers(0, model.describe().vocab_size, (1, 24))
    return ids, logits_of(model, ids)


def check(name: str, own: Path, path: Path, atol: float = 0.0) -> LoadedCheckpoint:
    """Logits are those of the plain file."""
    ids, expected = reference(LAYOUTS.get(name, own))
    loaded = load_model(path)
    np.testing.assert_allclose(logits_of(loaded.model, ids), expected, atol=atol, rtol=0)
    return loaded


def saved(make: Callable[[Tensors], Any], file: str = "model.pt", **options: Any) -> Write:
    """Written by `torch.save`."""

    def write(tensors: Tensors, directory: Path) -> Path:
        torch.save(make(tensors), directory / file, **options)
        return directory

    return write


def under(prefix: str) -> Callable[[Tensors], Tensors]:
    """Names under a wrapper."""
    return lambda tensors: {f"{prefix}{name}": value for name, value in tensors.items()}


def in_the_middle(tensors: Tensors) -> Tensors:
    """As `torch.compile` and FSDP name submodules."""
    return {
        name.replace(".", "._orig_mod.", 1).replace(".", "._fsdp_wrapped_module.", 1): value for name, value in tensors.items()
    }


def trainer(key: str) -> Callable[[Tensors], Any]:
    """What a training script saves: the weights under a name, and all that lies beside them."""

    def make(tensors: Tensors) -> Any:
        return {
            "epoch": np.float64(3),
            "best": np.float32(0.5),
            "args": argparse.Namespace(
                lr=1e-4, path=Path("x"), device=torch.device("cpu"), nested=argparse.Namespace(k=np.int64(2))
            ),
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3, 3)}}, "param_groups": [{"lr": 1e-4}]},
            "optimizer_state_dict": {"state": {"a": {"exp_avg": torch.ones(3, 3)}}},
            "rng_state": torch.zeros(8, dtype=torch.uint8),
            "history": np.arange(4.0),
            key: tensors,
        }

    return make


def ema_pytorch(tensors: Tensors) -> Tensors:
    """The running average alone, with the wrapper's own numbers."""
    return {"initted": torch.tensor([True]), "step": torch.tensor([5]), **under("ema_model.")(tensors)}


WAYS: dict[str, tuple[Write, str]] = {
    "a plain state_dict": (saved(lambda tensors: tensors), ""),
    "the old format": (
        saved(lambda tensors: {"model": tensors}, "w.pth", _use_new_zipfile_serialization=False),
        'entry "model"',
    ),
    "DataParallel": (saved(under("module.")), "module."),
    "torch.compile": (saved(under("_orig_mod.")), "_orig_mod."),
    "a wrapper's net": (saved(under("net.")), "net."),
    "a name of one's own": (saved(under("student.backbone_2.")), "backbone_2., student."),
    "nested": (saved(under("module._orig_mod.net.model.")), "_orig_mod., model., module., net."),
    "nested otherwise": (saved(under("model.module.net._orig_mod.")), "_orig_mod., model., module., net."),
    "wrapped submodules": (saved(in_the_middle), "_fsdp_wrapped_module."),
    "Lightning": (saved(lambda tensors: trainer("state_dict")(under("model.")(tensors)), "last.ckpt"), 'entry "state_dict"'),
    "Lightning with a loss": (
        saved(lambda tensors: {"state_dict": {**under("model.")(tensors), "loss.weight": torch.ones(5, 2)}}, "last.ckpt"),
        "left aside, as no part of the model: loss.weight",
    ),
    "an average": (saved(ema_pytorch), "ema_model."),
    **{
        f"under {key}": (saved(trainer(key)), f'entry "{key}"')
        for key in ("state_dict", "model_state_dict", "model", "ema", "params")
    },
    "deeper": (saved(lambda tensors: {"trainer": {"model": tensors}}), 'entry "trainer/model"'),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_however_they_lie(name: str, way: str, own: Path, tmp_path: Path) -> None:
    """The logits are the same, and what was chosen and taken off is said; by the directory and by the file's own path."""
    write, said = WAYS[way]
    directory = lying(name, own, tmp_path, write)
    loaded = check(name, own, directory)
    assert said in " ".join(loaded.notes)
    file = next(path for path in directory.iterdir() if path.name != "config.json")
    assert load_model(file).notes == loaded.notes


@pytest.mark.parametrize("name", NAMES)
def test_the_path_of_the_file_itself(name: str, own: Path) -> None:
    """Wherever its directory would do."""
    check(name, own, LAYOUTS.get(name, own) / "model.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_shards_with_an_index(name: str, own: Path, tmp_path: Path) -> None:
    """Of safetensors and of pickles; by the directory and by the index."""

    def write(tensors: Tensors, directory: Path) -> Path:
        halves = (dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2]))
        places = {}
        for index, half in enumerate(halves):
            file = f"pytorch_model-0000{index + 1}-of-00002.bin"
            torch.save(half, directory / file)
            places |= dict.fromkeys(half, file)
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
        return directory

    directory = lying(name, own, tmp_path, write)
    check(name, own, directory)
    check(name, own, directory / "pytorch_model.bin.index.json")
    (directory / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match="names the shard pytorch_model-00002-of-00002.bin, which is not in"):
        load_model(directory)
    (directory / "pytorch_model.bin.index.json").unlink()
    (directory / "pytorch_model-00001-of-00002.bin").rename(directory / "model-00001-of-00002.bin")
    with pytest.raises(CheckpointError, match=r"has 1 shards of weights but no \*.index.json"):
        read_weights(directory)


def test_shards_that_disagree_with_their_index(tmp_path: Path) -> None:
    """The tensor and the shard; names of files outside are not followed."""
    save_file({"a.weight": torch.ones(2, 2), "b": torch.ones(2)}, tmp_path / "m-00001-of-00001.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    for places, message in (
        ({"a.weight": "m-00001-of-00001.safetensors"}, "also holds b, which is not there by model.safetensors.index.json"),
        (dict.fromkeys(("a.weight", "b", "c"), "m-00001-of-00001.safetensors"), "lacks c, which is there by"),
        ({"a.weight": "../x.safetensors"}, "expected the name of a file beside it"),
        ({}, 'has no "weight_map"'),
        ([1], 'has no "weight_map"'),
        ({"a": 3}, 'has no "weight_map"'),
    ):
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(CheckpointError, match=message):
            read_weights(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["lucidrains", "notagen", "foveal"])
def test_other_floating_types_are_widened(name: str, dtype: torch.dtype, own: Path, tmp_path: Path) -> None:
    """To the same weights that they hold, and it is said; mixed ones too."""

    def write(tensors: Tensors, directory: Path) -> Path:
        first = next(iter(tensors))
        changed = {key: value if key == first else value.to(dtype) for key, value in tensors.items()}
        torch.save(changed, directory / "model.pt")
        return directory

    directory = lying(name, own, tmp_path, write)
    loaded = load_model(directory)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert f"are {str(dtype).removeprefix('torch.')}: " in " ".join(loaded.notes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_not_finite_are_refused(name: str, value: float, own: Path, tmp_path: Path) -> None:
    """By the name of the tensor in the file, in every layout."""
    ruined = []

    def write(tensors: Tensors, directory: Path) -> Path:
        key = [key for key, tensor in tensors.items() if tensor.dim() >= 2][-1]
        tensors[key] = tensors[key].clone()
        tensors[key].view(-1)[-1] = value
        ruined.append(key)
        torch.save(tensors, directory / "model.pt")
        return directory

    directory = lying(name, own, tmp_path, write)
    with pytest.raises(
        CheckpointError, match=r"has 1 of \d+ values that are infinite or NaN in .*, expected numbers"
    ) as caught:
        load_model(directory)
    assert str(caught.value).startswith(ruined[0])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64])
@pytest.mark.parametrize("name", NAMES)
def test_quantised_weights_are_refused(name: str, dtype: torch.dtype, own: Path, tmp_path: Path) -> None:
    """By the name of the tensor."""

    def write(tensors: Tensors, directory: Path) -> Path:
        torch.save({key: value.to(dtype) if value.dim() >= 2 else value for key, value in tensors.items()}, directory / "w.pt")
        return directory

    with pytest.raises(CheckpointError, match=r"holds u?int\d+, expected floating point: quantised checkpoints can't be read"):
        load_model(lying(name, own, tmp_path, write))


def test_several_models_in_one_file_are_named(own: Path, tmp_path: Path) -> None:
    """And each can be asked for."""
    directory = lying("bgpt", own, tmp_path, saved(lambda tensors: {"model": tensors, "ema": under("module.")(tensors)}))
    for path in (directory, directory / "model.pt"):
        with pytest.raises(CheckpointError, match="holds several models: model, ema; say which, for instance .*model.pt#model"):
            load_model(path)
    for entry in ("model", "ema"):
        check("bgpt", own, Path(f"{directory}#{entry}"))
        check("bgpt", own, Path(f"{directory / 'model.pt'}#{entry}"))
    with pytest.raises(CheckpointError, match='has no weights "average", expected one of model, ema'):
        load_model(f"{directory}#average")


def test_a_model_and_its_average_in_one_state_dict(own: Path, tmp_path: Path) -> None:
    """As ema_pytorch saves them."""
    both = lambda tensors: {**under("online_model.")(tensors), **ema_pytorch(tensors)}  # noqa: E731
    directory = lying("lucidrains", own, tmp_path, saved(both))
    with pytest.raises(CheckpointError, match="several models: online_model, ema_model; say which"):
        load_model(directory)
    check("lucidrains", own, Path(f"{directory}#ema_model"))


@pytest.mark.parametrize("name", NAMES)
def test_models_with_the_same_names_side_by_side(name: str, own: Path, tmp_path: Path) -> None:
    """Whatever they are called."""
    both = lambda tensors: {**under("left.")(tensors), **under("right.")(tensors), "step": torch.tensor(3)}  # noqa: E731
    directory = lying(name, own, tmp_path, saved(both))
    with pytest.raises(CheckpointError, match="several models: left, right; say which"):
        load_model(directory)
    check(name, own, Path(f"{directory}#right"))


@pytest.mark.parametrize("first", [0x80, 0x20, 0x00])
@pytest.mark.parametrize("second", [0x7B, 0x3C, 0x02])
def test_safetensors_are_known_whatever_the_length_of_their_header(first: int, second: int, own: Path, tmp_path: Path) -> None:
    """Its lowest bytes may be those with which pickles, JSON or web pages begin."""
    directory = lying("lucidrains", own, tmp_path, saved(lambda tensors: tensors, "model.safetensors"))
    file = directory / "model.safetensors"
    whole = (LAYOUTS["lucidrains"] / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    length = 0x10000 + 0x100 * second + first
    file.write_bytes(length.to_bytes(8, "little") + whole[8:end] + b" " * (length + 8 - end) + whole[end:])
    check("lucidrains", own, directory)
    check("lucidrains", own, file.rename(directory / "w.pt"))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda value: value.to("meta"), "has no values .it is on the meta device."),
        (lambda value: value.to_sparse(), "has the layout torch.sparse_coo, expected a dense one"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_tensors_without_values_row_after_row_are_named(
    name: str, broken: Callable[[Tensor], Tensor], message: str, own: Path, tmp_path: Path
) -> None:
    """Whatever the layout."""
    last = lambda tensors: {**tensors, (key := next(reversed(tensors))): broken(tensors[key])}  # noqa: E731
    with pytest.raises(CheckpointError, match=message):
        load_model(lying(name, own, tmp_path, saved(last)))


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_as_editors_and_version_control_leave_it(name: str, own: Path, tmp_path: Path) -> None:
    """A byte order mark is passed over; a pointer is called what it is; what is said twice is not said."""
    directory = lying(name, own, tmp_path, saved(lambda tensors: tensors))
    file = directory / "config.json"
    text = file.read_text(encoding="utf-8")
    file.write_text("\ufeff" + text, encoding="utf-8")
    check(name, own, directory)
    key = next(iter(json.loads(text)))
    file.write_text(f'{{"{key}": 1, {text.strip().removeprefix("{")}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=f'config.json says "{key}" more than once; leave one'):
        load_model(directory)
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="config.json is a pointer of Git LFS"):
        load_model(directory)
    with pytest.raises(CheckpointError, match=r"config.json is no file of weights; give the directory"):
        read_weights(file)


def test_a_pickle_that_torch_did_not_write(own: Path, tmp_path: Path) -> None:
    """The reason is the innermost one, not torch's advice to drop all caution."""

    def write(tensors: Tensors, directory: Path) -> Path:
        (directory / "model.pt").write_bytes(pickle.dumps(tensors, protocol=4))
        return directory

    with pytest.raises(CheckpointError, match=r"with weights_only=True \(Unsupported operand \d+\); save it again"):
        load_model(lying("lucidrains", own, tmp_path, write))


def test_files_that_are_there_instead_of_weights_are_named(own: Path, tmp_path: Path) -> None:
    """Also those of no kind that foveal knows."""
    with pytest.raises(CheckpointError, match=r"no weights in .*, only model.sft, which foveal does not read"):
        load_model(
            lying("lucidrains", own, tmp_path, lambda tensors, path: saved(lambda _: tensors, "model.sft")(tensors, path))
        )


class Odd:
    """Something that a safe unpickler does not make."""


@pytest.mark.parametrize("beside", [Odd(), Odd, print])
def test_what_is_not_unpickled_is_said_in_one_line(beside: Any, own: Path, tmp_path: Path) -> None:
    """With the way out, and no colours of a terminal; nothing is run."""
    directory = lying("notagen", own, tmp_path, saved(lambda tensors: {"model": tensors, "beside": beside}))
    for path in (directory, directory / "model.pt"):
        with pytest.raises(CheckpointError, match="holds more than tensors .*, which was not unpickled") as caught:
            load_model(path)
        text = str(caught.value)
        assert "\n" not in text
        assert "\x1b" not in text
        assert "torch.save(saved['model'], 'weights.pt')" in text


HTML = b"\n<!DOCTYPE html><html><body>404</body></html>"
NO_WEIGHTS: dict[str, tuple[str, bytes, str]] = {
    "a pointer": ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
    "a pointer of a pickle": ("w.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
    "empty": ("model.pt", b"", r"is empty \(0 bytes\)"),
    "a web page": ("pytorch_model.bin", HTML, "is a web page, not weights"),
    "a web page called safetensors": ("model.safetensors", HTML, "is a web page, not weights"),
    "an answer": ("model.bin", b'{"error": "not found"}', "is JSON, not weights"),
    "a tar": ("model.pt", b"a/" + bytes(255) + b"ustar\x0000" + bytes(300), "is a tar archive"),
    "gzip": ("model.pt", b"\x1f\x8b\x08\x00aaaa", "is a gzip archive"),
    "GGUF": ("model.bin", b"GGUF\x03\x00\x00\x00", "is a GGUF file"),
    "HDF5": ("model.bin", b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    "only GGUF": ("model.gguf", b"GGUF", r"no weights in .*, only model.gguf \(GGUF\), which foveal does not read"),
    "only ONNX": ("model.onnx", b"\x08\x07", r"only model.onnx \(ONNX\)"),
    "only Flax": ("flax_model.msgpack", b"\x81", r"only flax_model.msgpack \(Flax\)"),
    "noise": ("model.pt", b"no such thing", "could not be read as a state_dict"),
}


@pytest.mark.parametrize("what", NO_WEIGHTS)
@pytest.mark.parametrize("name", [*NAMES, None])
def test_files_that_are_no_weights_are_called_what_they_are(name: str | None, what: str, own: Path, tmp_path: Path) -> None:
    """With a configuration and without, in one line."""
    file, contents, message = NO_WEIGHTS[what]
    if name is not None:
        shutil.copy(LAYOUTS.get(name, own) / "config.json", tmp_path / "config.json")
    (tmp_path / file).write_bytes(contents)
    if name is None and what == "noise":
        message = "is of no layout foveal knows"
    if name == "trax" and what.startswith("only"):
        message = "no weights in .*; expected one of model.safetensors, model.weights.npy.gz"
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_files_that_are_cut_short(own: Path, tmp_path: Path) -> None:
    """Both formats: by how much, where it is known."""
    whole = (LAYOUTS["lucidrains"] / "model.safetensors").read_bytes()
    shutil.copy(LAYOUTS["lucidrains"] / "config.json", tmp_path / "config.json")
    for size in (len(whole) // 2, 100):
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=f"is not a whole safetensors file .it is cut short: {size} "):
            load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    lying("lucidrains", own, tmp_path, saved(lambda tensors: tensors))
    file = tmp_path / "model.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="the archive is cut short"):
        load_model(tmp_path)


def test_programs_are_no_weights(tmp_path: Path) -> None:
    """TorchScript, and any other zip."""
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"a TorchScript archive, .*; save model.state_dict\(\) instead"):
        read_weights(tmp_path)
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path, "model.pt")
    (tmp_path / "a.zip").rename(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is a zip archive; unpack it"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "saved_value", [torch.zeros(2), [1], {}, {"a": 3}, {"a": torch.zeros(3)}, {"optimizer": {"a": torch.ones(2, 2)}}]
)
def test_pickles_without_weights(saved_value: Any, tmp_path: Path) -> None:
    """What is expected is said."""
    torch.save(saved_value, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds no weights: expected a state_dict"):
        read_weights(tmp_path)
    assert names_in(tmp_path) == set()


def test_names_that_collide_without_their_wrappers(tmp_path: Path) -> None:
    """Nothing is chosen silently."""
    torch.save({"a.weight": torch.ones(2, 2), "module.a.weight": torch.ones(2, 2)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="has a.weight twice once the wrappers module are taken off"):
        read_weights(tmp_path)


def test_weights_without_the_configuration_that_they_need(tmp_path: Path) -> None:
    """Whose they are, and a configuration to begin with."""
    for name, package in (("lucidrains", "hourglass"), ("megabyte", "MEGABYTE"), ("x-transformers", "x-transformers")):
        shutil.copy(LAYOUTS[name] / "model.safetensors", tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=f"holds the weights of {package}.*write a config.json beside it.*kwargs"):
            load_model(tmp_path)


VALUES: list[Any] = [None, True, False, 0, -1, 3, 10**30, 1.5, -0.0, "", "x", [], [[1]], {}, {"a": 1}]


def mutants(config: Any) -> list[Any]:
    """Every value of a configuration, at any depth, in turn replaced by a value of every JSON type."""
    if not isinstance(config, dict):
        return list(VALUES)
    found: list[Any] = []
    for key, value in config.items():
        found += [{**config, key: changed} for changed in mutants(value)]
        if isinstance(value, dict):
            found += [{**config, key: changed} for changed in VALUES]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_any_value_in_any_field_of_a_configuration_is_read_or_a_named_error(name: str, own: Path, tmp_path: Path) -> None:
    """Nothing else escapes, whatever JSON it is; an unknown key is refused by name."""
    source = LAYOUTS.get(name, own)
    shutil.copy(source / "model.safetensors", tmp_path / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    keys = {
        "class",
        "kwargs",
        "heads",
        "block_decoder",
        "token_decoder",
        "embedder",
        "max_length",
        "context",
        "version",
        "hierarchy",
    }
    if name == "notagen":
        config |= {
            "encoder_config": {"n_layer": 2},
            "rope_scaling": None,
            "layer_norm_epsilon": 1e-5,
            "activation_function": "gelu",
        }
        keys |= {"encoder_config", "rope_scaling", "layer_norm_epsilon", "activation_function"}
    checked = {key: value for key, value in config.items() if key in keys or name in ("foveal", "blt")}
    for changed in mutants(checked):
        (tmp_path / "config.json").write_text(json.dumps(changed))
        try:
            load_model(tmp_path)
        except (CheckpointError, ConfigError):
            continue
    for holder in [checked, *(value for value in checked.values() if isinstance(value, dict))]:
        holder["wheels"] = 4
        (tmp_path / "config.json").write_text(json.dumps(checked))
        with pytest.raises((CheckpointError, ConfigError), match="unknown field .wheels"):
            load_model(tmp_path)
        del holder["wheels"]


PAGE = (TESTS.parent / "docs/checkpoints.md").read_text()
SAMPLES = [json.loads(block.partition("```")[0]) for block in PAGE.split("```json")[1:]]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.get("class", "foveal"))
def test_every_configuration_of_the_page_is_valid(sample: dict[str, Any], tmp_path: Path) -> None:
    """Only weights are missing, or the layout's golden loads with it."""
    goldens = {"NotaGenLMHeadModel": "notagen", "BlockTransformer": "block-transformer"}
    (tmp_path / "config.json").write_text(json.dumps(sample))
    if sample.get("class") in goldens:
        shutil.copy(LAYOUTS[goldens[sample["class"]]] / "model.safetensors", tmp_path / "model.safetensors")
        load_model(tmp_path)
    else:
        with pytest.raises(CheckpointError, match="no weights in"):
            load_model(tmp_path)


@pytest.mark.parametrize("kind", ["half", "bfloat16", "double"])
def test_a_model_in_memory_of_another_type_is_refused_before_it_is_exported(kind: str, tmp_path: Path) -> None:
    """By the name of its first such tensor, and with what to do."""
    with pytest.raises(ExportError, match=r"embed.tokens.weight of the model is \w+, expected float32, .*give model.float"):
        convert_model(getattr(random_model("1@1"), kind)(), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_model_in_memory_with_weights_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    """By the name of the tensor."""
    model = random_model("1@1")
    with torch.no_grad():
        model.embed.tokens.weight[40, 3] = float("nan")
    with pytest.raises(ExportError, match=r"embed.tokens.weight has 1 of \d+ values that are infinite or NaN"):
        convert_model(model, tmp_path / "b")
