"""A corpus that grows: ids and parts stay, what comes twice is taken once, a killed job loses nothing."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.corpus.importing import importer, writer
from engine.errors import StorageError, UserError
from engine.storage import store
from engine.storage.local_files import clean
from engine.storage.workspace import Workspace
from tests.support.corpora import Imported, jsonl, run_import, ultrawiki
from tests.support.kills import Killed

NAMES = ["Oslo", "Rome", "Paris", "Bern"]


def said(name: str, number: int) -> dict[str, Any]:
    return {"entity": name, "sentence": f"We saw {name} on day {number}."}


def held(imported: Imported) -> set[tuple[str, str]]:
    names = [one["name"] for one in imported.entities]
    return {(names[m["entity_id"]], m["sentence"]) for m in imported.mentions}


@settings(max_examples=30)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5)), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_added_in_pieces_is_what_is_imported_at_once(pieces: list[list[tuple[str, int]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ids: list[str] = []
        read = 0
        for number, piece in enumerate(pieces):
            source = jsonl(Path(folder) / f"{number}.jsonl", [said(*one) for one in piece])
            grown = run_import(f"{folder}/w", source, "jsonl", append=number > 0)
            names = [one["name"] for one in grown.entities]
            assert names[: len(ids)] == ids, "entities keep their ids"
            assert grown.manifest.added.entities == len(names) - len(ids)
            ids = names
            read += len(piece)
        everything = jsonl(Path(folder) / "all.jsonl", [said(*one) for piece in pieces for one in piece])
        whole = run_import(f"{folder}/v", everything, "jsonl")
        assert held(grown) == held(whole)
        assert len(grown.mentions) == len(whole.mentions)
        assert set(ids) == {one["name"] for one in whole.entities}
        counts = grown.manifest.counts
        assert counts.sentences_read == read
        assert counts.mentions + counts.refused + counts.duplicates + counts.known == read
        assert counts.entities_without_sentences == 0


def test_a_corpus_of_an_earlier_version_keeps_its_rule_of_mentions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spans(imported: Imported) -> list[str]:
        return [m["sentence"][m["start"] : m["end"]] for m in imported.mentions]

    folder = tmp_path / "raw"
    folder.mkdir()
    jsonl(folder / "entities.jsonl", [{"name": "Oslo", "aliases": ["City of Oslo"]}])
    sentence = "On day {} the City of Oslo slept."
    jsonl(folder / "sentences.jsonl", [{"entity": "Oslo", "sentence": sentence.format(1)}])
    new = run_import(tmp_path / "new", folder, "jsonl")
    assert (spans(new), new.manifest.mention_rules) == (["City of Oslo"], 2)
    with monkeypatch.context() as earlier:
        earlier.setattr(importer, "VERSION", 1)
        run_import(tmp_path / "old", folder, "jsonl")
    jsonl(folder / "sentences.jsonl", [{"entity": "Oslo", "sentence": sentence.format(2)}])
    grown = run_import(tmp_path / "old", folder, "jsonl", append=True)
    assert (spans(grown), grown.manifest.mention_rules) == (["Oslo", "Oslo"], 1)
    anew = run_import(tmp_path / "old", folder, "jsonl", overwrite=True)
    assert (spans(anew), anew.manifest.mention_rules) == (["City of Oslo"], 2)


def test_parts_stay_as_they_are_and_a_second_time_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", 4)
    first = run_import(
        tmp_path / "w", jsonl(tmp_path / "a.jsonl", [said("Oslo", i) for i in range(6)]), "jsonl"
    )
    more = jsonl(tmp_path / "b.jsonl", [said("Oslo", 5), said("Oslo", 6), said("Rome", 1), "{"])
    second = run_import(tmp_path / "w", more, "jsonl", append=True)
    assert second.manifest.parts == [4, 2, 2]
    assert second.manifest.part_digests[:2] == first.manifest.part_digests
    assert second.manifest.line == first.manifest.digest
    assert second.manifest.digest != first.manifest.digest
    assert (second.manifest.added.mentions, second.manifest.added.known) == (2, 1)
    assert [file.name for file in second.manifest.files] == ["a.jsonl", "b.jsonl"]
    assert len(second.quarantine) == 1
    again = run_import(tmp_path / "w", more, "jsonl", append=True)
    assert again.manifest.digest == second.manifest.digest, "what is made of it stays good"
    assert (again.manifest.added.mentions, again.manifest.added.known) == (0, 3)
    assert len(again.quarantine) == 2, "each refusal has its line"
    assert again.manifest.line == first.manifest.digest


def test_details_stay_or_are_taken(tmp_path: Path) -> None:
    sentences = {"Oslo": ["Oslo is far."], "Rome": ["Rome is old."]}
    told = {"Oslo": "A city.", "Rome": "Another."}
    run_import(tmp_path / "w", ultrawiki(tmp_path / "a", sentences, ent2text=told), "ultrawiki")
    new = {"Oslo": ["Oslo is far.", "Oslo is wet."], "Bern": ["Bern is small."]}
    source = ultrawiki(tmp_path / "b", new, ent2text={"Oslo": "A capital.", "Bern": "A third."})
    grown = run_import(tmp_path / "w", source, "ultrawiki", append=True)
    assert [one["description"] for one in grown.entities] == ["A city.", "Another.", "A third."]
    assert grown.manifest.added.details_known == 1
    taken = run_import(tmp_path / "w", source, "ultrawiki", update=True)
    assert [one["description"] for one in taken.entities] == ["A capital.", "Another.", "A third."]
    assert taken.manifest.added.details_known == 0
    assert [one["name"] for one in taken.entities] == ["Oslo", "Rome", "Bern"]
    assert taken.manifest.digest != grown.manifest.digest


def test_where_a_table_lists_the_entities_an_unknown_name_stays_a_mistake(tmp_path: Path) -> None:
    run_import(tmp_path / "w", ultrawiki(tmp_path / "a", {"Oslo": ["Oslo is far."]}), "ultrawiki")
    more = jsonl(tmp_path / "b.jsonl", [said("Oslo", 1), said("Olso", 2)])
    grown = run_import(tmp_path / "w", more, "jsonl", append=True)
    assert [one["name"] for one in grown.entities] == ["Oslo"]
    assert grown.manifest.added.refused == 1
    assert "'Olso' is no entity of this corpus" in grown.quarantine[0]["reason"]


def test_a_name_that_looks_alike_is_the_same_entity(tmp_path: Path) -> None:
    run_import(tmp_path / "w", jsonl(tmp_path / "a.jsonl", [said("Guinea-Bissau", 1)]), "jsonl")
    more = jsonl(tmp_path / "b.jsonl", [said("Guinea\u2010Bissau", 2)])
    grown = run_import(tmp_path / "w", more, "jsonl", append=True)
    assert [one["name"] for one in grown.entities] == ["Guinea-Bissau"]
    assert len(grown.mentions) == 2


@settings(max_examples=30)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5)), min_size=1, max_size=8),
        min_size=2,
        max_size=4,
    )
)
def test_after_an_update_the_corpus_is_what_the_source_is(wholes: list[list[tuple[str, int]]]) -> None:
    """Whatever came before: ids stay, of those that were removed and of those that come back."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "PART_ROWS", 3)
        ids: list[str] = []
        for number, whole in enumerate(wholes):
            source = jsonl(Path(folder) / f"{number}.jsonl", [said(*one) for one in whole])
            adding = {"update": True, "remove_missing": True} if number else {}
            grown = run_import(f"{folder}/w", source, "jsonl", **adding)
            names = [one["name"] for one in grown.entities]
            assert names[: len(ids)] == ids
            ids = names
            assert held(grown) == {(name, said(name, i)["sentence"]) for name, i in whole}
            assert len(grown.mentions) == len(set(whole))
            there = {one["name"] for one in grown.entities if not one.get("removed")}
            assert there == {name for name, _ in whole}
            counts = grown.manifest.counts
            assert sum(grown.manifest.parts) == counts.mentions == len(grown.mentions)
            assert counts.entities_removed == len(ids) - len(there)
            assert counts.entities_without_sentences == 0
            sentences = counts.mentions + counts.removed + counts.refused + counts.duplicates + counts.known
            assert counts.sentences_read == sentences
            assert len(grown.manifest.part_digests) == len(grown.manifest.parts)


