"""Draw who fires when in a batch, and what each step takes, by policy: the picture in docs/batches.md.

python -m foveal.bench.batch_picture OUT.svg RESULT.json MODEL
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from ..calibration.plotting import require_picture, save
from ..errors import ConfigError
from ..json_files import decode
from .batch_result import BatchResult
from .result import BenchResult, ModelResult, StageResult
from .script import run_script
from .statistics import NS_PER_MS

STEPS = 64


def draw(out: Path, model: ModelResult) -> None:
    """Write an SVG, the same bytes for the same run: a column per policy, slots above and times of steps below.

    A row is a slot; a mark says that a coarse stage fires for it in that step, the larger the coarser. A bar is the median over
    rounds of what the step took.

    Raises:
        BackendUnavailable: matplotlib is not installed.
        ConfigError: a model that no batch was measured of, or a suffix that names no format.
    """
    require_picture(out)
    from matplotlib.figure import Figure

    if not model.batches:
        raise ConfigError(f'no batch of "{model.name}" was measured; measure some: foveal bench BUNDLE --batch 16 --save FILE')
    figure = Figure(figsize=(10, 5), layout="constrained")
    columns = len(model.batches)
    axes = figure.subplots(2, columns, squeeze=False, sharex=True, sharey="row", gridspec_kw={"height_ratios": [3, 2]})
    for above, below, batch in zip(*axes, model.batches, strict=True):
        _draw_firings(above, coarse_stages(model.stages), batch)
        below.bar(range(len(of_steps := step_ms(batch)[:STEPS])), of_steps, width=0.8, color="0.45")
        below.set(xlabel="step", xticks=range(0, STEPS + 1, 16))
        below.grid(axis="y", alpha=0.3)
    axes[0][0].set(ylabel="slot", yticks=range(0, model.batches[0].slots, max(model.batches[0].slots // 8, 1)))
    axes[0][0].invert_yaxis()
    axes[1][0].set(ylabel="step, ms")
    axes[0][0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, frameon=False)
    save(figure, out)


def coarse_stages(stages: Sequence[StageResult]) -> list[StageResult]:
    """One for each stride above 1, as stages of one stride fire together, and for each rate of those whose firings the data
    decides; the finest first."""
    by_rate = {_tokens_per_firing(stage): stage for stage in stages if stage.stride > 1 or stage.expected is not None}
    return [by_rate[rate] for rate in sorted(by_rate)]


def _tokens_per_firing(stage: StageResult) -> float:
    return stage.stride if stage.expected is None else stage.expected


def step_ms(batch: BatchResult) -> list[float]:
    """Of each step of a round the median over rounds, in milliseconds."""
    steps = len(batch.samples.itl_ns) // len(batch.tokens_per_s_by_round)
    return [median(batch.samples.itl_ns[step::steps]) / NS_PER_MS for step in range(steps)]


def firings_of(stage: StageResult, batch: BatchResult, steps: int) -> list[tuple[int, int]]:
    """The first steps and the slots for which a stage fires in them."""
    if stage.expected is not None:
        return [(step, slot) for step, fired in enumerate(batch.samples.slots[:steps]) for slot in fired.get(stage.name, [])]
    each = [(step, slot, position + step) for step in range(steps) for slot, position in enumerate(batch.samples.positions)]
    return [(step, slot) for step, slot, position in each if (position - stage.delay) % stage.stride == 0]


def _draw_firings(axes: Any, stages: Sequence[StageResult], batch: BatchResult) -> None:
    for number, stage in enumerate(stages):
        fired = firings_of(stage, batch, STEPS)
        steps, slots = [step for step, _ in fired], [slot for _, slot in fired]
        label = f"stride {stage.stride}" if stage.expected is None else f"one in {stage.expected:g}, as the data decides"
        axes.scatter(steps, slots, s=9 + 22 * number, marker="s", color=f"C{number}", label=label)
    axes.set(title=f"{batch.policy}, {batch.slots} sequences")


def model_of(result: BenchResult, name: str) -> ModelResult:
    """A model of a benchmark by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    for model in result.models:
        if model.name == name:
            return model
    raise ConfigError(f'no model "{name}" was measured, only: {", ".join(model.name for model in result.models)}')


def main() -> None:
    """Draw what a benchmark has kept.

    Raises:
        ConfigError: a file that holds no benchmark's result, or a model that it did not measure.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("model")
    given = parser.parse_args()
    try:
        result = decode(given.result.read_bytes(), BenchResult)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"{given.result} holds no benchmark's result ({error}); write one: foveal bench BUNDLE --batch 16 --save F"
        ) from error
    draw(given.out, model_of(result, given.model))


if __name__ == "__main__":
    run_script(main)
