"""What every stage reads in a real prefill and a real decode step, as files that `polygraphy run` takes.

DIRECTORY/<stage>.<call>.inputs.json     all inputs of the stage's graph by name, keys and values included
DIRECTORY/<stage>.<call>.outputs.json    what the graph gave for them on ONNX Runtime
DIRECTORY/commands.sh                    the command lines
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle import Bundle, open_bundle
from ...contract import clocks_of, read_tensors
from ...errors import BackendUnavailable, ConfigError, install
from ...files import write_atomically
from ...runtime.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeStage
from ...runtime.rows import Array, Block
from ...runtime.session import Session
from .portable_engines import portable_engines
from .systems import expected_period, token_ids

PREFILL, DECODE = "prefill", "decode"
TOLERANCES = {"fp32": 1e-4}
"""Of `polygraphy run`, absolute and relative, by precision."""
_LOSSY = 2e-2  # optimised, products of narrow weights become kernels that round activations too
_NOTE = "# With TensorRT they take a GPU, and were not run here. Its caches take static shapes, which these inputs give."


def save_inputs(
    bundle: str | Path | Bundle, directory: str | Path, *, texts: Sequence[str | Path] = (), tokens: int | None = None
) -> tuple[str, ...]:
    """Decode the beginning of a text on the portable graphs, and write what their stages read and gave.

    The prefill is the first call in which a stage fires; the decode step the last single token that fires it. A stage whose
    firings the data decides may fire in no decode step: then there are no files of one.

    Args:
        bundle: whose stage graphs run.
        directory: where the files go; files of the same names are replaced.
        texts: files, or directories of `*.txt`; none: random ids.
        tokens: that are decoded; None: two periods of firing, and a few more.

    Returns:
        The command lines that compare ONNX Runtime with what was written, which are also in `commands.sh`.

    Raises:
        BackendUnavailable: Polygraphy is not installed, or onnxruntime is too old for the graphs.
        ConfigError: unsuitable tokens, or a directory that can't be written.
    """
    _polygraphy()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    ids = token_ids(opened, texts, tokens)
    engines = [_Watched(engine) for engine in portable_engines(opened)]
    specs = [engine.spec for engine in engines]
    # Every stage fires once more in a period; where the data decides, it may be later than expected.
    period = ids.shape[1] // 2 if clocks_of(specs) else expected_period(specs)
    with Session(engines, opened.manifest.model, 1, ids.shape[1]) as session:
        begin = ids.shape[1] - period
        session.advance(ids[:, :begin])
        for position in range(begin, ids.shape[1]):
            session.advance(ids[:, position : position + 1])
    place = Path(directory)
    try:
        place.mkdir(parents=True, exist_ok=True)
        commands = [
            _save(opened, place, engine, call) for engine in engines for call in (PREFILL, DECODE) if call in engine.seen
        ]
        gpu = [line.replace("--onnxrt", "--trt --strongly-typed") for line in commands]
        write_atomically(place / "commands.sh", "\n".join([*commands, "", _NOTE, *(f"# {line}" for line in gpu), ""]).encode())
    except OSError as error:
        raise ConfigError(f"{place} can't be written: {error.strerror}; choose another directory") from error
    return tuple(commands)


class _Watched:
    """An engine of a portable graph, and what its last prefill and its last decode step read and gave."""

    def __init__(self, engine: OnnxRuntimeEngine) -> None:
        self.spec, self.sidecar, self.engine = engine.spec, engine.sidecar, engine
        self.seen: dict[str, tuple[dict[str, Array], dict[str, Array]]] = {}

    def bind(self, batch: int, firings: int) -> OnnxRuntimeStage:
        """As `OnnxRuntimeEngine.bind`."""
        return _WatchedStage(self, batch, firings)


class _WatchedStage(OnnxRuntimeStage):
    def __init__(self, watched: _Watched, batch: int, firings: int) -> None:
        super().__init__(watched.engine, watched.engine.new_caches(batch, firings), batch, firings)
        self._watched = watched

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        read = self._state("past_key_values.")
        read |= {given.name: np.array(cache) for given, cache in zip(self._spec.borrows, self._borrowed, strict=True)}
        given = zip(read_tensors(self._spec), inputs, strict=True)
        read |= {tensor.name: np.array(block.array) for tensor, block in given}
        if logit_rows is not None:
            read["logit_rows"] = np.array(logit_rows.array)
        super().run(first, firings, inputs, output, logit_rows)
        if self._spec.clock is not None and self._spec.begins_ahead and first == 0 and firings == 1:
            return  # before the first token there is nothing to read
        read |= {name: np.array(array) for name, array in self._counters.fixed.items()}  # set for this call
        read["rows"] = np.arange(first, first + firings, dtype=np.int64)[None]
        gave = {self._spec.output: np.array(output.array), **self._state("present.")}
        call = PREFILL if not self._watched.seen else DECODE
        names = self._watched.engine.input_names
        self._watched.seen[call] = ({name: read[name] for name in sorted(names)}, gave)

    def _state(self, prefix: str) -> dict[str, Array]:
        return {f"{prefix}{spec.name}": np.array(cache) for spec, cache in zip(self._spec.caches, self.caches, strict=True)}


def _save(bundle: Bundle, directory: Path, engine: _Watched, call: str) -> str:
    """Write a call's two files; the command that runs the graph on them."""
    save_json, results = _polygraphy()
    read, gave = engine.seen[call]
    inputs, outputs = (directory / f"{engine.spec.name}.{call}.{kind}.json" for kind in ("inputs", "outputs"))
    save_json([read], str(inputs))
    expected = results()
    expected.add([gave], runner_name="foveal")
    save_json(expected, str(outputs))  # its own `save` prints
    graph = next(bundle.file(entry.graph) for entry in bundle.manifest.stages if entry.spec == engine.spec)
    allowed = str(TOLERANCES.get(bundle.manifest.precision, _LOSSY))
    given = ["--load-inputs", str(inputs), "--load-outputs", str(outputs), "--atol", allowed, "--rtol", allowed]
    return shlex.join(["polygraphy", "run", str(graph), "--onnxrt", *given, "--validate"])


def _polygraphy() -> tuple[Any, Any]:
    try:
        from polygraphy.comparator import RunResults
        from polygraphy.json import save_json
    except ImportError as error:
        raise BackendUnavailable(f"polygraphy can't be imported, and inputs are saved for it: {install('export')}") from error
    return save_json, RunResults