def test_what_a_list_has_no_more_is_removed_whole_and_comes_back(tmp_path: Path) -> None:
    sentences = {"Oslo": ["Oslo is far.", "Oslo is wet."], "Rome": ["Rome is old."]}
    told = {"Oslo": "A city.", "Rome": "Another."}
    run_import(tmp_path / "w", ultrawiki(tmp_path / "a", sentences, ent2text=told), "ultrawiki")
    fewer = ultrawiki(tmp_path / "b", {"Oslo": ["Oslo is wet."]}, ent2text={})
    removed = run_import(tmp_path / "w", fewer, "ultrawiki", update=True, remove_missing=True)
    assert held(removed) == {("Oslo", "Oslo is wet.")}
    rome = removed.entities[1]
    assert (rome["name"], rome["removed"], rome["description"]) == ("Rome", True, None)
    assert removed.entities[0]["description"] == "A city.", "what the source leaves out stays"
    assert (removed.manifest.added.removed, removed.manifest.added.entities_removed) == (2, 1)
    more = jsonl(tmp_path / "c.jsonl", [said("Rome", 1), said("Oslo", 1)])
    unlisted = run_import(tmp_path / "w", more, "jsonl", append=True)
    assert "'Rome' was removed from this corpus; list it to bring it back" in unlisted.quarantine[0]["reason"]
    again = run_import(tmp_path / "w", tmp_path / "a", "ultrawiki", append=True)
    assert "removed" not in again.entities[1]
    assert held(again) == {
        ("Oslo", "Oslo is wet."),
        ("Oslo", "Oslo is far."),
        ("Rome", "Rome is old."),
        ("Oslo", "We saw Oslo on day 1."),
    }
    nothing = ultrawiki(tmp_path / "d", {"Oslo": []})
    with pytest.raises(UserError, match="no usable sentence in it"):
        run_import(tmp_path / "w", nothing, "ultrawiki", update=True, remove_missing=True)
    with pytest.raises(UserError, match="--remove-missing: goes with --update"):
        run_import(tmp_path / "w", fewer, "ultrawiki", append=True, remove_missing=True)
    with pytest.raises(UserError, match="removes what cannot be read of a broken file"):
        run_import(
            tmp_path / "w", fewer, "ultrawiki", update=True, remove_missing=True, accept_broken_files=True
        )


