"""Flags, their pictures, and the multi-modal part of the sample: true, readable, and the same each time."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.flags import COLOURS, FAMILY, draw_flag, load_flags, parse_part
from examples.make_sample import write_sample
from examples.multimodal import CLASSES, class_members, image_name, picture_contexts, with_images
from examples.photographs import PICTURES, photograph
from examples.tables import HERE, load_table

Record = dict[str, Any]
RED, WHITE, BLUE = (np.array(COLOURS[c]) for c in ("red", "white", "blue"))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    return folder


@pytest.fixture(scope="module")
def sentences(sample: Path) -> list[Record]:
    text = (sample / "sentences.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def pixels(country: str, length: int = 120, height: int = 80) -> np.ndarray:
    return np.asarray(draw_flag(load_flags()[country], length, height)).astype(int)


def test_flags_are_those_of_countries_of_the_table() -> None:
    assert len(load_flags()) >= 110
    assert set(load_flags()) <= set(load_table("countries"))


def test_the_disc_of_japan_is_red_in_the_middle_of_white() -> None:
    flag = pixels("Japan")
    assert flag.shape == (80, 120, 3)
    assert (flag[40, 60] == COLOURS["crimson"]).all()
    assert all((flag[y, x] == WHITE).all() for y in (0, -1) for x in (0, -1))
    share = (flag[..., 1] < 100).mean()
    assert share == pytest.approx(np.pi * 6**2 / (20 * 30), abs=0.01)


def test_france_has_three_thirds() -> None:
    flag = pixels("France")
    for part, colour in enumerate((BLUE, WHITE, RED)):
        assert (flag[:, 40 * part : 40 * part + 40] == colour).all()


def test_the_cross_of_norway_lies_towards_the_hoist() -> None:
    flag = pixels("Norway", 220, 160)
    assert flag.shape == (160, 220, 3)
    across = ["red"] * 60 + ["white"] * 10 + ["blue"] * 20 + ["white"] * 10 + ["red"] * 120
    down = ["red"] * 60 + ["white"] * 10 + ["blue"] * 20 + ["white"] * 10 + ["red"] * 60
    assert (flag[10] == [COLOURS[c] for c in across]).all()
    assert (flag[:, 200] == [COLOURS[c] for c in down]).all()
    assert (flag[80] == COLOURS["blue"]).all()


def test_the_union_flag_looks_the_same_upside_down_but_not_in_a_mirror() -> None:
    flag = pixels("United Kingdom", 240, 120)
    assert np.abs(flag - flag[::-1, ::-1]).mean() < 3
    assert np.abs(flag - flag[:, ::-1]).mean() > 10
    # Upper hoist: the broad white stripe is above the red one.
    column = flag[:, 30]
    red_rows = np.flatnonzero((column[:45] == RED).all(axis=1))
    white_rows = np.flatnonzero((column[:45] == WHITE).all(axis=1))
    assert (white_rows < red_rows.min()).sum() > (white_rows > red_rows.max()).sum() > 0


def test_the_flag_of_switzerland_is_square() -> None:
    flag = pixels("Switzerland")
    assert flag.shape == (80, 80, 3)
    assert (flag[40, 40] == WHITE).all()
    assert (flag[4, 4] == RED).all()


def test_crescents_leave_what_lies_below() -> None:
    flag = pixels("Turkey", 300, 200)
    assert (flag[100, 54] == WHITE).all()
    assert (flag[100, 110] == RED).all()


def test_a_definition_that_is_not_understood_is_refused() -> None:
    for text in ("blob red 1 2", "disc 1 2 3", "disc mauve 1 2 3"):
        with pytest.raises(ValueError, match=r"no such kind|no colour|Invalid literal"):
            parse_part(text)


def test_pictures_of_a_flag_differ_and_are_the_same_on_every_run() -> None:
    flag = load_flags()["Norway"]
    first = [photograph(flag, n).tobytes() for n in range(1, PICTURES + 1)]
    assert len(set(first)) == PICTURES
    assert first == [photograph(flag, n).tobytes() for n in range(1, PICTURES + 1)]


def test_a_photograph_shows_the_colours_of_its_flag() -> None:
    for number in range(2, PICTURES + 1):
        picture = np.asarray(photograph(load_flags()["Japan"], number)).astype(int)
        red = picture[..., 0] - picture[..., 1:].max(axis=-1) > 60
        assert 0.05 < red.mean() < 0.25
        rows, columns = np.nonzero(red)
        middle = np.array([rows.mean() / len(picture), columns.mean() / picture.shape[1]])
        assert np.abs(middle - 0.5).max() < 0.1


def test_every_image_is_there_and_readable(sample: Path, sentences: list[Record]) -> None:
    files = {p.relative_to(sample).as_posix() for p in (sample / "images").iterdir()}
    assert files == {image_name(c, n) for c in load_flags() for n in range(1, PICTURES + 1)}
    for file in files:
        with Image.open(sample / file) as picture:
            assert picture.mode == "RGB"
            assert picture.format == "PNG"
            assert 56 <= picture.size[1] <= picture.size[0] <= 144
            picture.load()
    assert {r["image"] for r in sentences if "image" in r} <= files
    assert {r["image"] for r in picture_contexts()} <= files


def test_sentences_are_as_they_were_but_for_the_image(sentences: list[Record]) -> None:
    assert all(set(r) - {"image"} == {"entity", "sentence", "start", "end"} for r in sentences)
    with_flag = [r for r in sentences if r["entity"] in load_flags()]
    assert all("image" not in r for r in sentences if r["entity"] not in load_flags())
    for name in load_flags():
        given = [r.get("image") for r in with_flag if r["entity"] == name]
        shared = Counter(image for image in given if image)
        assert None in given
        assert all(image.rpartition("-")[0] == image_name(name, 1)[:-6] for image in shared)
    assert max(Counter(r["image"] for r in with_flag if "image" in r).values()) > 1
    plain = [{k: v for k, v in r.items() if k != "image"} for r in with_flag]
    assert with_images(plain) == with_flag


def test_some_contexts_are_an_image_alone(sample: Path) -> None:
    text = (sample / "sentences_images.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.splitlines()]
    assert records == picture_contexts()
    assert 20 <= len(records) <= len(load_flags()) / 2
    assert all(set(r) == {"entity", "image"} for r in records)


def definitions() -> dict[str, list[list[str]]]:
    """The words of each flag's parts, read anew from the file."""
    with (HERE / "facts" / "flags.csv").open(encoding="utf-8", newline="") as handle:
        return {row["name"]: [p.split() for p in row["parts"].split(";")] for row in csv.DictReader(handle)}


