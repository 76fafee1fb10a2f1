"""Settings, and what they become: deployments and the methods' ways through them."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from engine.bundle import Bundle
from engine.errors import BundleError, UserError
from engine.methods import METHODS
from engine.stages.rerank import SegmentRerank
from engine.stages.retrieve import Retrieve
from engine.workspace import Workspace
from serve.app import build
from serve.plan import default_method, plan, served_methods
from serve.run import deploy_config
from serve.settings import ServeSettings
from tests.support.bundles import publish_vectors


def settings(**given: object) -> ServeSettings:
    return ServeSettings.model_validate({"workspace": "w", **given})


def test_settings_come_from_strings_too() -> None:
    made = settings(methods="a, b", fused="false", replicas="2", timeout_s="1.5")
    assert (made.methods, made.fused, made.replicas, made.timeout_s) == (("a", "b"), False, 2, 1.5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": 0}, "greater than or equal to 1"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"fused": "perhaps"}, "fused"),
        ({"workspace": ""}, "workspace"),
    ],
)
def test_wrong_settings_are_refused_by_name(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**given)


METHODS_OF_TEST = {
    "one": Retrieve(view="mask") >> SegmentRerank(view="mask"),
    "two": Retrieve(view="mask") >> SegmentRerank(view="mask", length=8),
}


def test_equal_stages_are_deployed_once() -> None:
    made = plan(METHODS_OF_TEST, settings(fused=False))
    assert [unit.name for unit in made.units] == ["Retrieve", "SegmentRerank", "SegmentRerank-2"]
    assert made.routes == {
        "one": (("Retrieve", (0,)), ("SegmentRerank", (0,))),
        "two": (("Retrieve", (0,)), ("SegmentRerank-2", (0,))),
    }


def test_fused_is_one_deployment_and_one_hop() -> None:
    made = plan(METHODS_OF_TEST, settings(num_cpus=0.5))
    (unit,) = made.units
    assert (len(unit.stages), unit.num_cpus) == (3, 0.5)
    assert made.routes == {"one": (("Pipeline", (0, 1)),), "two": (("Pipeline", (0, 2)),)}


def test_the_file_for_serve_deploy_holds_what_was_given() -> None:
    text = deploy_config(settings(replicas=2, methods="retexpan"), "0.0.0.0", 81)
    config = yaml.safe_load(text)
    assert config["http_options"] == {"host": "0.0.0.0", "port": 81}
    (application,) = config["applications"]
    assert application["import_path"] == "serve.app:build"
    assert application["args"] == {"workspace": "w", "replicas": 2, "methods": ["retexpan"]}
    assert settings(**application["args"]).replicas == 2
    ServeDeploySchema.model_validate(config)


def test_the_builder_takes_its_arguments_as_serve_hands_them_over() -> None:
    (parameter,) = inspect.signature(build).parameters.values()
    assert parameter.annotation is ServeSettings, "Serve does not read annotations that are strings"


def test_what_the_bundle_can_do_is_served(tmp_path: Path) -> None:
    bundle = publish_vectors(Workspace.open(tmp_path), ["a", "b"], {"mask": np.eye(2)})
    found = served_methods(bundle, ())
    assert "retexpan" in found
    assert default_method(found) == ("default" if "default" in found else next(iter(METHODS)))
    assert list(served_methods(bundle, ["retexpan+cds"])) == ["retexpan+cds"]


def test_what_it_cannot_do_is_an_error_that_says_why(tmp_path: Path, bundle: Bundle) -> None:
    poor = publish_vectors(Workspace.open(tmp_path), ["a", "b"], {"other": np.eye(2)})
    with pytest.raises(BundleError, match="holds no 'index/mask\\.faiss'"):
        served_methods(poor, ())
    with pytest.raises(UserError, match=r"'retexpan' cannot be served: .*index/mask.faiss"):
        served_methods(poor, ["retexpan"])
    with pytest.raises(UserError, match=r"unknown 'magic'; known: retexpan"):
        served_methods(bundle, ["magic"])
