import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import FormatError, StorageError
from tests.support.corpora import run_import, ultrawiki


def test_a_whole_corpus(tmp_path: Path) -> None:
    source = ultrawiki(
        tmp_path / "raw",
        {"iron": ["Iron is heavy.", "A bar of iron."], "gold": ["Gold shines."]},
        names=["iron", "", "gold", "zinc"],
        ent2text={"iron": "A metal.", "gold": None},
        attributes={"metals": {"iron": {"phase": ["solid"]}}, "old": {"iron": {"phase": ["hot", "solid"]}}},
    )
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert got.held == [("iron", "Iron"), ("iron", "iron"), ("gold", "Gold")]
    assert [e["name"] for e in got.entities] == ["iron", "gold", "zinc"]
    assert got.entities[0]["description"] == "A metal."
    assert got.entities[0]["attributes"] == {"class": ["metals", "old"], "phase": ["solid", "hot"]}
    assert got.entities[1]["description"] is None
    counts = got.manifest.counts
    assert (counts.mentions, counts.quarantined, counts.entities_without_sentences) == (3, 0, 1)
    assert got.manifest.found["exact"] == 1
    assert got.manifest.found["other case"] == 2
    assert [f.name for f in got.manifest.files][:2] == ["entities.txt", "ent2sents.json"]
    assert json.loads((tmp_path / "w/corpus/manifest.json").read_text())["parts"] == [3]


LONG = "iron " * 3000

SENTENCES = [
    ("", "empty"),
    (" \n", "empty"),
    ("No metal here.", "does not hold its entity's name"),
    ("Nul \0 iron", "holds a control character, U+0000"),
    ("Bell \a iron", "holds a control character, U+0007"),
    ("Broken \ufffd iron", "holds U+FFFD: its bytes were not valid UTF-8"),
    (LONG, "longer than 10000 characters"),
    (7, "a sentence must be a text, not a number"),
    (None, "neither a sentence nor an image"),
    (True, "a sentence must be a text, not true or false"),
    (["iron"], "a sentence must be a text, not a list"),
    ({"text": "iron", "deep": [{}]}, "a sentence must be a text, not an object"),
    ("Iron is first.", "duplicate sentence"),
    ("Ironmongers sell pig iron.", "occurs only inside the longer name 'pig iron'"),
]


@pytest.mark.parametrize(("sentence", "reason"), SENTENCES[:-1])
def test_a_bad_sentence_is_quarantined_alone(tmp_path: Path, sentence: object, reason: str) -> None:
    source = ultrawiki(tmp_path / "raw", {"iron": ["Iron is first.", sentence, "Iron is last."]})
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert [m["sentence"] for m in got.mentions] == ["Iron is first.", "Iron is last."]
    assert got.reasons == [("'iron', sentence 1", reason)]
    assert got.quarantine[0]["source"] == "ent2sents.json"
    assert len(got.quarantine[0]["record"]) <= 500
    counts = got.manifest.counts
    assert counts.sentences_read == 3
    assert (counts.refused, counts.duplicates) == ((0, 1) if reason.startswith("dup") else (1, 0))


@pytest.mark.parametrize("value", [3, "Iron is heavy.", {"a": ["Iron"]}])
def test_an_entity_without_a_list_is_refused(tmp_path: Path, value: object) -> None:
    source = ultrawiki(tmp_path / "raw", {"iron": value, "gold": ["Gold."]})
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert got.held == [("gold", "Gold")]
    [(position, reason)] = got.reasons
    assert position == "'iron', sentence 0"
    if isinstance(value, str):
        assert reason == "an entity must have a list of sentences, not a text"
    else:
        assert reason.startswith("an entity must have a list of sentences, not ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"iron", "the same name as in line 1, byte 0"),
        ("x" * 513, "longer than 512 characters"),
        (b"ir\xffon", "not valid UTF-8 at byte 12 of the file"),
        ("ir\0on", "holds a control character, U+0000"),
        ("ir\ton", "holds a tab or a line break"),
        ("ir\ufffdon", "holds U+FFFD: its bytes were not valid UTF-8"),
    ],
)
def test_a_bad_name_is_quarantined_alone(tmp_path: Path, line: str | bytes, reason: str) -> None:
    source = ultrawiki(tmp_path / "raw", {"iron": ["Iron."], "gold": ["Gold."]})
    raw = line if isinstance(line, bytes) else line.encode()
    (source / "entities.txt").write_bytes(b"iron\ngold\n" + raw + b"\r\n\n  \nzinc\n")
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert [e["name"] for e in got.entities] == ["iron", "gold", "zinc"]
    assert got.reasons == [("line 3, byte 10", reason)]
    assert got.manifest.counts.entities_refused == 1