def test_what_a_table_lists_as_removed_goes_with_its_sentences_and_comes_back(tmp_path: Path) -> None:
    run_import(tmp_path / "w", jsonl(tmp_path / "a.jsonl", [said(n, 1) for n in ("Oslo", "Rome")]), "jsonl")
    rows = [{"name": "Rome", "removed": True}, {"name": "Lima", "removed": True}, {"name": "Oslo"}]
    folder = tmp_path / "b"
    folder.mkdir()
    jsonl(folder / "entities.jsonl", rows)
    jsonl(folder / "sentences.jsonl", [said("Oslo", 2), said("Rome", 2)])

    removed = run_import(tmp_path / "w", folder, "jsonl", append=True)

    assert [(one["name"], one["removed"]) for one in removed.entities] == [("Oslo", False), ("Rome", True)]
    assert held(removed) == {("Oslo", "We saw Oslo on day 1."), ("Oslo", "We saw Oslo on day 2.")}
    assert removed.manifest.counts.removed == 1
    assert "'Rome' was removed from this corpus" in removed.quarantine[0]["reason"]
    jsonl(folder / "entities.jsonl", [{"name": "Rome", "removed": False}])
    again = run_import(tmp_path / "w", folder, "jsonl", append=True)
    assert ("Rome", "We saw Rome on day 2.") in held(again)


def test_an_entity_that_sentences_name_is_not_missing(tmp_path: Path) -> None:
    """Also where a table listed the entities once, and the whole corpus of today comes without one."""
    sentences = {"Oslo": ["We saw Oslo on day 1."], "Rome": ["Rome is old."]}
    run_import(tmp_path / "w", ultrawiki(tmp_path / "a", sentences), "ultrawiki")
    today = jsonl(tmp_path / "b.jsonl", [said("Oslo", 1), said("Oslo", 2)])
    grown = run_import(tmp_path / "w", today, "jsonl", update=True, remove_missing=True)
    assert held(grown) == {("Oslo", said("Oslo", i)["sentence"]) for i in (1, 2)}
    assert [bool(one.get("removed")) for one in grown.entities] == [False, True]


def test_images_and_their_contexts_stay(tmp_path: Path) -> None:
    rows = [{"entity": "Oslo", "image_bytes": "iVBORw0KGgo="}, said("Oslo", 1)]
    run_import(tmp_path / "w", jsonl(tmp_path / "a.jsonl", rows), "jsonl")
    more = [rows[0], {"entity": "Oslo", "image_bytes": "R0lGODlh"}]
    grown = run_import(tmp_path / "w", jsonl(tmp_path / "b.jsonl", more), "jsonl", append=True)
    workspace = Workspace.open(tmp_path / "w")
    images = [one["image"] for one in grown.mentions if one["image"]]
    assert len(images) == len(set(images)) == 2
    assert all(workspace.image(one).exists() for one in images)
    assert grown.manifest.counts.images == 2


