"""NVIDIA's AIPerf against `foveal serve`: streamed completions, one after the other and many at once.

python -m foveal.bench.serving.aiperf model.bundle --aiperf build/aiperf/bin/aiperf
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ...errors import FovealError
from ..script import run_script
from .server import serving

_COLUMNS = (
    ("time_to_first_token", "avg", "first token, ms"),
    ("time_to_first_token", "p99", "its p99"),
    ("inter_token_latency", "avg", "between tokens, ms"),
    ("inter_token_latency", "p99", "its p99"),
    ("request_latency", "avg", "a request, ms"),
    ("output_token_throughput", "avg", "tokens/s"),
    ("request_throughput", "avg", "requests/s"),
    ("request_error_rate", "avg", "errors, %"),
)


def main() -> None:
    """Print AIPerf's figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="with a tokenizer.json")
    parser.add_argument("--aiperf", default="aiperf", help="the command, in an environment of its own")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--requests", type=int, default=20, help="for each of those that run at once, and 20 more")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("build/aiperf/results"))
    given = parser.parse_args()
    if not (given.bundle / "tokenizer.json").is_file():
        raise FovealError(f"{given.bundle} has no tokenizer.json, by which AIPerf makes prompts and counts tokens")
    with serving(given.bundle, ["--slots", str(given.slots)]) as server:
        model = server.status()["id"]
        found = {count: _profile(given, f"http://127.0.0.1:{server.port}", model, count) for count in given.concurrency}
    _show(found)


def _profile(given: argparse.Namespace, address: str, model: str, concurrency: int) -> dict[str, Any]:
    """One run; its results as AIPerf writes them."""
    out = given.out / f"concurrency-{concurrency}"
    options = {
        "--model": model,
        "--url": address,
        "--endpoint-type": "completions",
        "--tokenizer": str(given.bundle.resolve()),
        "--concurrency": str(concurrency),
        "--request-count": str(20 + given.requests * concurrency),
        "--warmup-request-count": str(2 * concurrency),
        "--prompt-input-tokens-mean": str(given.prompt_tokens),
        "--prompt-input-tokens-stddev": "0",
        "--prompt-output-tokens-mean": str(given.new_tokens),
        "--random-seed": "1",
        "--ui": "none",
        "--output-artifact-dir": str(out),
    }
    command = [given.aiperf, "profile", "--streaming", "--use-server-token-count", "--no-gpu-telemetry"]
    command += [part for option in options.items() for part in option]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise FovealError(f"{given.aiperf} can't be run ({error}); sh bench/serving/aiperf.sh installs it") from error
    if done.returncode:
        raise FovealError(f"AIPerf ended with exit code {done.returncode}; {out}/logs/aiperf.log says why")
    results: dict[str, Any] = json.loads((out / "profile_export_aiperf.json").read_text())
    return results


def _show(found: dict[int, dict[str, Any]]) -> None:
    table = Table("at once", *(title for _, _, title in _COLUMNS))
    for concurrency, results in found.items():
        table.add_row(str(concurrency), *(f"{results[name][part]:.2f}" for name, part, _ in _COLUMNS))
    Console(width=150).print(table)


if __name__ == "__main__":
    run_script(main)
