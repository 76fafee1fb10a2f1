"""MESED's layout: its ids, its spans, its images, and everything that can be wrong in it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import FormatError
from engine.queries.formats import read_queries
from engine.storage.store import Store
from engine.text.spelling import nfc
from engine.vocabulary import Vocabulary
from tests.support.corpora import jsonl, run_import

DOGS = Path(__file__).parents[4] / "shared" / "data" / "dogs.tar.xz"
IDS = "Iron\t7\nGold\t3\nRed Oak\t12\n"


def line(tokens: Any, *mentions: Any, **more: Any) -> dict[str, Any]:
    """A line of sentences.json; a mention is (id, first token, last token)."""
    spans = [dict(zip(("entityId", "start", "end"), m, strict=True)) for m in mentions]
    return {"tokens": tokens.split() if isinstance(tokens, str) else tokens, "entityMentions": spans} | more


def mesed(folder: Path, rows: list[Any], ids: str = IDS, attributes: Any = None) -> Path:
    jsonl(folder / "sentences.json", rows)
    (folder / "entity2id.txt").write_text(ids, encoding="utf-8")
    if attributes is not None:
        (folder / "attributes.json").write_text(json.dumps(attributes), encoding="utf-8")
    return folder


def test_tokens_become_a_sentence_and_ids_become_ours(tmp_path: Path) -> None:
    rows = [
        line("The Red Oak and Iron 's rust .", (12, 1, 2), (7, 4, 4), image="image/a.jpg"),
        line("Gold !", (3, 0, 0), image=None),
        "",
    ]
    source = mesed(tmp_path / "raw", rows, attributes={"Gold": {"phase": ["solid"]}})
    got = run_import(tmp_path / "w", source, "mesed")
    assert [(e["name"], e["attributes"]) for e in got.entities] == [
        ("Iron", {}),
        ("Gold", {"phase": ["solid"]}),
        ("Red Oak", {}),
    ]
    sentence, image = "The Red Oak and Iron 's rust .", f"{tmp_path}/raw/image/a.jpg"
    assert [tuple(m.values()) for m in got.mentions] == [
        (2, sentence, 4, 11, image),
        (0, sentence, 16, 20, image),
        (1, "Gold !", 0, 4, None),
    ]
    assert (got.manifest.found["given"], got.manifest.counts.images) == (3, 2)
    assert [f.name for f in got.manifest.files] == ["entity2id.txt", "sentences.json", "attributes.json"]
    assert not got.quarantine


@pytest.mark.parametrize(
    ("tokens", "span", "held"),
    [
        ("an Iron's bar", (1, 1), "Iron"),
        ("the IRONS rust", (1, 1), "IRON"),
        ("irons or iron bars", (0, 2), "iron"),  # the whole word before the part of one
        ("the grey metal rusts", (1, 2), "grey metal"),
        ("iron , the grey metal", (2, 4), "the grey metal"),  # never outside the span
        ("Iron\u0301 rusts", (0, 0), "Iroń"),  # an n with an accent is another letter
    ],
)
def test_a_span_is_trusted_and_narrowed_to_the_name(
    tmp_path: Path, tokens: str, span: tuple[int, int], held: str
) -> None:
    got = run_import(tmp_path / "w", mesed(tmp_path / "raw", [line(tokens, (7, *span))]), "mesed")
    assert got.held == [("Iron", held)]
    assert got.manifest.found["given"] == 1


def test_two_places_in_one_sentence_are_two_mentions(tmp_path: Path) -> None:
    row = line("Iron on Iron", (7, 0, 0), (7, 2, 2), (7, 0, 0))
    got = run_import(tmp_path / "w", mesed(tmp_path / "raw", [row]), "mesed")
    assert [m["start"] for m in got.mentions] == [0, 8]
    assert got.reasons == [("line 1, mention 2", "duplicate sentence")]


def test_an_image_without_a_sentence_is_a_context(tmp_path: Path) -> None:
    rows = [
        {"entityMentions": [{"entityId": 7}, {"entityId": 3}], "image": "a.jpg"},
        line([], (7, 0, 0), image="/b.jpg"),
    ]
    got = run_import(tmp_path / "w", mesed(tmp_path / "raw", [*rows, line("Iron", (7, 0, 0))]), "mesed")
    assert [tuple(m.values()) for m in got.mentions] == [
        (0, "", 0, 0, f"{tmp_path}/raw/a.jpg"),
        (1, "", 0, 0, f"{tmp_path}/raw/a.jpg"),
        (0, "", 0, 0, "/b.jpg"),
        (0, "Iron", 0, 4, None),
    ]
    assert got.manifest.found["an image alone"] == 3
    assert got.manifest.counts.entities_without_sentences == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{broken", "not valid JSON"),
        (b'{"tokens": ["\xff"]}', "not valid UTF-8 at byte"),
        ([1], "a line must be an object, not a list"),
        (line("Iron"), "mentions no entity"),
        ({"tokens": ["Iron"]}, "entityMentions must be a list, not null"),
        ({"tokens": "Iron", "entityMentions": [{}]}, "tokens must be a list of texts"),
        (line(["Iron", 3], (7, 0, 0)), "tokens must be a list of texts"),
        ({"tokens": ["Iron"], "entityMentions": [7]}, "a mention must be an object, not a number"),
        (line("Iron", ("7", 0, 0)), "entityId must be a whole number, not a text"),
        (line("Iron", (7, None, 0)), "start must be a whole number, not null"),
        (line("Iron", (7, 0, True)), "end must be a whole number, not true or false"),
        (line("Iron", (8, 0, 0)), "entityId 8 is in no usable line of entity2id.txt"),
        (line("Iron", (7, 0, 1)), "start 0 and end 1 are no span of its 1 tokens"),
        (line("Iron", (7, -1, 0)), "start -1 and end 0 are no span of its 1 tokens"),
        (line("Iron bar", (7, 1, 0)), "start 1 and end 0 are no span of its 2 tokens"),
        (line([], (7, 0, 0)), "neither a sentence nor an image"),
        (line([" ", "x"], (7, 0, 0)), "start 0 and end 1 hold no text"),
        (line(["", "x"], (7, 0, 0)), "start 0 and end 0 are no span of its 2 characters"),
        (line(["Iron", "\0"], (7, 0, 0)), "holds a control character, U+0000"),
        (line(["Iron", "x" * 10_000], (7, 0, 0)), "longer than 10000 characters"),
    ],
)
def test_a_bad_line_is_quarantined_alone(tmp_path: Path, row: Any, reason: str) -> None:
    rows = [line("Iron one", (7, 0, 0)), row, line("Iron two", (7, 0, 0))]
    got = run_import(tmp_path / "w", mesed(tmp_path / "raw", rows), "mesed")
    assert [m["sentence"] for m in got.mentions] == ["Iron one", "Iron two"]
    [(position, found)] = got.reasons
    assert position.startswith("line 2, ")
    assert found.startswith(reason)
    assert got.manifest.counts.sentences_read == 3


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    source = mesed(tmp_path / "raw", [line("Iron one", (7, 0, 0)), line("Iron two", (7, 0, 0))])
    file = source / "sentences.json"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(FormatError, match=r"sentences.json, line 2, byte \d+: the file ends in the middle"):
        run_import(tmp_path / "w", source, "mesed")
    got = run_import(tmp_path / "w", source, "mesed", accept_broken_files=True)
    assert len(got.mentions) == 1
    assert "it is cut off" in got.reasons[0][1]
    assert got.manifest.counts.files_broken == 1


def test_what_pandas_and_hugging_face_write_is_read(tmp_path: Path) -> None:
    rows = [
        line("An Iron bar", (7.0, 1.0, 1.0), image={"bytes": None, "path": "a.jpg"}),
        line(None, (3, None, None), image={"bytes": "QQ==", "path": "b.jpg"}),
        line("Iron rusts", (7, 0, 0), image=3),
        line(["Iron", 3], (7, 0, 0), image="c.jpg"),
        line("Iron melts", (7, 0, 0), image=float("nan")),
    ]
    attributes = {"Iron": {"phase": ["solid", None, 3], "kind": "metal"}}
    source = mesed(tmp_path / "raw", rows, "Iron\t7.0\nGold\t3\n", attributes)
    got = run_import(tmp_path / "w", source, "mesed")
    images = [m["image"] and Path(m["image"]).name for m in got.mentions]
    assert [image and image.split(".")[1] for image in images] == ["jpg", "bin", None, "jpg", None]
    assert [m["sentence"] for m in got.mentions] == ["An Iron bar", "", "Iron rusts", "", "Iron melts"]
    assert got.entities[0]["attributes"] == {"phase": ["solid"], "kind": ["metal"]}
    assert got.reasons == [
        ("'Iron'", "a value of attribute 'phase' must be a text, not a number"),
        ("line 3, byte " + got.reasons[1][0].split()[-1], "image must be a text, not a number"),
        ("line 4, byte " + got.reasons[2][0].split()[-1], "tokens must be a list of texts"),
    ]


def test_lines_of_entities_that_cannot_be_used(tmp_path: Path) -> None:
    ids = "Iron\t7\nGold 3\n\nGold\tx\nTin\t7\nIron\t8\n\t9\nLead\t-1\nSalt\t10\n"
    attributes = {"Iron": "solid", "Nothing": {}}
    rows = [line("Iron Salt", (7, 0, 0), (8, 0, 0), (10, 1, 1))]
    got = run_import(tmp_path / "w", mesed(tmp_path / "raw", rows, ids, attributes), "mesed")
    assert [e["name"] for e in got.entities] == ["Iron", "Salt"]
    assert got.held == [("Iron", "Iron"), ("Salt", "Salt")]
    assert sorted(got.reasons) == sorted(
        [
            ("line 2, byte 7", "a line must be name TAB id"),
            ("line 4, byte 15", "the id must be a whole number, not 'x'"),
            ("line 5, byte 22", "the same id as in line 1"),
            ("line 6, byte 28", "the same name as in line 1"),
            ("line 7, byte 35", "a line must be name TAB id"),
            ("line 8, byte 38", "the id must be a whole number, not '-1'"),
            ("'Iron'", "attributes must be {attribute: [texts]}, not a text"),
            ("'Nothing'", "not in entity2id.txt"),
            ("line 1, mention 1", "entityId 8 is in no usable line of entity2id.txt"),
        ]
    )
    counts = got.manifest.counts
    assert (counts.entities_refused, counts.details_refused, counts.refused) == (6, 2, 1)


def test_attributes_that_are_cut_off_and_a_folder_that_is_none(tmp_path: Path) -> None:
    source = mesed(tmp_path / "raw", [line("Iron", (7, 0, 0))])
    (source / "attributes.json").write_text('{"Iron": {"phase": ["solid"]}, "Gold": {')
    got = run_import(tmp_path / "w", source, "mesed", accept_broken_files=True)
    assert got.entities[0]["attributes"] == {"phase": ["solid"]}
    assert got.reasons == [("after 'Iron'", "the file ends in the middle of its JSON text: it is cut off")]
    (source / "sentences.json").unlink()
    with pytest.raises(FormatError, match=r"no sentences.json here \(found: attributes.json, entity2id.txt"):
        run_import(tmp_path / "v", source, "mesed")


WORDS = st.text(st.sampled_from("ab e\u0301é'ß"), min_size=1, max_size=4).filter(lambda t: not t.isspace())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=6), st.data()), min_size=1, max_size=8))
def test_offsets_always_hold_the_span_or_the_name_in_it(tmp_path_factory: Any, given: Any) -> None:
    rows: list[Any] = []
    spans: list[str] = []
    for tokens, data in given:
        end = data.draw(st.integers(0, len(tokens) - 1))
        start = data.draw(st.integers(0, end))
        rows.append(line(tokens, (7, start, end), image=f"{len(rows)}.jpg"))
        spans.append(nfc(" ".join(tokens[start : end + 1])))
    folder = tmp_path_factory.mktemp("mesed")
    got = run_import(folder / "w", mesed(folder / "raw", rows, "ab\t7\n"), "mesed")
    assert not got.quarantine
    for (_, held), span in zip(got.held, spans, strict=True):
        assert held == span or (held.lower() == "ab" and held in span)
        assert (held.lower() == "ab") or "ab\u0301" in span or "ab" not in span.lower()


@pytest.mark.skipif(not DOGS.exists(), reason="../shared/data/dogs.tar.xz is not here")
def test_the_dogs_are_read_whole(tmp_path: Path) -> None:
    with tarfile.open(DOGS) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(path.parent for path in tmp_path.rglob("entity2id.txt"))
    got = run_import(tmp_path / "w", source, "mesed")
    counts = got.manifest.counts
    assert (counts.entities, counts.mentions, counts.images, counts.quarantined) == (222, 1072, 1072, 0)
    assert all(Path(m["image"]).is_file() for m in got.mentions)
    assert {held.lower() for _, held in got.held} <= {name["name"].lower() for name in got.entities}
    vocabulary = Vocabulary([e["name"] for e in got.entities])
    for folder, seeds in (("query", 3), ("query_seed=5", 5)):
        found = read_queries(Store.open(source / folder), vocabulary)
        assert (len(found.queries), len(found.refused), found.missing) == (70, 0, 0)
        assert {len(q.query.positive) for q in found.queries} == {seeds}
        assert all(q.positive.size for q in found.queries)
