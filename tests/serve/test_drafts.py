"""A server that drafts answers what one answers that does not; requests say whether, and never by what model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Site, opened_site

from foveal.bundle import Bundle
from foveal.errors import BundleError, ConfigError, InputError
from foveal.runtime.model import Model
from foveal.serve.loading import ServiceOptions, opened
from foveal.serve.settings import ServeSettings

REPEATED = "abcabcabcabc"
ASKED = {"prompt": REPEATED, "temperature": 0, "max_tokens": 60}


@pytest.fixture(scope="module")
def drafting(model: Model) -> Iterator[Site]:
    """Which drafts of itself, for all that say nothing: so all that it checks comes."""
    with opened_site(model, store=True, draft=model) as site:
        yield site


def drafts_of(site: Site, **fields: Any) -> dict[str, int] | None:
    """What an answer says that drafts came to."""
    found: dict[str, Any] = site.complete(**{**ASKED, "foveal": True, **fields}).json()["choices"][0]["foveal"]
    return found.get("drafts")


def test_answers_are_the_same(site: Site, drafting: Site) -> None:
    """Whole and streamed; by the server's drafts, by those a request asks for, and without."""
    expected = site.text(**ASKED)
    for at in (site, drafting):
        for draft in ({}, {"draft": None}, {"draft": "ngrams"}, {"draft": False}):
            assert at.text(**ASKED, **draft) == expected
            pieces = at.chunks(**ASKED, **draft)
            assert "".join(piece["choices"][0]["text"] for piece in pieces) == expected


def test_reports_say_what_drafts_came_to(site: Site, drafting: Site) -> None:
    """If there were any; of a stream with its last piece."""
    assert drafts_of(site) is None
    assert drafts_of(drafting, draft=False) is None
    assert drafts_of(site, draft="ngrams") is not None
    found = drafts_of(drafting)
    assert found is not None
    assert 0 < found["accepted"] == found["drafted"]
    assert found["calls"] + found["accepted"] in (59, 60)
    streamed = drafting.chunks(**ASKED, foveal=True)
    assert streamed[-1]["foveal"]["drafts"]["accepted"] > 0
    assert not any("drafts" in piece["foveal"] for piece in streamed[:-1])
    assert "foveal" not in drafting.complete(**ASKED).json()["choices"][0]


def test_each_of_several_texts_has_its_own(drafting: Site) -> None:
    """By its index."""
    choices = drafting.complete(prompt=[REPEATED, "x"], n=2, seed=1, max_tokens=20, foveal=True).json()["choices"]
    assert len(choices) == 4
    assert all(choice["foveal"]["drafts"]["calls"] > 0 for choice in choices)


def test_a_request_names_no_model(site: Site, model: Model) -> None:
    """Not even one that is there: 400, and nothing is opened."""
    for draft in (str(model.bundle.path), "../b", "", True):
        error = site.refusal(400, **ASKED, draft=draft)
        assert error["param"] == "draft"
        assert 'expected "ngrams" or false' in error["message"]
    assert site.refusal(400, **ASKED, draft=3)["code"] == "invalid_type"
    assert model._drafting_models == {}


def test_a_server_may_make_none(model: Model) -> None:
    """Then a request that wants some is refused, and others are as always."""
    with opened_site(model, ServeSettings(drafts=False)) as site:
        assert "makes no drafts" in site.refusal(400, **ASKED, draft="ngrams")["message"]
        assert site.text(**ASKED, draft=False) == site.text(**ASKED)


def test_metrics_and_status_count_them(model: Model) -> None:
    """As the answers say."""
    with opened_site(model, draft=model) as site:
        said = drafts_of(site)
        assert said is not None
        families = text_string_to_metric_families(site.client.get("/metrics").text)
        found = {one.name: one.value for family in families for one in family.samples}
        counted = [found[f"foveal_{name}_total"] for name in ("draft_calls", "drafted", "accepted")]
        assert counted == [said["calls"], said["drafted"], said["accepted"]]


def test_bundles_are_opened_with_their_draft(model: Model, tmp_path: Path) -> None:
    """Or refused before anything is served."""
    bundle: Bundle = model.bundle
    with opened("m", bundle.path, ServiceOptions(draft=str(bundle.path), draft_tokens=4, threads=1)) as served:
        stream = served.service.submit(REPEATED, temperature=0, max_new_tokens=40)
        list(stream)
        assert stream.speculation[0].accepted > 0
    (tmp_path / "empty").mkdir()
    for draft, tokens in ((str(tmp_path / "none"), None), (str(tmp_path / "empty"), None), ("ngrams", 0), (None, 3)):
        with (
            pytest.raises((InputError, ConfigError, BundleError)),
            opened("m", bundle.path, ServiceOptions(draft=draft, draft_tokens=tokens, threads=1)),
        ):
            pass