def colours_of(parts: list[list[str]]) -> set[str]:
    words = {word.partition(":")[0] for part in parts for word in part[1:]}
    return {FAMILY[word] for word in words if word in FAMILY}


def recount(cls: str) -> set[str]:
    """The members of a class, worked out by another way than the sample's."""
    seen: set[str] = set()
    about = load_table("countries")
    for name, parts in definitions().items():
        kinds = [part[0] for part in parts]
        three = len(parts[0]) == 4 and len(colours_of(parts[:1])) == 3
        cut = any(k in ("triangle", "canton", "teeth") for k in kinds)
        cut = cut or any(p[0] in ("box", "polygon") and "0" in p[2::2] for p in parts)
        centres = {tuple(p[2:4]) for p in parts if p[0].startswith("star")}
        rows = [p for p in parts if p[0] in ("ring", "arc", "line", "grid")]
        stars = len(centres) + 2 * len(rows)  # a row has several; how many does not matter here
        colours = colours_of(parts)
        looks = {
            "horizontal_tricolour": kinds[0] == "horizontal" and three and not cut,
            "vertical_tricolour": kinds[0] == "vertical" and three and not cut,
            "one_star": stars == 1,
            "several_stars": stars > 1,
            "star": stars > 0,
            "crescent": "crescent" in kinds,
            "cross": any(k in ("cross", "saltire", "plus", "jack") for k in kinds),
            "cross_or_saltire": any(k in ("cross", "saltire", "plus", "jack") for k in kinds),
            "canton": "canton" in kinds or ("jack" in kinds and kinds != ["jack"]),
            "hoist_triangle": "triangle" in kinds,
            "red_white_blue": colours == {"red", "white", "blue"},
            "red_yellow_green": colours in ({"red", "yellow", "green"}, {"red", "yellow", "green", "black"}),
        }
        where, government = about[name]["continent"], about[name]["government"]
        tales = {
            "african": where == "Africa",
            "asian": where == "Asia",
            "european": where == "Europe",
            "landlocked": about[name]["sea_access"] == "landlocked",
            "monarchy": government == "monarchy",
        }
        kind, _, rest = cls.partition("_")
        tale, _, look = rest.partition("_") if kind == "both" else ("", "", rest)
        if looks[look] and (not tale or tales[tale]):
            seen.add(name)
    return seen