def test_unknown_entities_are_refused_sentence_by_sentence(tmp_path: Path) -> None:
    source = ultrawiki(
        tmp_path / "raw",
        {"tin": ["Tin.", "More tin."], "iron": ["Iron."], "": ["Nothing."]},
        names=["iron"],
        ent2text={"lead": "A metal."},
        attributes={"metals": {"lead": {"phase": ["solid"]}, "iron": {"phase": 7}}, "x": 3},
    )
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert got.manifest.counts.refused == 3
    assert got.manifest.counts.details_refused == 4
    unlisted = "'tin' is no entity of this corpus (no line of the entity file)"
    assert set(got.reasons) == {
        ("'tin', sentence 0", unlisted),
        ("'tin', sentence 1", unlisted),
        ("'', sentence 0", "entity name empty"),
        ("'lead'", "not in entities.txt"),
        ("'iron'", "attribute 'phase' must be a list of texts, not a number"),
        ("'x'", "a class must be {name: {attribute: [values]}}, not a number"),
    }


def test_a_key_that_comes_twice_is_one_entity(tmp_path: Path) -> None:
    raw = b'{"iron": ["Iron one."], "gold": ["Gold."], "iron": ["Iron two.", "Iron one."]}'
    got = run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", raw, ["iron", "gold"]), "ultrawiki")
    assert [m["sentence"] for m in got.mentions] == ["Iron one.", "Gold.", "Iron two."]
    assert got.reasons == [("'iron', sentence 1", "duplicate sentence")]


SAME = "the same name as in line 1, byte 0 but for U+0065 U+0301 at 3 in place of U+00E9"


def test_composed_and_decomposed_spellings_are_one(tmp_path: Path) -> None:
    source = ultrawiki(
        tmp_path / "raw",
        {"Cafe\u0301": ["The Caf\u00e9 opens.", "A Cafe\u0301 closes."]},
        names=["Caf\u00e9", "Cafe\u0301"],
    )
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert got.held == [("Café", "Café")] * 2
    assert got.reasons == [("line 2, byte 6", SAME)]


def test_broken_bytes_in_the_json_cost_their_sentence_only(tmp_path: Path) -> None:
    raw = b'\xef\xbb\xbf{"iron": ["Iron \xff one.", "Iron \xe4\xb8", "Iron three.", "\xf0\x9f\x98\x80 iron"]}'
    got = run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", raw, ["iron"]), "ultrawiki")
    assert [m["sentence"] for m in got.mentions] == ["Iron three.", "😀 iron"]
    assert [p for p, _ in got.reasons] == ["'iron', sentence 0", "'iron', sentence 1"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"iron": ["Iron one.", "Iron two.", "Iron thr', "cut off"),
        (b'{"iron": ["Iron one.", "Iron two."', "cut off"),
        (b'{"iron": ["Iron one.", "Iron two." "Iron three."]}', "no valid JSON from here on"),
        (b'{"iron": ["Iron one.", "Iron two.", {"a": [', "cut off"),
    ],
)
def test_everything_before_the_break_is_imported(tmp_path: Path, raw: bytes, reason: str) -> None:
    source = ultrawiki(tmp_path / "raw", raw, ["iron"])
    with pytest.raises(
        FormatError, match=r"ent2sents.json, after 'iron', sentence 1: .*--accept-broken-files"
    ):
        run_import(tmp_path / "w", source, "ultrawiki")
    got = run_import(tmp_path / "w", source, "ultrawiki", accept_broken_files=True)
    assert [m["sentence"] for m in got.mentions] == ["Iron one.", "Iron two."]
    [(position, given)] = got.reasons
    assert position == "after 'iron', sentence 1"
    assert reason in given
    assert got.manifest.counts.files_broken == 1


