"""A small world in which the documents' examples run: countries in a workspace, and a service over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import methods
from engine.corpus.importing import source
from engine.overlay.state import lay_over
from engine.storage.bundle import Bundle
from serve.audit.recorder import LocalAudit, Recorder
from serve.http.overlay_service import OverlayService
from serve.http.routes import create_app
from serve.overlay.store import OverlayStore
from serve.sets.access import LocalSets
from serve.settings import ServeSettings
from serve.stores import LocalStore
from tests.support.bundles import method_bundle
from tests.support.documents import ROOT, write_titled
from tests.support.services import open_snapshot, running, service_maker

CONTINENTS = {
    "Asia": ["Japan", "Thailand", "Jordan", "Saudi Arabia", "Cambodia", "Brunei", "Nepal", "Bhutan"],
    "Africa": ["Morocco", "Lesotho", "Eswatini", "Kenya", "Ghana"],
    "Europe": ["Norway", "Spain", "Denmark", "Sweden", "Belgium", "France", "Italy"],
}


@pytest.fixture(scope="session")
def countries(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A published bundle of countries, with all that methods and pages read, at random."""
    names = [name for members in CONTINENTS.values() for name in members]
    attributes = [{"continent": [place]} for place, members in CONTINENTS.items() for _ in members]
    return method_bundle(tmp_path_factory.mktemp("docs"), names=names, attributes=attributes)


@pytest.fixture(scope="session")
def url(countries: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service over the countries."""
    opened = Bundle(countries.manifest, countries.folder, workspace=countries.workspace)
    lay_over(opened)
    service = service_maker(open_snapshot(opened), opened)()
    folder = tmp_path_factory.mktemp("kept")
    overlay = OverlayService(service, LocalStore(OverlayStore, folder / "overlay.sqlite"))
    sets = LocalSets(folder / "sets.sqlite")
    audit = LocalAudit(ServeSettings(workspace="w", audit=str(folder / "audit.jsonl")))
    with running(create_app(service, sets=sets, recorder=Recorder(audit), overlay=overlay)) as address:
        yield address


@pytest.fixture
def world(countries: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that an example finds itself in: a workspace, a corpus and queries.

    What an example registers is forgotten after it.
    """
    (tmp_path / "work").symlink_to(countries.folder.parent.parent)
    (tmp_path / "ray_cluster.yaml").symlink_to(ROOT / "ray_cluster.yaml")
    write_titled(tmp_path, ROOT / "docs" / "data-formats.md")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    monkeypatch.setattr(source, "LAYOUTS", dict(source.LAYOUTS))
    return tmp_path
