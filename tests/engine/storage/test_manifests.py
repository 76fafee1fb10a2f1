"""The version of a manifest's form: what a reader takes, and what it refuses by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.corpus.blocks.format import BlockManifest
from engine.corpus.inputs.format import InputManifest
from engine.corpus.schema import CorpusManifest
from engine.errors import StorageError
from engine.images.features import ImageManifest
from engine.storage.bundle import Manifest
from engine.storage.manifests import (
    FormatVersion,
    VersionedManifest,
    format_fault,
    made_by_after,
    makers_in,
    makers_of,
)
from engine.storage.parts import read_model
from engine.storage.store import Store
from engine.training.cache import CacheManifest

KINDS = (Manifest, CorpusManifest, InputManifest, BlockManifest, ImageManifest, CacheManifest)
KEYS = ("mirror", "licence", "signature")
"""Keys that no manifest of this program has."""

MAKERS = st.dictionaries(st.sampled_from(("seedset", "torch", "numpy")), st.sampled_from(("1", "2")))


class File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int


class Read(VersionedManifest):
    """What a program of version 2.1 reads."""

    anew = "run `make again`"
    features: ClassVar[frozenset[str]] = frozenset({"codes"})
    format_version: str = "2.1"
    files: dict[str, File]
    parts: dict[str, int] = {}  # noqa: RUF012


def document(version: object = "2.1", **more: Any) -> dict[str, Any]:
    return {"format_version": version, "files": {"a/b.c": {"size": 3}}, **more}


def fault(document: Any, kind: type[VersionedManifest] = Read) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(document)
    found = format_fault(caught.value)
    assert found is not None, caught.value
    return found


@given(
    minor=st.integers(0, 12),
    top=st.sets(st.sampled_from(KEYS)),
    nested=st.sets(st.sampled_from(KEYS)),
    declared=st.sets(st.sampled_from((*KEYS, *(f"files.*.{key}" for key in KEYS)))),
)
def test_a_reader_takes_every_minor_version_whose_new_keys_are_declared(
    minor: int, top: set[str], nested: set[str], declared: set[str]
) -> None:
    content = document(f"2.{minor}", optional=sorted(declared), **dict.fromkeys(top, 1))
    content["files"]["a/b.c"] |= dict.fromkeys(nested, "x")
    added = top | {f"files.*.{key}" for key in nested}
    if added and (minor <= 1 or not added <= declared):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            Read.model_validate(content)
        return
    read = Read.model_validate_json(json.dumps(content))
    assert read.files == {"a/b.c": File(size=3)}
    assert FormatVersion.of(read.format_version) == (2, minor)


@given(
    major=st.integers(0, 4),
    minor=st.integers(0, 30),
    requires=st.sets(st.sampled_from(("codes", "shards", "graph"))),
)
def test_what_is_not_read_is_refused_by_name(major: int, minor: int, requires: set[str]) -> None:
    made_by = [{"seedset": "0.1"}, {"seedset": "7.7"}]
    content = document(f"{major}.{minor}", requires=sorted(requires), made_by=made_by)
    if major < 2:
        assert fault(content) == f"format {major}.{minor}, this program reads 2.x; run `make again`"
    elif major > 2:
        assert "this program reads 2.x; install seedset 7.7 or later, which made it" in fault(content)
    elif unknown := requires - {"codes"}:
        found = fault(content)
        assert all(repr(name) in found for name in unknown)
        assert "'codes'" not in found
        assert "install seedset 7.7 or later" in found
    else:
        assert Read.model_validate(content).requires == tuple(sorted(requires))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1))
def test_versions_are_in_the_order_of_their_numbers(pairs: list[tuple[int, int]]) -> None:
    versions = [FormatVersion.of(f"{major}.{minor}") for major, minor in pairs]
    assert [tuple(one) for one in sorted(versions)] == sorted(pairs)
    assert [FormatVersion.of(str(one)) for one in versions] == versions


@pytest.mark.parametrize("version", ["2", "2.1.0", "v2.1", "", None, True, 2.1, -2, [2, 1], "2.1 ", "٢.١"])
def test_a_version_of_another_form_is_named(version: object) -> None:
    assert f"{version!r} is not of the form major.minor" in fault(document(version))


def test_a_whole_number_is_the_first_version_of_its_major_one() -> None:
    assert Read.model_validate(document(2)).format_version == "2.0"
    assert "format 1.0" in fault(document(1))


def test_a_manifest_of_before_versions_is_read_without_what_is_not_known_of_it() -> None:
    old = {"files": {"a": {"size": 1, "mode": 7}}, "entities_gone": 3}
    assert Read.model_validate(old) == Read(files={"a": File(size=1)})
    with pytest.raises(ValidationError, match="Field required"):
        Read.model_validate({"entities_gone": 3})


def test_a_key_that_is_known_is_not_left_out_however_it_is_declared() -> None:
    assert Read.model_validate(document("2.9", optional=["files", "files.*.size"])).files


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_its_version_and_how_it_is_made_anew(kind: type[VersionedManifest]) -> None:
    major = FormatVersion.of(kind.model_fields["format_version"].default).major
    assert f"this program reads {major}.x; {kind.anew}" in fault({"format_version": f"{major - 1}.5"}, kind)
    assert f"format {major + 1}.0" in fault({"format_version": f"{major + 1}.0"}, kind)
    assert "`seedset" in kind.anew or "import the corpus again" in kind.anew


def test_a_file_of_another_version_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(document("1.4")))
    with pytest.raises(StorageError, match=r"manifest\.json: format 1\.4, .* reads 2\.x; run `make again`$"):
        read_model(Store.open(tmp_path / "manifest.json"), Read, "something else")


@given(st.lists(MAKERS), MAKERS, st.booleans())
def test_makers_are_named_once_the_latest_last(
    earlier: list[dict[str, str]], now: dict[str, str], made: bool
) -> None:
    found = made_by_after(earlier, now if made else None)
    assert len({json.dumps(one, sort_keys=True) for one in found}) == len(found)
    assert all(one in found for one in earlier)
    if made:
        assert found[-1] == now
        assert made_by_after(found, now) == found, "the same program again changes nothing"


def test_makers_of_shared_parts_are_those_of_the_manifests_that_name_them(tmp_path: Path) -> None:
    a = Read(files={}, parts={"p": 1, "q": 1}, made_by=({"seedset": "1"},))
    b = Read(files={}, parts={"r": 1}, made_by=({"seedset": "2"},))
    assert list(makers_of([a, b], ["q", "s"])) == [{"seedset": "1"}]
    file = Store.open(tmp_path / "manifest.json")
    assert makers_in(file) == ()
    file.write_bytes(b.model_dump_json().encode())
    assert makers_in(file) == b.made_by
    file.write_bytes(b"{")
    assert makers_in(file) == ()