@pytest.mark.parametrize("cls", [c for c in CLASSES if not c.startswith("text_")])
def test_a_class_that_shows_is_true(cls: str) -> None:
    assert set(class_members(cls)) == recount(cls)


def test_classes_that_the_text_tells_are_true() -> None:
    rows = load_table("countries")
    wanted = {
        "text_africa": ("continent", "Africa"),
        "text_europe": ("continent", "Europe"),
        "text_monarchy": ("government", "monarchy"),
        "text_landlocked": ("sea_access", "landlocked"),
    }
    assert set(wanted) == {c for c in CLASSES if c.startswith("text_")}
    for cls, (column, value) in wanted.items():
        assert set(class_members(cls)) == {n for n, row in rows.items() if row[column] == value}


def test_some_classes_are_known_by_heart() -> None:
    crescents = "Algeria Libya Tunisia Comoros Mauritania Turkmenistan Uzbekistan Malaysia Singapore Maldives"
    assert set(class_members("image_crescent")) == {*crescents.split(), "Pakistan", "Azerbaijan", "Turkey"}
    vertical = set(class_members("image_vertical_tricolour"))
    assert {"France", "Italy", "Belgium", "Ireland", "Romania", "Mali", "Chad"} <= vertical
    assert not {"Nigeria", "Peru", "Canada", "Germany", "Portugal"} & vertical
    nordic = {"Denmark", "Finland", "Iceland", "Norway", "Sweden"}
    assert nordic < set(class_members("image_cross_or_saltire"))


def test_queries_are_in_the_layout_of_mesed(sample: Path) -> None:
    folder = sample / "multimodal"
    names = [json.loads(x)["name"] for x in (sample / "entities.jsonl").read_text("utf-8").splitlines()]
    ids = dict(x.split("\t") for x in (folder / "entity2id.txt").read_text("utf-8").splitlines())
    assert [(name, int(i)) for name, i in ids.items()] == [(name, i) for i, name in enumerate(names)]
    kinds = Counter(cls.partition("_")[0] for cls in CLASSES)
    assert min(kinds["image"], kinds["text"], kinds["both"]) >= 3
    assert len(CLASSES) >= 8
    for cls in CLASSES:
        truth = [x.split("\t") for x in (folder / "gt" / f"{cls}.txt").read_text("utf-8").splitlines()]
        assert 8 <= len(truth) <= 60, cls
        assert [name for _, name, _ in truth] == list(class_members(cls))
        assert all(ids[name] == i and flag == "1" for i, name, flag in truth)
        for where, seeds in (("query", 3), ("query_seed=5", 5)):
            *lines, last = (folder / where / f"{cls}.txt").read_text("utf-8").splitlines()
            assert last == "EXIT"
            assert len({frozenset(line.split()) for line in lines}) == 5
            for line in lines:
                assert len(set(line.split())) == seeds
                assert set(line.split()) <= {i for i, _, _ in truth}
