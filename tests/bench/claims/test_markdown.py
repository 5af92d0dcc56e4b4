"""From `claims.json` to the docs, nothing typed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from claim_results import claims_result

from foveal import ConfigError
from foveal.bench.claims.__main__ import main
from foveal.bench.claims.markdown import figures
from foveal.bench.claims.result import ClaimsResult
from foveal.bench.claims.settings import CLAIMS
from foveal.bench.document import insert

DOCS = Path(__file__).parents[3] / "docs" / "claims.md"


def test_every_claim_has_its_tables() -> None:
    """With the verdict in front, and behind it what they were measured on."""
    found = figures(claims_result())
    assert list(found) == list(CLAIMS)
    assert found["speed"].startswith("**Here it holds.** 1.30 times the vanilla model or more: top-down 1@4 1@1 in fp32")
    assert "| top-down 1@4 1@1 | fp32 | 512 | 140 | 1.40 | 1.20 to 1.50 | 1.60 | 1.50 | 2.00 | 1.00 |" in found["speed"]
    assert "| top-down 1@4 1@1 | 512 | +100% | -30% | +35% | +0% | +33% |" in found["memory"]
    assert "| 4 | 1 | 4, close | 2 | 2 | 0.50 | 0.125 |" in found["firing"]
    assert "| 0 and more | 1,234 | 3.800 | 4.000 | -0.200 ± 0.100 | better |" in found["rare-words"]
    assert "| 65 to 128 | +0.020 ± 0.010 |" in found["order"]
    for text in found.values():
        assert (
            "a CPU, 2 CPUs, 24 GiB, Linux, Python 3.11, foveal 0.1.0, onnxruntime 1.32.0, numpy 2.0; 2 threads, 2026-11-25"
            in text
        )
        assert "doubtful: the load average was 3.0" in text
    assert [claim for claim, text in found.items() if "not quiet; rounds differ." in text] == ["speed"]


def test_rows_are_as_wide_as_their_table() -> None:
    """Else a page shows them wrongly."""
    for text in figures(claims_result()).values():
        for block in text.split("\n\n"):
            if block.startswith("|"):
                assert len({line.count("|") for line in block.splitlines()}) == 1


def test_figures_replace_figures() -> None:
    """What stands around them stays; put there again, nothing changes."""
    document = "A\n<!-- figures: speed -->\nold\n<!-- end: speed -->\nB"
    once = insert(document, {"speed": "new \\1"})
    assert once == "A\n<!-- figures: speed -->\nnew \\1\n<!-- end: speed -->\nB"
    assert insert(once, {"speed": "new \\1"}) == once


def test_a_document_without_the_place() -> None:
    """Says what to put there."""
    with pytest.raises(ConfigError, match="no place for order; put <!-- figures: order --> and <!-- end: order --> where"):
        insert("nothing", {"order": "x"})


def test_the_docs_have_a_place_for_all() -> None:
    """docs/claims.md."""
    insert(DOCS.read_text(), figures(claims_result()))


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, or put into a document, among the figures of other models too."""
    saved, document = tmp_path / "claims.json", tmp_path / "claims.md"
    saved.write_bytes(msgspec.json.encode(claims_result()))
    main(saved)
    assert capsys.readouterr().out.count("<!-- figures: ") == 5
    document.write_text(DOCS.read_text())
    main(saved, document)
    assert "**Here it holds.** 1.30 times" in document.read_text()
    marks = "".join(f"<!-- figures: {claim}-deep -->\n<!-- end: {claim}-deep -->\n" for claim in CLAIMS)
    document.write_text(f"<!-- figures: speed -->\n<!-- end: speed -->\n{marks}")
    main(saved, document, "deep")
    assert document.read_text().startswith(
        "<!-- figures: speed -->\n<!-- end: speed -->\n<!-- figures: speed-deep -->\n**Here it"
    )


def test_results_survive_json() -> None:
    """Nulls included."""
    result = claims_result()
    assert msgspec.json.decode(msgspec.json.encode(result), type=ClaimsResult) == result
