"""A folder that some nodes do not see is refused before the work, not found out after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import sharing
from cluster.sharing import check_shared
from engine.errors import UserError

NODES = {"id-2": "10.0.0.2", "id-3": "10.0.0.3"}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three nodes, the last of which sees nothing below ``alone``; the files that were looked for."""
    looked: list[Path] = []

    def without(marker: Path, nodes: dict[str, str]) -> list[str]:
        assert marker.is_file(), "it is there while the nodes look"
        looked.append(marker)
        return ["10.0.0.3"] if "alone" in marker.parts else []

    monkeypatch.setattr(sharing, "_other_nodes", lambda: NODES)
    monkeypatch.setattr(sharing, "_nodes_without", without)
    return looked


def test_a_folder_of_this_node_alone_is_named_with_the_nodes(cluster: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"alone: 10\.0\.0\.3 of this cluster cannot see this folder .*s3://"):
        check_shared([str(tmp_path / "shared"), str(tmp_path / "alone")])
    assert list((tmp_path / "alone").iterdir()) == [], "nothing is left of it"


def test_a_folder_that_all_see_passes_and_a_bucket_is_not_asked_for(
    cluster: list[Path], tmp_path: Path
) -> None:
    check_shared([str(tmp_path / "shared"), "s3://bucket/work"])
    (marker,) = cluster
    assert marker.parent == tmp_path / "shared"
    assert marker.name.startswith("."), "no reader takes it for a file of the workspace"
    assert not marker.exists()


def test_on_one_node_there_is_nothing_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_other_nodes", dict)
    monkeypatch.setattr(sharing, "_nodes_without", lambda *_: pytest.fail("nobody to ask"))
    check_shared([str(tmp_path / "alone")])
    assert not (tmp_path / "alone").exists()