def test_mistakes(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", [said("Oslo", 1)])
    with pytest.raises(StorageError, match=r"no corpus here yet; run `seedset import"):
        run_import(tmp_path / "w", source, "jsonl", append=True)
    run_import(tmp_path / "w", source, "jsonl")
    with pytest.raises(StorageError, match="add --append to add to it, --overwrite to replace it"):
        run_import(tmp_path / "w", source, "jsonl")
    with pytest.raises(UserError, match="--overwrite: replaces the corpus that --append and --update"):
        run_import(tmp_path / "w", source, "jsonl", append=True, overwrite=True)
    before = held(run_import(tmp_path / "w", source, "jsonl", append=True))
    bad = jsonl(tmp_path / "b.jsonl", [said("Oslo", 2), "{"])
    with pytest.raises(UserError, match="--strict allows none; nothing was published"):
        run_import(tmp_path / "w", bad, "jsonl", append=True, strict=True)
    assert before == {("Oslo", "We saw Oslo on day 1.")}
    assert len(run_import(tmp_path / "w", source, "jsonl", append=True).mentions) == 1


def test_an_addition_that_is_killed_leaves_the_corpus_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever step: the whole is published in one."""
    run_import(tmp_path / "w", jsonl(tmp_path / "a.jsonl", [said("Oslo", 1)]), "jsonl")
    place = Path(tmp_path / "w/corpus")
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    more = jsonl(tmp_path / "b.jsonl", [said("Oslo", 2), said("Rome", 1), "{"])

    def killed(*_: object, **__: object) -> None:
        raise Killed

    for step in ("write_entities", "_source_file", "sha256_of", "corpus_digest"):
        with monkeypatch.context() as patch:
            patch.setattr(importer, step, killed)
            with pytest.raises(Killed):
                run_import(tmp_path / "w", more, "jsonl", append=True)
        assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before
    assert os.listdir(tmp_path / "w") == ["corpus"]
    assert len(run_import(tmp_path / "w", more, "jsonl", append=True).mentions) == 3


def test_an_addition_whose_process_is_killed_is_made_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGKILL, which lets nothing be tidied up, before and after the corpus is exchanged."""
    first = jsonl(tmp_path / "a.jsonl", [said("Oslo", 1)])
    more = jsonl(tmp_path / "b.jsonl", [said("Oslo", 1), said("Oslo", 2), said("Rome", 1)])
    run_import(tmp_path / "plain", first, "jsonl")
    wanted = run_import(tmp_path / "plain", more, "jsonl", append=True)
    run_import(tmp_path / "w", first, "jsonl")
    before = Workspace.open(tmp_path / "w").corpus_seen()
    publish = Workspace.publish_corpus

    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def killed_after(*given: Any) -> None:
        publish(*given)
        killed()

    steps = ((importer, "write_entities"), (importer, "corpus_digest"), (store, "swap_in"))
    for module, step in (*steps, (Workspace, "publish_corpus")):
        child = os.fork()
        if not child:
            monkeypatch.setattr(module, step, killed_after if step == "publish_corpus" else killed)
            run_import(tmp_path / "w", more, "jsonl", append=True)
            os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        is_exchanged = Workspace.open(tmp_path / "w").corpus_seen() != before
        assert is_exchanged is (step == "publish_corpus")
    got = run_import(tmp_path / "w", more, "jsonl", append=True)
    assert got.mentions == wanted.mentions
    assert got.entities == wanted.entities
    assert got.manifest.digest == wanted.manifest.digest
    assert (got.manifest.added.mentions, got.manifest.added.known) == (0, 3)
    clean(tmp_path)
    clean(tmp_path / "w")
    assert os.listdir(tmp_path / "w") == ["corpus"]


def test_a_corpus_in_a_bucket_grows(s3: str, tmp_path: Path) -> None:
    run_import(f"{s3}/w", jsonl(tmp_path / "a.jsonl", [said("Oslo", 1)]), "jsonl")
    more = jsonl(tmp_path / "b.jsonl", [said("Oslo", 1), said("Rome", 2)])
    grown = run_import(f"{s3}/w", more, "jsonl", append=True)
    assert held(grown) == {("Oslo", "We saw Oslo on day 1."), ("Rome", "We saw Rome on day 2.")}
    assert grown.manifest.parts == [1, 1]
