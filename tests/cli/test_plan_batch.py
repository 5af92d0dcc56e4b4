"""`foveal plan batch` and `foveal bench --batch`: tables, files, and what is refused. No test depends on a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from specimens import Zoo

SMALL = ("--prompt-tokens", "8", "--new-tokens", "16", "--steps", "40")
HERE = ("--rounds", "1", "--threads", "1", "--up-to", "4")


@pytest.fixture(scope="module")
def times(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of calls, measured once."""
    from foveal.bench.decode import Load
    from foveal.bench.stage_times import measure_stage_times, save_stage_times
    from foveal.runtime.model import load

    path = tmp_path_factory.mktemp("times") / "times.json"
    model = load(zoo["nested"].bundle, threads=1)
    save_stage_times(path, measure_stage_times(model, Load(8, 16, rounds=1), 4))
    return path


def test_a_forecast_beside_the_batch(foveal, zoo: Zoo, tmp_path: Path) -> None:
    """Of those whose calls were measured; times and result are kept."""
    kept, saved = tmp_path / "times.json", tmp_path / "forecast.json"
    arguments = ("--slots", "2,4,8", "--policy", "staggered", "--measure", "--save-times", kept, "--save", saved)
    code, out, err = foveal("plan", "batch", zoo["nested"].bundle.path, *SMALL, *HERE, *arguments)
    assert code == 0, err
    for part in ("Beside the batch itself, in a closed loop", "measured", "off", "8*", "* calls for more than 4 sequences"):
        assert part in out
    assert sorted(json.loads(kept.read_text())["stages"]) == ["1.post", "1.pre", "2.post", "2.pre", "8"]
    rows = json.loads(saved.read_text())["rows"]
    assert [(row["slots"], row["measured"] is not None) for row in rows] == [(2, True), (4, True), (8, False)]
    assert all(row["forecast"]["itl_ms"]["count"] > 0 for row in rows)


def test_times_of_another_machine(foveal, zoo: Zoo, times: Path) -> None:
    """The same forecast every time, for as many requests as come."""
    arguments = ("plan", "batch", zoo["nested"].bundle.path, *SMALL, "--times", times, "--rate", "5,500", "--json")
    first, again = (json.loads(foveal(*arguments)[1]) for _ in range(2))
    assert first["rows"] == again["rows"]
    assert {row["rate"] for row in first["rows"]} == {None, 5.0, 500.0}
    assert len(first["rows"]) == 3 * 7 * 2


def wrong(text: str, **changes: object) -> str:
    """Stage times, changed."""
    return json.dumps({**json.loads(text), **changes})


def test_times_that_are_none(foveal, zoo: Zoo, times: Path, tmp_path: Path) -> None:
    """No file, no JSON, of another version, of another model, times that can't be: one sentence each."""
    right, path = times.read_text(), tmp_path / "t.json"
    path.write_text("{}")
    nested, vanilla = zoo["nested"].bundle.path, zoo["vanilla"].bundle.path
    for bundle, text, sentence in (
        (nested, None, "can't be read (No such file or directory); write it with foveal plan batch BUNDLE --save-times"),
        (nested, "{}", "holds no stage times (Object missing required field"),
        (nested, wrong(right, schema_version=99), "holds stage times of version 99, expected 1; measure them again"),
        (nested, wrong(right, host={"sizes": [2, 1], "ns": [1, 1]}), "sizes that grow from 1 and a time above 0 for each"),
        (nested, wrong(right, prefill={"8": {"sizes": [], "ns": []}}), "sizes that grow from 1 and a time above 0 for each"),
        (nested, wrong(right, prefill={}), "lacks times of stages that nested has"),
        (vanilla, right, "whose stage graphs are not those of"),
    ):
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        code, _, err = foveal("plan", "batch", bundle, *SMALL, "--times", path)
        assert (code, sentence in err) == (1, True), err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--slots", "4,many"), '--slots is "4,many", expected whole numbers separated by commas'),
        (("--rate", "often"), '--rate is "often", expected numbers separated by commas'),
        (("--rate", "-1"), "the rate of requests is -1.0, expected requests per second from 1e-06"),
        (("--policy", "random"), 'got policy "random", expected one of: staggered, aligned'),
        (("--policy", "aligned,aligned"), "name each once"),
        (("--prefill-ms", "-1"), "prefill_seconds must be at least 0"),
        (("--prompt-tokens", "900"), "a context of 96 tokens, got a prompt of 900 and 256 new tokens; lower one of them"),
    ],
)
def test_what_can_not_be_asked(foveal, zoo: Zoo, arguments: tuple[str, ...], sentence: str) -> None:
    """Said before anything is measured."""
    code, _, err = foveal("plan", "batch", zoo["nested"].bundle.path, *arguments)
    assert (code, sentence in err) == (1, True), err


def test_a_stage_that_does_not_fire_has_no_time(foveal, zoo: Zoo) -> None:
    """Fewer new tokens than its stride."""
    arguments = ("--prompt-tokens", "1", "--new-tokens", "2", *HERE)
    code, _, err = foveal("plan", "batch", zoo["nested"].bundle.path, *arguments)
    assert (code, 'stage "8" fires every 8 tokens, and did not; take as many new tokens' in err) == (1, True), err


def test_bench_of_a_batch(foveal, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column for each policy, and its samples in the file."""
    monkeypatch.setattr("foveal.bench.bandwidth.MemoryReader.gb_s", lambda _reader: 20.0)
    arguments = ("--prompt-tokens", "8", "--new-tokens", "8", "--rounds", "1", "--threads", "1", "--batch", "4")
    saved = tmp_path / "r.json"
    code, out, _ = foveal("bench", zoo["nested"].bundle.path, *arguments, "--policy", "aligned", "--save", saved)
    assert (code, "4 aligned" in out, "4 staggered" in out) == (5, True, False)
    (batch,) = json.loads(saved.read_text())["models"][0]["batches"]
    assert (batch["policy"], len(batch["samples"]["itl_ns"])) == ("aligned", 8)
    code, out, _ = foveal("bench", "--hierarchy", "1@1 1@4 1@1", "--dim", "16", "--heads", "2", "--ff-dim", "16", *arguments)
    assert (code, "4 aligned" in out, "4 staggered" in out) == (5, True, True)
    for policy, sentence in (("random", 'got policy "random"'), ("", 'got policy ""')):
        code, _, err = foveal("bench", zoo["nested"].bundle.path, *arguments, "--policy", policy)
        assert (code, sentence in err) == (1, True), err
