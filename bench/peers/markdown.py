"""A run for the docs, so that figures are put there and not typed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from .agreement import CLOSE
from .peers import VANILLA, Kind
from .result import PeersResult, SystemResult, Work

OWN = "foveal"
KINDS: tuple[Kind, ...] = ("fp32", "8-bit", "4-bit")


def mark_of(work: Work) -> str:
    """Which place of the document a run belongs to."""
    return "peers" if work.sequences == 1 else f"peers, {work.sequences} sequences"


def figures(result: PeersResult) -> str:
    """All systems, what foveal's are times the others, and what all was measured on."""
    parts = [_systems(result), _against(result), _machine(result)]
    parts += [f"Not run: {name}: {reason}" for name, reason in result.skipped.items()]
    return "\n\n".join(part for part in parts if part)


def _systems(result: PeersResult) -> str:
    alone = result.work.sequences == 1
    rate = ["decode, ms per token", "in rounds"] if alone else ["decode, tokens/s", "in rounds"]
    rows = []
    for kind in KINDS:
        of_kind = [system for system in result.systems if system.kind == kind]
        rows += [[f"**{kind}**", *[""] * (5 if alone else 4)]] if of_kind else []
        rows += [_row(system, result.work) for system in of_kind]
    return _table(["", *rate, "prefill, tokens/s", *(["first token, cold, s"] if alone else []), "logits differ by"], rows)


def _row(system: SystemResult, work: Work) -> list[str]:
    rounds = system.step_ms_by_round
    if work.sequences == 1:
        decode = [f"{median(rounds):.2f}", f"{min(rounds):.2f} to {max(rounds):.2f}"]
    else:
        rates = [1e3 * work.sequences / ms for ms in rounds]
        decode = [f"{median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}"]
    cold = [f"{median(system.first_token_s):.2f}"] if system.first_token_s else []
    name = f"{system.peer} `{system.hierarchy}` {system.precision}"
    return [name, *decode, f"{_prefill(system, work):,.0f}", *cold, f"{system.logits_error:.2g}"]


def _prefill(system: SystemResult, work: Work) -> float:
    return work.sequences * work.prompt_tokens / median(system.prefill_s)


def _against(result: PeersResult) -> str:
    """Each of foveal's vanilla systems over each other system of its kind: above 1, foveal is faster."""
    rows = []
    for kind in KINDS:
        vanilla = [system for system in result.systems if (system.kind, system.hierarchy) == (kind, VANILLA)]
        ours = [system for system in vanilla if system.peer == OWN]
        for other in (system for system in vanilla if system.peer != OWN):
            for own in ours:
                if not other.peer.startswith(OWN) or own.precision == other.precision:
                    rows.append([f"{own.precision} over {other.peer} {other.precision}", *_times(own, other, result.work)])
    cold = ["first token"] if result.work.sequences == 1 else []
    return _table([f"foveal's `{VANILLA}` times as fast", "decode", "prefill", *cold], rows) if rows else ""


def _times(own: SystemResult, other: SystemResult, work: Work) -> list[str]:
    found = [other.step_ms / own.step_ms, _prefill(own, work) / _prefill(other, work)]
    if own.first_token_s:
        found.append(median(other.first_token_s) / median(own.first_token_s))
    return [f"{value:.2f}" for value in found]


def _machine(result: PeersResult) -> str:
    environment, work = result.environment, result.work
    versions = {name: version for system in result.systems if system.peer != OWN for name, version in system.versions.items()}
    versions |= {name: version for system in result.systems if system.peer == OWN for name, version in system.versions.items()}
    many = "" if work.sequences == 1 else f"{work.sequences} sequences of "
    return (
        f"{environment.cpu}, {environment.cpus_usable} CPUs, {environment.system}, Python {environment.python}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}; {environment.created_utc[:10]}. "
        f"{work.threads} threads; {many}{work.prompt_tokens} tokens of prompt, {work.new_tokens} decoded greedily; medians of "
        f"{work.rounds} rounds in which all take turns. Logits: the largest difference from PyTorch's in fp32, in standard "
        f"deviations of these; allowed {', '.join(f'{kind} {most:g}' for kind, most in CLOSE.items())}. "
        f"Command: `{result.command}`"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    line = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, line, *rows])
