"""Bytes that decoding must read, counted by hand: no engine runs here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from forecasting import KEYS, spec

from foveal.bundle import SCHEMA_VERSION, Bundle, Manifest, ModelInfo, StageEntry
from foveal.contract import BorrowSpec, CacheSpec, ClockSpec, StageSpec
from foveal.forecast.traffic import bytes_by_stage, bytes_per_token, reads_per_token
from foveal.runtime.schedules import Decisions

CLOCK = ClockSpec(stage="1", tokens_per_firing=4.5)


def bundle(monkeypatch: pytest.MonkeyPatch, *specs: StageSpec) -> Bundle:
    """Stages of 1000 bytes of weights, 400 of them tables; a row of each cache is 10 bytes."""
    monkeypatch.setattr(
        Bundle, "cache_row_bytes", lambda _self, _target, spec: dict.fromkeys((c.name for c in spec.caches), 10)
    )
    model = ModelInfo(
        architecture="any",
        source_format="any",
        hierarchy="1@1",
        vocab_size=4,
        dim=4,
        max_positions=None,
        context=99,
        parameters=0,
        layer_equivalents=1.0,
    )
    stages = tuple(StageEntry(spec=spec, graph="", weight_bytes=1000, table_bytes=400) for spec in specs)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        foveal_version="0",
        model=model,
        dialect="modern",
        precision="fp32",
        tokenizer=None,
        stages=stages,
        engines={},
        files={},
    )
    return Bundle(Path("somewhere"), manifest)


def test_a_cache_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Token 8 looks back at 9 rows, itself included, and so on to 11 rows; tables are not read whole."""
    read = bytes_per_token(bundle(monkeypatch, spec("1")), "cpu", 8, 3)
    assert read == (600, 10 * (9 + 10 + 11) / 3)
    assert read.total == 700


def test_a_coarse_stage_reads_only_when_it_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tokens 8 to 15, 8 and 12 fire: groups 2 and 3, with 3 and 4 rows."""
    assert bytes_per_token(bundle(monkeypatch, spec("4", 4)), "cpu", 8, 8) == (600 * 2 / 8, 10 * (3 + 4) / 8)


def test_a_stage_that_fires_when_a_group_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tokens 8 to 11 only the last one does."""
    assert bytes_per_token(bundle(monkeypatch, spec("4", 4, fires="close")), "cpu", 8, 4) == (600 / 4, 10 * 3 / 4)


def test_a_cache_that_keeps_so_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are never more to read."""
    ring = CacheSpec(name="0.key", heads=2, width=8, keeps=4)
    found = bundle(monkeypatch, spec("1", caches=(ring,)))
    assert bytes_per_token(found, "cpu", 2, 2).caches == 10 * (3 + 4) / 2
    assert bytes_per_token(found, "cpu", 100, 5).caches == 10 * 4


def test_several_rows_in_each_firing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All count, up to those that are kept."""
    found = bundle(monkeypatch, spec("1", caches=(CacheSpec(name="0.key", heads=2, width=8, rows=3),)))
    assert bytes_per_token(found, "cpu", 4, 1).caches == 10 * 15
    found = bundle(monkeypatch, spec("1", caches=(CacheSpec(name="0.key", heads=2, width=8, rows=3, keeps=7),)))
    assert bytes_per_token(found, "cpu", 4, 1).caches == 10 * 7


def test_a_stage_that_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks back no further than its last reset, whatever its cache still holds."""
    ring = CacheSpec(name="0.key", heads=2, width=8, keeps=4)
    found = bundle(monkeypatch, spec("1", caches=(ring,), resets=4))
    assert bytes_per_token(found, "cpu", 8, 4).caches == 10 * (1 + 2 + 3 + 4) / 4


def test_a_borrowed_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its stage has written by then: in this step too, if it comes first."""
    lender = spec("4", 4)
    borrower = spec("1", caches=(), borrows=(BorrowSpec(stage="4", cache=KEYS),))
    lent = 10 * 3  # group 2 at token 8
    assert bytes_per_token(bundle(monkeypatch, lender, borrower), "cpu", 8, 1).caches == lent + 10 * 3
    assert bytes_per_token(bundle(monkeypatch, borrower, lender), "cpu", 8, 1).caches == lent + 10 * 2


