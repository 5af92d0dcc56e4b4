"""Pictures: the same bytes for the same figures, colours that follow the theme, text that is text, words for all."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import msgspec
import pytest
from report_specimens import NAMES

from foveal.report.document import LatencyFacts, ModelFacts, Read, Report, StageFacts, Timeline
from foveal.report.pictures.bars import describe_rates
from foveal.report.pictures.hierarchy import describe_hierarchy, draw_hierarchy
from foveal.report.pictures.latency import describe_distribution, group_name
from foveal.report.pictures.precision import Point, draw_precision, frontier
from foveal.report.pictures.style import DARK, LIGHT, colours_by_stride
from foveal.report.pictures.svg import alone, to_svg
from foveal.report.pictures.timeline import describe_timeline
from foveal.report.sections.all import sections_of
from foveal.report.sections.section import Picture


def pictures(report: Report) -> list[Picture]:
    """All of a report."""
    return [picture for section in sections_of(report) for picture in section.pictures]


def test_the_same_figures_give_the_same_bytes(report: Report) -> None:
    """Drawn twice."""
    for once, again in zip(pictures(report), pictures(report), strict=True):
        assert once.svg() == again.svg()


def test_colours_are_those_of_the_theme(report: Report) -> None:
    """None is left that could not change; standing alone a picture brings both palettes."""
    for picture in pictures(report):
        svg = picture.svg()
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?![\w-]*\")", re.sub(r'href="#[^"]+"|url\(#[^)]+\)', "", svg)), picture.name
        used = set(re.findall(r"var\(--([\w-]+)\)", svg))
        assert used <= {*LIGHT, "sans"}
        whole = alone(svg)
        assert all(f"--{name}:{palette[name]};" in whole for palette in (LIGHT, DARK) for name in LIGHT)
        ET.fromstring(whole)


def test_text_is_text(report: Report) -> None:
    """In the reader's font, and words of the picture can be found in it."""
    svg = next(picture for picture in pictures(report) if picture.name == "timeline").svg()
    texts = [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("}text")]
    assert {stage.name for stage in report.models[0].stages} <= set(texts)
    assert "var(--sans)" in svg


def test_colours_can_be_told_from_the_ground() -> None:
    """3 to 1 and more for what is drawn, 4.5 to 1 for what is read (WCAG 1.4.11 and 1.4.3)."""
    for palette in (LIGHT, DARK):
        for name, colour in palette.items():
            least = 4.5 if name in ("ink", "muted") else 3.0
            if name.startswith("scale") or name in ("ink", "muted", "edge"):
                assert contrast(colour, palette["panel"]) >= least, name


def contrast(colour: str, ground: str) -> float:
    """By WCAG's relative luminance."""
    light, dark = sorted((_luminance(colour), _luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_stages_of_one_rate_have_one_colour() -> None:
    """The finest the first."""
    colours = colours_by_stride({"1.pre": 1, "4": 4, "1.post": 1, "data": 5.5})
    assert colours["1.pre"] == colours["1.post"] == LIGHT["scale-0"]
    assert (colours["4"], colours["data"]) == (LIGHT["scale-1"], LIGHT["scale-2"])


def test_nothing_beats_what_is_on_the_frontier() -> None:
    """In loss and in time; of two that are equal in loss the quicker one."""
    points = [Point(str(index), "a", loss, ms) for index, (loss, ms) in enumerate([(1, 9), (2, 5), (2, 6), (3, 7), (4, 1)])]
    best = frontier(points)
    assert [point.name for point in best] == ["0", "1", "4"]
    for point, other in itertools.product(best, points):
        assert not (other.loss <= point.loss and other.ms <= point.ms and other != point)


def test_one_bundle_makes_a_picture_too() -> None:
    """There is nothing to spread."""
    svg = to_svg(draw_precision([Point("a.bundle", "a.bundle", 1.5, 0.2)], "bits per byte"), "p", "t", "d")
    assert ">a<" in svg


def stage(name: str, **changes: object) -> StageFacts:
    """Of a model that is drawn."""
    given = {
        "stride": 1,
        "expected": None,
        "first_token": 0,
        "layers": 1,
        "parameters": 10,
        "parameter_share": 0.5,
        "weight_bytes": 40,
        "table_bytes": 0,
        "reads": [Read(source=None, rows=1)],
    }
    return StageFacts(name=name, **{**given, **changes})  # type: ignore[arg-type]


def test_hierarchies_of_any_form_are_drawn(report: Report) -> None:
    """Coarse to fine, without layers, with very many, by what the data decides."""
    stages = [
        stage("wide", stride=64, layers=0),
        stage("data", expected=4.5, layers=40, reads=[Read(source="wide", rows=None)]),
        stage("end", reads=[Read(source=None, rows=3), Read(source="wide", rows=1), Read(source="data", rows=2)]),
    ]
    model: ModelFacts = msgspec.structs.replace(report.models[0], stages=stages)
    to_svg(draw_hierarchy(model), "h", "t", "d")
    assert describe_hierarchy(model).endswith(
        "wide fires every 64th token, 0 layers, 10 parameters, reads token ids; data fires one token in 4.5, as the data "
        "decides, 40 layers, 10 parameters, reads spans of wide; end fires every token, 1 layer, 10 parameters, reads 3 token "
        "ids + wide + 2 rows of data."
    )


def test_words_have_the_figures(report: Report) -> None:
    """Of what a picture shows."""
    facts: LatencyFacts = report.latencies[0]
    assert all(group_name(group) in describe_distribution(facts) for group in facts.groups)
    for model in report.measured.models:
        assert f"{model.name.removesuffix('.bundle')} " in describe_rates(report.measured.models)
    timeline = Timeline(tokens=4, is_of_text=False, fires={report.models[0].stages[0].name: [0, 1]}, shares={}, missing=None)
    assert describe_timeline(report.models[0], timeline).startswith("Of 4 tokens: ")
    assert "2 times" in describe_timeline(report.models[0], timeline)


@pytest.mark.parametrize("name", NAMES[1:])
def test_any_bundle_can_be_the_subject(name: str, report: Report) -> None:
    """A vanilla one has one stage, one group of steps and no phases."""
    first = [model for model in report.models if model.name == name]
    others = [model for model in report.models if model.name != name]
    fires = {stage.name: [0, 8] for stage in first[0].stages}
    timeline = msgspec.structs.replace(report.timeline, fires=fires, shares=dict.fromkeys(fires, 0.5))
    found = msgspec.structs.replace(report, subject=name, models=[*first, *others], timeline=timeline)
    assert [picture.svg() for picture in pictures(found)]