def test_names_inside_names(tmp_path: Path) -> None:
    source = ultrawiki(
        tmp_path / "raw",
        {"Guinea": ["Guinea-Bissau lies by Guinea.", "Guinea-Bissau is small."], "Guinea-Bissau": []},
    )
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert got.mentions[0]["start"] == 22
    assert got.reasons == [("'Guinea', sentence 1", "occurs only inside the longer name 'Guinea-Bissau'")]


def test_bad_descriptions_go_and_their_entities_stay(tmp_path: Path) -> None:
    texts = {"iron": "Iron \0", "gold": 5}
    source = ultrawiki(tmp_path / "raw", {"iron": ["Iron."], "gold": ["Gold."]}, ent2text=texts)
    got = run_import(tmp_path / "w", source, "ultrawiki")
    assert [e["description"] for e in got.entities] == [None, None]
    assert {r for _, r in got.reasons} == {
        "'iron': description holds a control character, U+0000",
        "description must be a text, not a number",
    }


def test_mistakes_that_end_an_import(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing is there"):
        run_import(tmp_path / "w", tmp_path / "missing", "ultrawiki")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("x")
    with pytest.raises(FormatError, match=r"no entities.txt and no ent2sents.json here \(found: notes"):
        run_import(tmp_path / "w", tmp_path / "other", "ultrawiki")
    with pytest.raises(FormatError, match=r"notes.txt: a file; --format ultrawiki needs a folder"):
        run_import(tmp_path / "w", tmp_path / "other/notes.txt", "ultrawiki")
    with pytest.raises(FormatError, match="no such format; known are auto, ultrawiki, mesed, jsonl, parquet"):
        run_import(tmp_path / "w", tmp_path / "other", "xml")
    for raw in (b"", b"[]", b"{}", b'{"iron": ["Tin."]}', b"null"):
        source = ultrawiki(tmp_path / "raw", raw, ["iron"])
        with pytest.raises(FormatError, match=r"no usable sentence|ent2sents.json, at its beginning"):
            run_import(tmp_path / "w", source, "ultrawiki")
    assert not list((tmp_path / "w").glob("*"))
    assert not list((tmp_path / "w").glob(".*"))


def test_strict_publishes_nothing(tmp_path: Path) -> None:
    source = ultrawiki(tmp_path / "raw", {"iron": ["Iron.", "Tin."]})
    with pytest.raises(FormatError, match=r"1 records cannot be used, and --strict.*'iron', sentence 1"):
        run_import(tmp_path / "w", source, "ultrawiki", strict=True)
    assert not (tmp_path / "w/corpus").exists()


def test_a_corpus_is_replaced_only_when_told_so(tmp_path: Path) -> None:
    first = run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", {"iron": ["Iron."]}), "ultrawiki")
    source = ultrawiki(tmp_path / "raw", {"gold": ["Gold."]})
    with pytest.raises(StorageError, match=r"a corpus is there already.*--overwrite"):
        run_import(tmp_path / "w", source, "ultrawiki")
    got = run_import(tmp_path / "w", source, "ultrawiki", overwrite=True)
    assert got.held == [("gold", "Gold")]
    assert got.manifest.digest != first.manifest.digest


def test_the_digest_depends_on_the_content_alone(tmp_path: Path) -> None:
    source = ultrawiki(tmp_path / "raw", {"iron": ["Iron."]})
    digests = {run_import(tmp_path / w, source, "ultrawiki").manifest.digest for w in ("a", "b")}
    assert len(digests) == 1


names = st.sampled_from(["iron", "pig iron", "Gold", "x+"])
texts = st.one_of(
    st.text("ironpgGld +x.\0\ufffd", max_size=14), names.map(lambda n: f"The {n}."), st.integers()
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names | st.just("unlisted"), st.lists(texts, max_size=6)))
def test_every_sentence_is_accounted_for(tmp_path: Path, sentences: dict[str, list[object]]) -> None:
    given_names = ["iron", "pig iron", "Gold", "x+", "always"]
    source = ultrawiki(tmp_path / "raw", {"always": ["always"], **sentences}, given_names)
    got = run_import(tmp_path / "w", source, "ultrawiki", overwrite=True)
    counts = got.manifest.counts
    assert counts.sentences_read == 1 + sum(map(len, sentences.values()))
    assert counts.mentions + counts.refused + counts.duplicates == counts.sentences_read
    assert counts.quarantined == len(got.quarantine)
    assert counts.mentions == len(got.mentions)
    assert all(name.lower() == held.lower() for name, held in got.held)
