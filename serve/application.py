"""The application as an object, for ``serve build serve.application:app``: settings from a file.

``SEEDSET_SETTINGS`` names a YAML file of :class:`serve.settings.ServeSettings`; the cluster's machines need
it too when they deploy what ``serve build`` wrote. ``serve deploy`` with ``serve.app:build`` does without.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import UserError
from serve.app import build
from serve.operations.deploy_file import read_settings, settings_of

if "SEEDSET_SETTINGS" not in os.environ:
    raise UserError("SEEDSET_SETTINGS: set it to a YAML file of settings, with `workspace: …` in it")

_path = Path(os.environ["SEEDSET_SETTINGS"])
app = build(settings_of(read_settings(_path), str(_path)))