def test_stages_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What all read is what each of them does."""
    found = bundle(monkeypatch, spec("1"), spec("4", 4))
    by_stage = bytes_by_stage(found, "cpu", 8, 8)
    assert by_stage == {"1": (600, 10 * 12.5), "4": (600 / 4, 10 * (3 + 4) / 8)}
    assert bytes_per_token(found, "cpu", 8, 8) == tuple(map(sum, zip(*by_stage.values(), strict=True)))


def test_reads_in_the_middle_and_at_the_end_of_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a period of 4 tokens each: of 99, those from 47 and those from 95."""
    fine, coarse = reads_per_token(bundle(monkeypatch, spec("1", parameters=500), spec("4", 4)), "cpu")
    assert (fine.fires_per_token, coarse.fires_per_token) == (1, 0.25)
    assert (fine.weights, coarse.weights) == (600, 150)
    assert fine.weights_fp32 == 4 * 500 - 400  # without its tables, which are fp32
    assert fine.caches_half == 10 * (48 + 49 + 50 + 51) / 4
    assert fine.caches_full == 10 * (96 + 97 + 98 + 99) / 4
    assert coarse.caches_half == 10 * 13 / 4  # token 48 opens group 12
    assert coarse.caches_full == 10 * 25 / 4


def test_where_the_data_decides_as_often_as_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in 4.5 tokens, behind as many rows as are expected by then: after 450 tokens 100, and one more."""
    found = bundle(monkeypatch, spec("1"), spec("decided", clock=CLOCK))
    read = bytes_by_stage(found, "cpu", 450, 1)["decided"]
    assert read == pytest.approx((600 / 4.5, 10 * 101 / 4.5))
    reads = reads_per_token(found, "cpu")[1]
    assert (reads.fires_per_token, reads.weights) == pytest.approx((1 / 4.5, 600 / 4.5))


def test_what_the_data_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tokens 4 to 11, 5 and 9 made boundaries: the third and the fourth; one that fires ahead has a row more."""
    made = np.isin(np.arange(12), [0, 3, 5, 9])
    schedule = {CLOCK: Decisions(np.arange(12), np.zeros(12, np.float32), made, made)}
    found = bundle(monkeypatch, spec("1"), spec("decided", clock=CLOCK), spec("ahead", clock=CLOCK, fires="ahead"))
    read = bytes_by_stage(found, "cpu", 4, 8, schedule)
    assert read["decided"] == (600 * 2 / 8, 10 * (3 + 4) / 8)
    assert read["ahead"] == (600 * 2 / 8, 10 * (4 + 5) / 8)


def test_a_recurrent_state_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the past is."""
    state = CacheSpec(name="state", heads=2, width=8, rows=3, recurrent=True)
    assert bytes_per_token(bundle(monkeypatch, spec("1", caches=(state,))), "cpu", 50, 7).caches == 10 * 3


def test_what_is_borrowed_of_a_stage_that_the_data_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as it is expected to have, or has."""
    lender, borrower = (
        spec("lender", clock=ClockSpec(ids=(3,), tokens_per_firing=4)),
        spec("borrower", caches=(), borrows=(BorrowSpec(stage="lender", cache=KEYS),)),
    )
    found = bundle(monkeypatch, lender, borrower)
    assert bytes_by_stage(found, "cpu", 39, 1)["borrower"].caches == 10 * 40 / 4
    made = np.arange(40) == 7
    assert lender.clock is not None
    schedule = {lender.clock: Decisions(np.arange(40), np.zeros(40, np.float32), made, made)}
    assert bytes_by_stage(found, "cpu", 39, 1, schedule)["borrower"].caches == 10
