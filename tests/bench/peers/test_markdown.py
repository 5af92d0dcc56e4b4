"""From samples to the page, nothing typed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from claim_results import claims_result
from peers_fakes import fake

from foveal import ConfigError
from foveal.bench.document import insert
from foveal.bench.peers import __main__ as command
from foveal.bench.peers.markdown import figures, mark_of
from foveal.bench.peers.peers import Kind
from foveal.bench.peers.result import PeersResult, SystemResult, Work

DOCS = Path(__file__).parents[3] / "docs" / "performance.md"
ALONE = Work(sequences=1, prompt_tokens=512, new_tokens=2, threads=2, rounds=3)
TOGETHER = Work(sequences=16, prompt_tokens=128, new_tokens=2, threads=2, rounds=3)


def system(peer: str, precision: str, kind: Kind, ms: float, hierarchy: str = "12@1", cold: bool = True) -> SystemResult:
    """Whose rounds take this long, half and one and a half times as long; prefill as long as 100 steps."""
    return SystemResult(
        name=f"{peer} {hierarchy} {precision}",
        peer=peer,
        hierarchy=hierarchy,
        precision=precision,
        kind=kind,
        versions={peer: "1.0"},
        logits_error=0.01234,
        prefill_s=[0.1 * ms] * 3,
        step_s=[[1e-3 * ms * share] * 2 for share in (0.5, 1.0, 1.5)],
        first_token_s=[0.2 * ms] * 3 if cold else [],
    )


def result(work: Work) -> PeersResult:
    """foveal takes 2 ms, and its commit of before and the others 4."""
    cold = work.sequences == 1
    systems = [
        system("foveal", "fp32", "fp32", 5.0, cold=cold),
        system("foveal", "w4", "4-bit", 2.0, cold=cold),
        system("foveal", "w4", "4-bit", 1.0, "2@1 8@4 2@1", cold),
        system("foveal before", "w4", "4-bit", 4.0, cold=cold),
        system("llama.cpp", "Q4_0", "4-bit", 4.0, cold=cold),
    ]
    environment = claims_result().environment
    return PeersResult(command="X", work=work, systems=systems, skipped={"OpenVINO": "no wheel"}, environment=environment)


def test_one_sequence() -> None:
    """Medians of rounds and their range, in classes; ratios above 1 where foveal is faster; who is missing."""
    page = figures(result(ALONE))
    assert "| foveal `12@1` w4 | 2.00 | 1.00 to 3.00 | 2,560 | 0.40 | 0.012 |" in page
    assert page.index("**fp32**") < page.index("foveal `12@1` fp32") < page.index("**4-bit**") < page.index("`12@1` w4")
    assert "**8-bit**" not in page
    assert "| w4 over llama.cpp Q4_0 | 2.00 | 2.00 | 2.00 |" in page
    assert "| w4 over foveal before w4 | 2.00 | 2.00 | 2.00 |" in page
    assert "2 threads; 512 tokens of prompt, 2 decoded greedily; medians of 3 rounds" in page
    assert "foveal 1.0, foveal before 1.0, llama.cpp 1.0" not in page
    assert page.endswith("Not run: OpenVINO: no wheel")


def test_many_sequences() -> None:
    """Their tokens together; no cold start."""
    page = figures(result(TOGETHER))
    assert "| foveal `12@1` w4 | 8,000 | 5,333 to 16,000 | 10,240 | 0.012 |" in page
    assert "| w4 over llama.cpp Q4_0 | 2.00 | 2.00 |" in page
    assert "16 sequences of 128 tokens of prompt" in page
    assert "first token" not in page


@pytest.mark.parametrize("work", [ALONE, TOGETHER])
def test_rows_are_as_wide_as_their_table(work: Work) -> None:
    """Else a page shows them wrongly."""
    for block in figures(result(work)).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


@pytest.mark.parametrize("work", [ALONE, TOGETHER])
def test_the_docs_have_a_place(work: Work) -> None:
    """docs/performance.md, for what `make peers` runs."""
    assert "figures go here" in insert(DOCS.read_text(encoding="utf-8"), {mark_of(work): "figures go here"})


def test_results_survive_json() -> None:
    """Every sample."""
    assert msgspec.json.decode(msgspec.json.encode(result(ALONE)), type=PeersResult) == result(ALONE)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """The command, with a peer that is there and one that is not."""
    broken = fake("broken", python=Path("/bin/false"))
    monkeypatch.setattr(command, "OTHERS", (fake(exact="fp32", near="8-bit"), broken))
    monkeypatch.setattr("sys.argv", ["peers", "--new-tokens", "2", "--rounds", "1", *arguments])
    command.main()


def test_the_whole_command(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the page, puts it into a document, saves every sample; who is missing is said at once."""
    document = workplace / "page.md"
    document.write_text("A\n<!-- figures: peers -->\nof before\n<!-- end: peers -->\nB")
    run(monkeypatch, str(workplace), "--only", "fake", "--only", "broken", "--document", str(document))
    said = capsys.readouterr()
    assert "not run: broken: it ended with 1 and said nothing" in said.err
    assert "| fake `12@1` near |" in said.out
    page = document.read_text()
    assert page.startswith("A\n<!-- figures: peers -->\n|  | decode, ms per token |")
    assert "Not run: broken: it ended with 1 and said nothing\n<!-- end: peers -->\nB" in page
    assert "of before" not in page
    saved = msgspec.json.decode((workplace / "peers.json").read_bytes(), type=PeersResult)
    assert figures(saved) in page
    assert saved.command == (
        "python -m foveal.bench.peers build/peers --only fake --only broken --sequences 1 --prompt-tokens 512 --new-tokens 2 "
        "--rounds 1 --threads 2"
    )


def test_wrong_settings_are_said_before_the_work(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started for them."""
    document = workplace / "page.md"
    document.write_text("nothing")
    for wrong, message in (
        (["--document", str(document)], "the document has no place for peers; put"),
        (["--threads", "0"], "--threads is at least 1, got 0"),
        (["--prompt-tokens", "1024"], "a context of 1024 tokens, got 1026; lower --prompt-tokens or --new-tokens"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(monkeypatch, str(workplace), *wrong)
    assert not (workplace / "models").exists()
