"""The application as an object, the way that ``serve build serve.app:app`` takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.serve import Application

import serve.app
from engine.errors import UserError
from engine.storage.bundle import Bundle


@pytest.fixture(autouse=True)
def settings(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"workspace": str(bundle.folder.parents[1]), "methods": ["retexpan"]}))
    monkeypatch.setenv("SEEDSET_SETTINGS", str(path))
    return path


def test_the_application_is_made_of_the_file_that_the_environment_names() -> None:
    from ray._common.utils import import_attr  # what `serve build` calls

    application = import_attr("serve.app:app")
    assert isinstance(application, Application)


def test_what_is_wrong_with_the_settings_is_said(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.write_text("workspac: w")
    with pytest.raises(UserError, match=f"{settings}.*workspac"):
        _ = serve.app.app
    monkeypatch.delenv("SEEDSET_SETTINGS")
    with pytest.raises(UserError, match="SEEDSET_SETTINGS: set it to a YAML file"):
        _ = serve.app.app


def test_the_module_has_no_other_names_made_on_demand() -> None:
    assert not hasattr(serve.app, "application")
