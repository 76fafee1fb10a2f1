"""Methods of a user's own: by module:NAME, and by the entry points of installed packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import QueryError, UserError
from engine.expander import Expander
from engine.methods import ABLATIONS, ABOUT, METHODS, method
from engine.plugins import find_method, installed, is_method, listed
from engine.stages.base import Pipeline
from engine.stages.retrieve import Retrieve
from tests.support.bundles import random_bundle

MODULE = """
from engine.stages.retrieve import Retrieve
from engine.stages.rerank import SegmentRerank

WIDE = Retrieve(k=300) >> SegmentRerank(length=2)
ALONE = Retrieve(k=7)
NOTHING = 3


class Group:
    inner = WIDE
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is the current one, as a user's, with a module in it."""
    (tmp_path / "own_methods_of_a_test.py").write_text(MODULE)
    (tmp_path / "broken_methods_of_a_test.py").write_text("1 / 0")
    (tmp_path / "needing_methods_of_a_test.py").write_text("import not_there_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.endswith("_methods_of_a_test")]:
        del sys.modules[name]


def test_a_pipeline_in_a_module_of_this_folder_is_a_method(here: Path) -> None:
    assert str(find_method("own_methods_of_a_test:WIDE")) == "Retrieve(k=300) >> SegmentRerank(length=2)"
    assert find_method("own_methods_of_a_test:ALONE") == Pipeline((Retrieve(k=7),)), "one stage is one, too"
    assert find_method("own_methods_of_a_test:Group.inner") == find_method("own_methods_of_a_test:WIDE")
    opened = Expander.open(_workspace(here), "own_methods_of_a_test:ALONE", settings={"Retrieve.k": 5})
    assert len(opened.expand([1, 2], top_k=3).results) == 3
    assert opened.stages == [Retrieve(k=5)]


def _workspace(root: Path) -> Path:
    random_bundle(root / "w", 30, 4)
    return root / "w"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_methods_of_a_test:NOTHING", "NOTHING is a int, not a pipeline .* it holds WIDE, ALONE"),
        ("own_methods_of_a_test:MISSING", "MISSING is not there, not a pipeline"),
        ("no_such_module_of_a_test:X", "no module is called 'no_such_module_of_a_test', neither here"),
        ("broken_methods_of_a_test:X", "importing broken_methods_of_a_test failed: ZeroDivisionError"),
        ("needing_methods_of_a_test:X", "imports 'not_there_at_all', which is not installed"),
        ("retexpann", "unknown method 'retexpann'; did you mean retexpan"),
    ],
)
def test_what_is_none_says_what_is_wrong(here: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_method(name)


@pytest.mark.parametrize("name", ["retexpann", "", "a b:c", "x:", ":x", "../x:y", "os.system('x'):y"])
def test_what_is_not_of_the_form_is_not_imported(name: str, here: Path) -> None:
    before = set(sys.modules)
    assert not is_method(name)
    with pytest.raises(QueryError, match="unknown method"):
        find_method(name)
    assert {n for n in set(sys.modules) - before if "method" in n or n in ("x", "y")} == set()


def test_an_installed_package_brings_methods(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = here / "site" / "own-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    lines = ["wide = own_methods_of_a_test:WIDE", "bad = own_methods_of_a_test:NOTHING", "retexpan = x:Y"]
    (about / "entry_points.txt").write_text("\n".join(["[seedset.methods]", *lines]))
    monkeypatch.syspath_prepend(here / "site")
    assert set(installed()) == {"wide", "bad"}, "a name of ours stays ours"
    assert is_method("wide")
    assert str(find_method("wide")).startswith("Retrieve(k=300)")
    assert find_method("retexpan") == method("retexpan")
    last = {one.name: one for one in list(listed())[-2:]}
    assert last["wide"].pipeline == "Retrieve(k=300) >> SegmentRerank(length=2)"
    assert "NOTHING is a int" in last["bad"].pipeline, "one that is wrong does not hide the others"
    with pytest.raises(UserError, match="the installed method 'bad': NOTHING"):
        find_method("bad")


def test_every_method_is_listed_with_a_line() -> None:
    assert {one.name: one.pipeline for one in listed()} == {
        name: str(pipeline) for name, pipeline in {**METHODS, **ABLATIONS}.items()
    }
    assert {*METHODS, *ABLATIONS} <= set(ABOUT), "a line in ABOUT says what the method is"
    assert [one.name for one in listed(ablations=False)] == list(METHODS)
