import numpy as np
import pytest

from engine.generation.lists import list_lines, neighbour_lists

# Two groups far apart on the circle, of five entities each; the last entity has no vector.
ANGLES = np.deg2rad([0, 2, 4, 6, 8, 180, 182, 184, 186, 188])
VECTORS = np.vstack([np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1), np.zeros((1, 2))]).astype(np.float32)
NONE = np.zeros(len(VECTORS), np.float32)


def test_every_entity_begins_its_lists_and_neighbours_fill_them() -> None:
    lists = neighbour_lists(VECTORS, NONE, per_entity=3, seed=1)
    assert lists.shape == (30, 4)
    groups = lists // 5
    assert (groups == groups[:, :1]).all()  # never one of each group
    assert all(len(set(row)) == 4 for row in lists.tolist())
    assert set(lists.ravel().tolist()) == set(range(10))  # the one without a vector is in none
    assert (np.bincount(lists[:, :3].ravel()) >= 3).all()


def test_hubs_are_held_back() -> None:
    hub = NONE.copy()
    hub[2] = 1.0
    wanted = neighbour_lists(VECTORS, hub, per_entity=20, seed=1)[:, 3]
    assert (wanted == 2).sum() == 0
    assert (neighbour_lists(VECTORS, NONE, per_entity=20, seed=1)[:, 3] == 2).sum() > 0


def test_the_seed_decides_the_lists() -> None:
    first, again, other = (neighbour_lists(VECTORS, NONE, 2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_too_few_entities_make_no_list() -> None:
    assert neighbour_lists(VECTORS[:3], NONE[:3], 5, 1).shape == (0, 4)


def test_lines_read_as_prompts_are_written() -> None:
    names = [f"n{i}" for i in range(11)]
    lists = neighbour_lists(VECTORS, NONE, per_entity=30, seed=1)
    lines = list(list_lines(names, lists, seed=1))
    written = sorted(line for line in lines if " and " in line)
    assert written == sorted("n{}, n{}, n{} and n{}.\n".format(*row) for row in lists.tolist())
    similar = [line for line in lines if " is similar to " in line]
    assert len(similar) == pytest.approx(len(lists) / 3, rel=0.25)
    assert len(written) + len(similar) == len(lines)
