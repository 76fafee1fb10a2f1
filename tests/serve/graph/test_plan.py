"""Settings, and what they become: deployments and the methods' ways through them."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from cluster.settings_file import merged, nested
from engine import renames
from engine.errors import BundleError, FormatError, UserError
from engine.methods import METHODS
from engine.stages.rerank import SegmentRerank
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from serve.app import build
from serve.graph.plan import ENCODE, default_method, plan, served_methods, with_gpus
from serve.operations.deploy_file import check_deploy_file, deploy_config, read_settings
from serve.run import main
from serve.settings import ServeSettings
from tests.support.bundles import publish_vectors
from tests.support.language_models import tiny_model


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
        ({"tokens": {"me": "my-secret"}}, "tokens.me"),
        ({"stages": {"Retrieve": {"cpus": 1}}}, "stages.Retrieve.cpus"),
        ({"stages": {"Retrieve": {"replicas": 1, "autoscaling": {}}}}, "not both"),
        ({"stages": {"Retrieve": {"autoscaling": {"min_replicas": 5}}}}, "max_replicas 4 is less"),
    ],
)
def test_wrong_settings_are_refused_by_name(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**given)


METHODS_OF_TEST = {
    "one": Retrieve(view="mask") >> SegmentRerank(view="mask"),
    "two": Retrieve(view="mask") >> SegmentRerank(view="mask", length=8),
}


def test_equal_stages_are_deployed_once(bundle: Bundle) -> None:
    made = plan(bundle, METHODS_OF_TEST, settings(fused=False))
    names = [spec.name for spec in made.deployments]
    assert names == [
        "Retrieve",
        "SegmentRerank",
        "SegmentRerank-2",
        "Select",
        "Explain",
        "Retrieve-2",
        "TypeMentions",
        "EncodeNewEntities",
    ]
    assert made.calls("one") == (("Retrieve", (0,)), ("SegmentRerank", (0,)))
    assert made.calls("two") == (("Retrieve", (0,)), ("SegmentRerank-2", (0,)))
    assert made.calls("two!explain")[-1] == ("Explain", (0,))
    assert made.calls("one", with_new=True) == (("EncodeNewEntities", (0,)), *made.calls("one"))
    assert made.calls("!mentions") == (("TypeMentions", (0,)),)
    assert made.calls("!neighbours") == (("Retrieve-2", (0,)),), (
        "by the joint view, which no method here reads"
    )


def test_fused_is_one_deployment_and_one_hop_whatever_is_asked(bundle: Bundle) -> None:
    made = plan(bundle, METHODS_OF_TEST, settings(num_cpus=0.5))
    (spec,) = made.deployments
    assert (len(spec.stages), spec.settings.num_cpus) == (8, 0.5)
    assert made.calls(ENCODE) == ()
    for route in made.routes:
        for with_new in (True,) if route == ENCODE else (False, True):
            ((name, chain),) = made.calls(route, with_new)
            stages = [spec.stages[place].name for place in chain]
            assert (name, stages[0] == "EncodeNewEntities") == ("Pipeline", with_new)
            assert (stages[-1] == "Explain") == route.endswith(("!explain", "!map"))


def test_a_deployment_gets_what_is_its_own_and_else_what_all_get(bundle: Bundle) -> None:
    given = {"Retrieve": {"autoscaling": {"max_replicas": 3}}, "Explain": {"num_cpus": 2}}
    made = plan(bundle, METHODS_OF_TEST, settings(fused=False, replicas=2, num_cpus=0.2, stages=given))
    deployments = {spec.name: spec.settings for spec in made.deployments}
    assert deployments["Retrieve"].replicas is None
    assert deployments["Retrieve"].autoscaling is not None
    assert (deployments["Retrieve"].num_cpus, deployments["Explain"].num_cpus) == (0.2, 2)
    assert deployments["Explain"].replicas == deployments["SegmentRerank"].replicas == 2
    with pytest.raises(UserError, match=r"no deployment 'Retreive'; there are EncodeNewEntities, Explain"):
        plan(bundle, METHODS_OF_TEST, settings(fused=False, stages={"Retreive": {}}))


MODEL_METHODS = {
    name: METHODS[name]
    for name in ("retexpan", "genexpan", "genexpan+cot", "retexpan+lm-rerank", "default+lm-rerank")
}


def test_stages_with_the_language_model_share_one_deployment(bundle: Bundle) -> None:
    made = plan(bundle, MODEL_METHODS, settings(fused=False))
    (model,) = [spec for spec in made.deployments if spec.language_model]
    stages = {stage for p in MODEL_METHODS.values() for stage in p.stages if stage.language_model}
    assert (model.name, set(model.stages)) == ("LanguageModel", stages)
    assert len(stages) == 5, "as many copies of the model as there were before"
    ((name, chain),) = made.calls("genexpan")
    assert (name, [model.stages[place] for place in chain]) == (
        "LanguageModel",
        [*METHODS["genexpan"].stages],
    )
    names = [name for name, _ in made.calls("retexpan+lm-rerank")]
    assert names == ["Retrieve-2", "LanguageModel"]
    with pytest.raises(UserError, match=r"no deployment 'Generate' \(its stage is in 'LanguageModel'\)"):
        plan(bundle, MODEL_METHODS, settings(fused=False, stages={"Generate": {"num_gpus": 1}}))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("given", "gpus", "share"),
    [
        ({}, 0, 0),
        ({}, 1, 1),
        ({"replicas": 3}, 1, 1 / 3),
        ({"replicas": 3}, 2, 1 / 2),
        ({"gpu": 0.25}, 1, 0.25),
        ({"gpu": 2}, 0, 2),
        ({"gpu": 0}, 4, 0),
    ],
)
def test_replicas_with_a_language_model_reserve_gpus(
    bundle: Bundle, fused: bool, given: dict[str, float], gpus: float, share: float
) -> None:
    asked = settings(fused=fused, **given)
    made = with_gpus(plan(bundle, MODEL_METHODS, asked), asked, gpus)
    reserved = {spec.name: spec.settings.num_gpus for spec in made.deployments}
    assert reserved.pop("Pipeline" if fused else "LanguageModel") == pytest.approx(share)
    assert set(reserved.values()) <= {0}
    plain = with_gpus(plan(bundle, METHODS_OF_TEST, asked), asked, gpus)
    assert {spec.settings.num_gpus for spec in plain.deployments} == {0}


def test_a_deployments_own_gpus_go_before_the_applications(bundle: Bundle) -> None:
    asked = settings(gpu=1, stages={"Pipeline": {"num_gpus": 0.5}})
    (spec,) = with_gpus(plan(bundle, MODEL_METHODS, asked), asked, 4).deployments
    assert spec.settings.num_gpus == 0.5
    with pytest.raises(ValidationError, match="give a share of one GPU"):
        settings(gpu=1.5)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("gpus", "share"), [(0, 0), (1, 2), (8, 2)])
def test_a_replica_whose_model_is_split_has_a_core_and_a_gpu_for_each_process(
    tmp_path: Path, fused: bool, gpus: float, share: float
) -> None:
    split = publish_vectors(Workspace.open(tmp_path), ["a", "b"], {"mask": np.eye(2)}, model=tiny_model())
    asked = settings(fused=fused, tensor_parallel=2)
    made = with_gpus(plan(split, MODEL_METHODS, asked), asked, gpus)
    reserved = {spec.name: (spec.settings.num_cpus, spec.settings.num_gpus) for spec in made.deployments}
    assert reserved.pop("Pipeline" if fused else "LanguageModel") == (2, share)
    assert {gpu for _, gpu in reserved.values()} <= {0}
    assert all(cpus and cpus <= 1 for cpus, _ in reserved.values())


def test_a_group_that_cannot_be_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(
        ValidationError, match=r"0\.5 GPUs for a language model that is split over 2 processes"
    ):
        settings(gpu=0.5, tensor_parallel=2)
    with pytest.raises(UserError, match="tensor_parallel 2: no stage of these methods holds"):
        plan(bundle, METHODS_OF_TEST, settings(tensor_parallel=2))
    split = publish_vectors(Workspace.open(tmp_path), ["a", "b"], {"mask": np.eye(2)}, model=tiny_model())
    with pytest.raises(UserError, match=r"tensor_parallel 4: the model has 2 key-value heads"):
        plan(split, MODEL_METHODS, settings(tensor_parallel=4))
    own = settings(tensor_parallel=2, stages={"Pipeline": {"num_gpus": 1}})
    with pytest.raises(UserError, match=r"stages\.Pipeline\.num_gpus: 1 GPUs for a language model"):
        plan(split, MODEL_METHODS, own)


def test_a_stage_may_be_given_by_its_former_name(caplog: pytest.LogCaptureFixture) -> None:
    renames.warn_of_former.cache_clear()
    given = settings(stages={"Describe": {"replicas": 3}})
    assert given == settings(stages={"EncodeNewEntities": {"replicas": 3}})
    assert caplog.messages == [
        "stages: 'Describe' is now called 'EncodeNewEntities'; the former name will go"
    ]


def test_a_spread_index_has_a_deployment_for_each_part(bundle: Bundle) -> None:
    made = plan(bundle, METHODS_OF_TEST, settings(index_shards=3))
    assert [(spec.name, spec.shard) for spec in made.deployments] == [
        ("Pipeline", None),
        ("Index-1-of-3", 0),
        ("Index-2-of-3", 1),
        ("Index-3-of-3", 2),
    ]


def test_without_an_encoder_or_vectors_a_route_does_less(tmp_path: Path) -> None:
    poor = publish_vectors(Workspace.open(tmp_path), ["a", "b"], {"mask": np.eye(2)})
    made = plan(poor, METHODS_OF_TEST, settings())
    with pytest.raises(UserError, match="no encoder"):
        made.calls("one", with_new=True)


def test_the_file_for_serve_deploy_holds_what_was_given(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(deploy_config(settings(replicas=2, methods="retexpan"), "0.0.0.0", 81))
    config = yaml.safe_load(path.read_text())
    assert config["http_options"] == {"host": "0.0.0.0", "port": 81}
    (application,) = config["applications"]
    assert application["import_path"] == "serve.app:build"
    assert application["args"] == {"workspace": "w", "replicas": 2, "methods": ["retexpan"]}
    ServeDeploySchema.model_validate(config)
    (back,), warning = check_deploy_file(path)
    assert back.replicas == 2
    assert warning is not None
    assert warning.startswith("0.0.0.0 lets in everybody")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"application": []}, "application: Extra"),
        ({"applications": []}, "applications"),
        ({"applications": [{"import_path": "a:b", "args": {}}]}, "import_path: 'a:b'"),
        (
            {"applications": [{"import_path": "serve.app:build", "args": {"workspace": "w", "replica": 1}}]},
            r"applications\.0\.args: replica",
        ),
        ({"http_options": {"prot": 1}}, "http_options.prot"),
        (
            {"applications": [{"import_path": "serve.app:build", "route_prefix": "page/", "args": {}}]},
            r"applications\.0\.route_prefix",
        ),
    ],
)
def test_a_wrong_deploy_file_is_refused_by_place(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(deploy_config(settings(), "127.0.0.1", 81)) | change))
    with pytest.raises(UserError, match=words):
        check_deploy_file(path)


APPLICATION = "{name: a, import_path: serve.app:build, args: {workspace: w%s}}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"applications:\n  - {APPLICATION % ', tokens: {a: x}, tokens: {b: x}'}\n",
            "line 2: tokens is given a sec",
        ),
        (f"applications:\n  - {APPLICATION % ', tokens: {no: x}'}\n", "line 2: write 'no' in quotes"),
        (f"applications:\n  - {APPLICATION % ', tokens: {2026-01-01: x}'}\n", "write '2026-01-01' in quotes"),
        (
            f"applications:\n  - {APPLICATION % ', methods: [no], bundle: 2026-01-01'}\n",
            "bundle.* text wants quotes",
        ),
        (f"applications: [{APPLICATION % ''}]\napplications: []\n", "line 2: applications is given a second"),
        (
            f"applications:\n  - {APPLICATION % ', tokens: {page: open sesame}'}\n",
            "tokens.page: write the sha256",
        ),
        (f"applications:\n  - {APPLICATION % ', tokens: {page: 17}'}\n", "tokens.page: .*in quotes"),
    ],
)
def test_a_deploy_file_is_read_to_the_letter(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as wrong:
        check_deploy_file(path)
    assert "open sesame" not in str(wrong.value)


@pytest.mark.parametrize(
    ("http", "tokens", "warning"),
    [
        (
            "",
            False,
            "no http_options.host is given, so `serve deploy` listens on 0.0.0.0; 0.0.0.0 lets in every",
        ),
        ("http_options: {port: 81}", False, "no http_options.host is given"),
        ("http_options: {host: 10.1.2.3}", False, "10.1.2.3 lets in everybody"),
        ("http_options: {host: 127.0.0.2}", False, None),
        ("http_options: {host: localhost}", False, None),
        ("", True, None),
        ("proxy_location: Disabled", False, None),
    ],
)
def test_a_port_that_is_open_to_all_is_told(
    tmp_path: Path, http: str, tokens: bool, warning: str | None
) -> None:
    path = tmp_path / "serve.yaml"
    digest = ", tokens: {page: '" + "a" * 64 + "'}" if tokens else ""
    path.write_text(f"{http}\napplications: [{APPLICATION % digest}]\n")
    _, told = check_deploy_file(path)
    assert told is None if warning is None else (told or "").startswith(warning)


def test_a_secret_in_the_settings_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("workspace: w\ntokens: {page: open sesame}\n")
    for words in (
        ["--settings", path],
        ["--workspace", "w", "--set", "tokens.page=open sesame"],
        ["--workspace", "w", "--set", "tokens=open sesame"],
        ["--workspace", "w", "--set", "tokens=open sesame", "--set", "tokens.page=open sesame"],
    ):
        with pytest.raises(UserError, match="tokens") as wrong:
            main.parse(words)
        assert "sesame" not in str(wrong.value)


def test_a_deploy_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere\.yaml"):
        check_deploy_file(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(FormatError, match=r"list\.yaml"):
        check_deploy_file(tmp_path / "list.yaml")
    with pytest.raises(FormatError, match="not a mapping"):
        read_settings(tmp_path / "list.yaml")


def test_what_lies_deeper_is_set_by_a_path() -> None:
    given = nested(["timeout_s=3", "stages.Generate.num_gpus=1", "stages.Generate.replicas=2"])
    assert given == {"timeout_s": "3", "stages": {"Generate": {"num_gpus": "1", "replicas": "2"}}}
    assert settings(**given).stages["Generate"].replicas == 2
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    for wrong in ("timeout_s", "=3"):
        with pytest.raises(UserError, match="write key=value"):
            nested([wrong])
    for pairs in (["a=1", "a.b=2"], ["a.b=2", "a=1"], ["a=1", "a=1"], ["a.b=1", "a.c=1", "a.b=2"]):
        with pytest.raises(UserError, match="was given a value"):
            nested(pairs)


def test_the_builder_takes_its_arguments_as_serve_hands_them_over() -> None:
    (parameter,) = inspect.signature(build).parameters.values()
    assert parameter.annotation is ServeSettings, "Serve does not read annotations that are strings"


def test_what_the_bundle_can_do_is_served(tmp_path: Path) -> None:
    bundle = publish_vectors(Workspace.open(tmp_path), ["a", "b"], {"mask": np.eye(2)})
    found = served_methods(bundle, ())
    assert "retexpan" in found
    assert default_method(found) == ("default" if "default" in found else next(iter(METHODS)))
    assert list(served_methods(bundle, ["retexpan+cds"])) == ["retexpan+cds"]


def test_methods_are_served_with_other_settings_and_ones_of_a_users_own(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["from engine.stages.retrieve import Retrieve", "NEAR = Retrieve(k=6)"]
    (tmp_path / "served_methods_of_a_test.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    wanted = ["retexpan", "default", "served_methods_of_a_test:NEAR"]
    given = settings(methods=wanted, set={"SegmentRerank": {"length": "9"}})
    found = served_methods(bundle, given.methods, given.set)
    assert [str(pipeline) for pipeline in found.values()] == [
        "Retrieve() >> SegmentRerank(length=9)",
        str(METHODS["default"]),
        "Retrieve(k=6)",
    ]
    made = plan(bundle, found, given)
    assert len(made.routes[wanted[2]]) == 1
    with pytest.raises(UserError, match="no such setting; did you mean length"):
        served_methods(bundle, wanted, {"SegmentRerank.lenght": 9})
    for name in ("image", "no_such_module_of_a_test:X"):  # an ablation is measured, not served
        with pytest.raises(UserError, match=name.partition(":")[0]):
            served_methods(bundle, [name])


def test_what_it_cannot_do_is_an_error_that_says_why(tmp_path: Path, bundle: Bundle) -> None:
    poor = publish_vectors(Workspace.open(tmp_path), ["a", "b"], {"other": np.eye(2)})
    with pytest.raises(BundleError, match="holds no 'index/mask\\.faiss'"):
        served_methods(poor, ())
    with pytest.raises(UserError, match=r"'retexpan' cannot be served: .*index/mask.faiss"):
        served_methods(poor, ["retexpan"])
    with pytest.raises(UserError, match=r"unknown 'magic'; known: retexpan"):
        served_methods(bundle, ["magic"])
