"""Filling a model of ours from a checkpoint whose tensors have other names and other layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from ..checkpoint import check_tensors

Model = TypeVar("Model", bound=nn.Module)
Change = Callable[[Tensor], Tensor]


def unchanged(tensor: Tensor) -> Tensor:
    """The tensor itself."""
    return tensor


@dataclass(frozen=True)
class Original:
    """Where a tensor of ours comes from: its name and shape in the checkpoint, and how to change it into ours."""

    name: str
    shape: tuple[int, ...]
    change: Change = unchanged


def fill(
    model: Model,
    originals: Mapping[str, Original],
    dead: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, Tensor],
    where: Path,
) -> Model:
    """Fill `model` with exactly `tensors`, in fp32 and eval mode.

    Args:
        model: ours.
        originals: the origin of each of its tensors.
        dead: names and shapes of tensors that the checkpoint has and nothing depends on.
        tensors: the checkpoint's.
        where: its file, for errors.

    Raises:
        CheckpointError: tensors are missing, left over or of another shape; they are named as in the checkpoint.
    """
    expected = {original.name: original.shape for original in originals.values()}
    check_tensors(dict(tensors), {**expected, **dead}, where)
    model.load_state_dict({ours: original.change(tensors[original.name].float()) for ours, original in originals.items()})
    return model.eval()


def layers_below(prefix: str, names: Mapping[str, Tensor]) -> int:
    """How many layers `<prefix>0.`, `<prefix>1.` and so on have tensors."""
    places = {name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)}
    return max((int(place) for place in places if place.isdigit()), default=-1) + 1
