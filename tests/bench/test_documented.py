"""The tables of docs/performance.md are written by the command, from results that are kept beside it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from specimens import Zoo

from foveal import ConfigError
from foveal.bench import bandwidth, documented
from foveal.bench.decode import Load
from foveal.bench.documented import MEASUREMENTS, Measurement, rerun, tables_of
from foveal.bench.result import BenchResult, read_result
from foveal.bench.result_markdown import markdown, stage_markdown
from foveal.bench.run import bench
from foveal.cli import app

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "performance.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def result(zoo: Zoo) -> BenchResult:
    """Small, and as if from a quiet machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
        patch.setattr("foveal.bench.run._peak_bytes", lambda _model, _work: 1)
        found = bench([zoo["nested"].bundle.path, zoo["vanilla"].bundle.path], Load(16, 16, 3), threads=1)
    return quiet(found, 1)


def quiet(result: BenchResult, times: float) -> BenchResult:
    """With rates that hardly differ."""
    rates = {
        "decode_tokens_per_s_by_round": [100 * times, 101 * times, 99 * times],
        "prefill_tokens_per_s_by_round": [500.0, 501.0, 499.0],
        "itl_p50_ms_by_round": [10.0, 10.1, 9.9],
    }
    models = [msgspec.structs.replace(one, latency=msgspec.structs.replace(one.latency, **rates)) for one in result.models]
    return msgspec.structs.replace(result, models=models, command="foveal bench 'a b' --save /home/me/a.json --rounds 3")


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[BenchResult], tuple[list[str], str, str]]:
    """Runs a measurement that gives a result: what changed, the document, and what was printed."""
    one = Measurement("a", ("--new-tokens", "16"), {"a": markdown, "a stages": lambda result: stage_markdown(result, "nested")})
    document = tmp_path / "page.md"
    places = "".join(f"<!-- figures: {name} -->\n<!-- end: {name} -->\n" for name in one.tables)
    document.write_text(f"Before.\n{places}After.\n", encoding="utf-8")

    def run(result: BenchResult) -> tuple[list[str], str, str]:
        def measure(_one: Measurement, file: Path) -> None:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(msgspec.json.encode(result))

        monkeypatch.setattr(documented, "MEASUREMENTS", (one,))
        monkeypatch.setattr(documented, "measure", measure)
        printed = io.StringIO()
        found = rerun((), tmp_path / "results", document, tmp_path / "raw", console=Console(file=printed, width=200))
        return found, document.read_text(encoding="utf-8"), printed.getvalue()

    return run


def test_a_table_is_written_and_the_next_run_says_what_changed(
    again: Callable[[BenchResult], tuple[list[str], str, str]], result: BenchResult, tmp_path: Path
) -> None:
    """First there is nothing to compare with; the same again has not changed; what is half as fast has."""
    changed, page, said = again(result)
    assert (changed, "nothing to compare with" in said) == ([], True)
    assert page.startswith("Before.\n<!-- figures: a -->")
    assert "| decode, tokens/s | **" in page
    assert "| `8` | 8 |" in page
    kept = read_result(tmp_path / "results" / "a.json")
    assert kept.models[0].samples.itl_ns == []
    assert kept.command == "foveal bench 'a b' --rounds 3"
    changed, same, said = again(result)
    assert (changed, same) == ([], page)
    assert "changed beyond noise: nothing" in said
    changed, _, said = again(quiet(result, 0.5))
    assert changed == ["a"]
    assert "0.50 (0.4" in said


def test_the_caption_says_where_and_how_quietly(result: BenchResult) -> None:
    """Machine, date, versions, load, rounds, threads, and by how much rounds differed."""
    caption = markdown(result).splitlines()[0]
    for part in (
        result.environment.created_utc[:10],
        "onnxruntime",
        "16 tokens of prompt, 16 decoded",
        "3 rounds",
        "1 threads",
        "by up to 2%.",
    ):
        assert part in caption
    assert "not quiet" not in caption
    noisy = [
        msgspec.structs.replace(one, latency=msgspec.structs.replace(one.latency, decode_tokens_per_s_by_round=[1.0, 2.0]))
        for one in result.models
    ]
    assert "by up to 67%: the machine was not quiet." in markdown(msgspec.structs.replace(result, models=noisy))


def test_a_document_without_a_place_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is a name that nothing has."""
    (tmp_path / "page.md").write_text("Nothing.\n")
    monkeypatch.setattr(documented, "measure", None)
    with pytest.raises(ConfigError, match="the document has no place for article"):
        rerun(["article"], tmp_path, tmp_path / "page.md", tmp_path)
    with pytest.raises(ConfigError, match='no measurement "speed"; there are: paper, article, precision, batch'):
        rerun(["speed"], tmp_path, tmp_path / "page.md", tmp_path)


@pytest.mark.parametrize("one", MEASUREMENTS, ids=lambda one: one.name)
def test_the_commands_are_those_of_the_page(one: Measurement) -> None:
    """As they stand there, wherever lines break; each table has its place; options are those that there are."""
    pages = PAGE + (DOCS / "batches.md").read_text(encoding="utf-8")
    assert one.command in " ".join(pages.split())
    for name in one.tables:
        assert f"<!-- figures: {name} -->" in PAGE
    assert app  # the options are parsed by test_conditions' way: the first unknown one would end a run of half an hour
    import typer

    command = typer.main.get_command(app).commands["bench"].commands["default"]  # type: ignore[attr-defined]
    command.make_context("bench", list(one.arguments))


@pytest.mark.parametrize("file", sorted((DOCS / "results").glob("*.json")), ids=lambda file: file.stem)
def test_tables_are_those_of_the_results_beside_the_page(file: Path) -> None:
    """Nobody typed them."""
    (one,) = (one for one in MEASUREMENTS if one.name == file.stem)
    result = read_result(file)
    assert all(model.samples.itl_ns == [] for model in result.models)
    for name, table in tables_of(one, result).items():
        assert f"<!-- figures: {name} -->\n{table}\n<!-- end: {name} -->" in PAGE


def test_a_measurement_is_the_command_in_a_process_of_its_own(zoo: Zoo, tmp_path: Path) -> None:
    """A figure that is missing is in the result, and no failure; one that failed is told by its command."""
    load = ("--prompt-tokens", "4", "--new-tokens", "4", "--rounds", "1", "--threads", "1")
    documented.measure(Measurement("a", (str(zoo["vanilla"].bundle.path), *load), {}), tmp_path / "a.json")
    result = read_result(tmp_path / "a.json")
    assert (result.status, [model.name for model in result.models]) == ("incomplete", ["vanilla"])
    with pytest.raises(ConfigError, match="foveal bench nowhere .* failed with exit code 1"):
        documented.measure(Measurement("b", ("nowhere", *load), {}), tmp_path / "b.json")
