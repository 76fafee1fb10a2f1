import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import FormatError, QueryError
from engine.generation.trie import MAX_TOKENS, Trie

END = 1
Entities = Mapping[int, Sequence[int]]
"""Sequences of tokens by entity id."""
TOKENIZER = Path(__file__).parents[4] / "shared/models/llama-tokenizer/tokenizer.json"

# Few tokens, so that names share beginnings, contain one another and coincide; 0 pads, 70,000 needs int32.
bodies = st.lists(st.sampled_from([0, 2, 3, 4, 70_000]), max_size=5)
names = st.lists(bodies.map(lambda body: (*body, END)), min_size=1, max_size=30)


@st.composite
def named(draw: st.DrawFn) -> Entities:
    """Entity ids in any order, each with its sequence."""
    sequences = draw(names)
    ids = draw(st.lists(st.integers(0, 10**6), min_size=len(sequences), max_size=len(sequences), unique=True))
    return dict(zip(ids, sequences, strict=True))


def ids_of(entities: Iterable[int]) -> np.ndarray:
    return np.array(list(entities), np.int32)


def build(entities: Entities) -> Trie:
    return Trie.build(list(entities.values()), ids_of(entities))


def plain(entities: Mapping[int, Sequence[int]]) -> dict[Any, Any]:
    """The oracle: nested dictionaries; a name's ids lie under None."""
    root: dict[Any, Any] = {}
    for entity, sequence in entities.items():
        node = root
        for token in sequence:
            node = node.setdefault(token, {})
        node.setdefault(None, []).append(entity)
    return root


def at(*nodes: int) -> np.ndarray:
    return np.array(nodes, np.int64)


def tail(trie: Trie, leaf: int) -> list[int]:
    return [int(trie.tail_token(at(leaf), at(i))[0]) for i in range(int(trie.tail_length(at(leaf))[0]))]


def assert_agree(trie: Trie, node: int, expected: dict[Any, Any]) -> None:
    """Check that from ``node`` on the trie holds what the nested dictionaries hold, and nothing else."""
    if trie.is_leaf(at(node))[0]:
        for token in tail(trie, node):
            assert list(expected) == [token]
            expected = expected[token]
        assert list(expected) == [None]
        assert trie.entities_at(node).tolist() == sorted(expected[None])
        return
    parents, nodes, tokens = trie.children(at(node))
    assert tokens.tolist() == sorted(expected)
    assert parents.tolist() == [0] * len(nodes)
    for child, token in zip(nodes.tolist(), tokens.tolist(), strict=True):
        assert_agree(trie, child, expected[token])


def assert_same(one: Trie, other: Trie) -> None:
    for field in fields(Trie):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        # A subset keeps the type of its tokens, even where none of them needs it.
        assert ours.dtype == theirs.dtype or field.name in ("tokens", "node_token")
        assert ours.tolist() == theirs.tolist(), field.name


def test_four_names_array_by_array() -> None:
    trie = build({30: (5, 6, 1), 10: (5, 6, 2, 1), 20: (5, 1), 40: (7, 8, 1)})
    #            0
    #       5 /     \ 7
    #        1       2 -> 8 1
    #    1 /   \ 6
    #     3     4
    #       1 /   \ 2
    #        5     6 -> 1
    assert trie.tokens.tolist() == [5, 1, 5, 6, 1, 5, 6, 2, 1, 7, 8, 1]
    assert trie.starts.tolist() == [0, 2, 5, 9, 12]
    assert trie.entities.tolist() == [20, 30, 10, 40]
    assert trie.entity_starts.tolist() == [0, 1, 2, 3, 4]
    assert trie.entity_ids.tolist() == [10, 20, 30, 40]
    assert trie.entity_sequence.tolist() == [2, 0, 1, 3]
    assert trie.node_token.tolist() == [0, 5, 7, 1, 6, 1, 2]
    assert trie.first_child.tolist() == [1, 3, 5, 5, 5, 7, 7, 7]
    assert trie.node_sequence.tolist() == [0, 0, 3, 0, 1, 1, 2]
    assert trie.is_leaf(np.arange(7)).tolist() == [False, False, True, True, False, True, True]
    assert trie.tail_length(at(2, 3, 5, 6)).tolist() == [2, 0, 0, 1]
    assert trie.tail_token(at(2, 2, 6), at(0, 1, 0)).tolist() == [8, 1, 1]
    parents, nodes, tokens = trie.children(at(4, 3, 0, 4))
    assert parents.tolist() == [0, 0, 2, 2, 3, 3]
    assert nodes.tolist() == [5, 6, 1, 2, 5, 6]
    assert tokens.tolist() == [1, 2, 5, 7, 1, 2]
    assert (len(trie), trie.n_sequences, trie.n_entities, trie.depth) == (7, 4, 4, 4)
    assert trie.nbytes == 2 * (12 + 7) + 4 * (5 + 4 + 5 + 4 + 4 + 8 + 7)
    assert {getattr(trie, f.name).dtype.name for f in fields(Trie)} == {"uint16", "int32"}


@settings(max_examples=60)
@given(named())
def test_every_name_is_reached_and_nothing_else(entities: Entities) -> None:
    trie = build(entities)
    assert_agree(trie, 0, plain(entities))
    assert trie.n_entities == len(entities)
    assert trie.n_sequences == len(set(entities.values()))
    assert trie.depth == max(map(len, entities.values()))


@settings(max_examples=40)
@given(named(), st.data())
def test_children_of_many_nodes_are_those_of_each(entities: Entities, data: Any) -> None:
    trie = build(entities)
    nodes = data.draw(st.lists(st.integers(0, len(trie) - 1), max_size=8))
    parents, children, tokens = trie.children(at(*nodes))
    single = [trie.children(at(node)) for node in nodes]
    assert parents.tolist() == [place for place, one in enumerate(single) for _ in one[1]]
    assert children.tolist() == [child for one in single for child in one[1].tolist()]
    assert tokens.tolist() == [token for one in single for token in one[2].tolist()]


@settings(max_examples=60)
@given(named(), st.data())
def test_a_restricted_trie_is_the_trie_of_the_subset(entities: Entities, data: Any) -> None:
    wanted = data.draw(st.lists(st.sampled_from(sorted(entities))))
    restricted = build(entities).restrict(ids_of(wanted))
    assert_same(restricted, build({e: entities[e] for e in wanted}))
    half = wanted[: len(wanted) // 2]
    assert_same(restricted.restrict(ids_of(half)), build({e: entities[e] for e in half}))


def test_entities_of_names_alike_rise_however_many_there_are() -> None:
    ids = np.random.default_rng(0).permutation(300).tolist()
    entities = {i: (2 + i % 2, END) for i in ids}
    for trie in (build(entities), build(entities).restrict(ids_of(ids))):
        assert trie.entities_at(1).tolist() == list(range(0, 300, 2))
        assert trie.entities_at(2).tolist() == list(range(1, 300, 2))


@pytest.mark.parametrize("unknown", [-1, 4, 6, 11])
def test_restricting_to_an_unknown_entity_names_it(unknown: int) -> None:
    trie = build({5: (2, END), 10: (3, END)})
    with pytest.raises(QueryError, match=f"entity {unknown} is not in the trie"):
        trie.restrict(ids_of([5, unknown]))


def test_a_lone_name_hangs_from_the_root() -> None:
    trie = Trie.build([[7, 8, END]])
    assert not trie.is_leaf(at(0))[0]
    assert [found.tolist() for found in trie.children(at(0))] == [[0], [1], [7]]
    assert tail(trie, 1) == [8, END]


def test_no_names_leave_a_root_without_children() -> None:
    trie = Trie.build([[END]]).restrict(ids_of([]))
    assert (len(trie), trie.n_entities, trie.depth) == (1, 0, 0)
    assert not trie.is_leaf(at(0))[0]
    assert not len(trie.children(at(0))[1])


@pytest.mark.parametrize(("token", "dtype"), [(65_535, np.uint16), (65_536, np.int32)])
def test_tokens_take_four_bytes_only_where_an_id_needs_them(token: int, dtype) -> None:
    trie = Trie.build([[token, END], [2, END]])
    assert trie.tokens.dtype == trie.node_token.dtype == dtype
    assert trie.children(at(0))[2].tolist() == [2, token]


@given(st.lists(bodies.map(tuple), min_size=1, max_size=6))
def test_a_sequence_that_begins_another_is_refused_and_both_are_named(sequences) -> None:
    def prefix(one: Sequence[int], other: Sequence[int]) -> bool:
        return one != other and other[: len(one)] == one

    pairs = {
        frozenset((i, j)) for i, a in enumerate(sequences) for j, b in enumerate(sequences) if prefix(a, b)
    }
    empty = [i for i, sequence in enumerate(sequences) if not sequence]
    if not pairs and not empty:
        assert Trie.build(sequences).n_entities == len(sequences)
        return
    with pytest.raises(FormatError) as caught:
        Trie.build(sequences)
    words = str(caught.value).split(":")[0].split()
    if empty:
        assert words == ["entity", str(empty[0])]
    else:
        assert words[0::2] == ["entities", "and"]
        assert frozenset((int(words[1]), int(words[3]))) in pairs


def test_too_long_a_name_and_an_entity_with_two_are_refused() -> None:
    with pytest.raises(FormatError, match=f"entity 4: its name has {MAX_TOKENS + 1} tokens"):
        build({3: [2] * MAX_TOKENS, 4: [3] * (MAX_TOKENS + 1)})
    assert build({3: [2] * MAX_TOKENS, 4: [3]}).depth == MAX_TOKENS
    with pytest.raises(FormatError, match="entity 4: comes twice"):
        Trie.build([[2], [3], [5]], ids_of([4, 9, 4]))


@settings(max_examples=25)
@given(named(), st.booleans())
def test_what_is_saved_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, entities: Entities, nothing
) -> None:
    folder = tmp_path_factory.mktemp("trie")
    trie = build(entities)
    if nothing:
        trie = trie.restrict(ids_of([]))
    trie.save(folder)
    read = Trie.load(folder)
    assert_same(read, trie)
    assert (read.tokens.dtype, read.n_entities) == (trie.tokens.dtype, trie.n_entities)
    shutil.rmtree(folder)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    build({30: (5, 6, 1), 10: (5, 6, 2, 1), 20: (5, 1), 40: (7, 8, 1)}).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [f.name for f in fields(Trie)])
def test_a_broken_array_is_refused(saved: Path, name: str) -> None:
    path = saved / f"{name}.npy"
    whole, array = path.read_bytes(), np.load(path)
    pickled = np.array([{}] * len(array), object)
    for wrong in (array.astype(np.int64), array[:-1], array[None], array.astype(array.dtype.newbyteorder())):
        np.save(path, wrong)
        with pytest.raises(FormatError, match=f"{name}.npy: holds"):
            Trie.load(saved)
    np.save(path, pickled, allow_pickle=True)
    with pytest.raises(FormatError, match=f"{name}.npy: not a NumPy array"):
        Trie.load(saved)
    for cut in (0, 5, 60, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=f"{name}.npy: not a NumPy array"):
            Trie.load(saved)
    path.unlink()
    with pytest.raises(FormatError, match=f"{name}.npy: not a NumPy array"):
        Trie.load(saved)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("starts", [0, 2, 5, 9, 13]),
        ("starts", [1, 2, 5, 9, 12]),
        ("starts", [0, 5, 2, 9, 12]),
        ("entity_starts", [0, 1, 1, 3, 4]),
        ("entity_ids", [10, 30, 20, 40]),
        ("entities", [20, 30, 10, 41]),
        ("entity_sequence", [2, 0, 1, 4]),
        ("entity_sequence", [2, -1, 1, 3]),
        ("node_sequence", [0, 0, 4, 0, 1, 1, 2]),
        # Node 6, on level 3, would stand on a sequence of two tokens.
        ("node_sequence", [0, 0, 3, 0, 1, 1, 0]),
        ("first_child", [2, 3, 5, 5, 5, 7, 7, 7]),
        ("first_child", [1, 3, 5, 5, 5, 7, 7, 8]),
        ("first_child", [1, 3, 5, 4, 5, 7, 7, 7]),
        ("first_child", [1, 1, 5, 5, 5, 7, 7, 7]),
    ],
)
def test_arrays_that_lead_astray_are_refused(saved: Path, name: str, values) -> None:
    np.save(saved / f"{name}.npy", np.array(values, np.int32))
    with pytest.raises(FormatError, match=f"{name}.npy: leads out"):
        Trie.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format 2, this program reads 1"),
        ({"nodes": 0}, "not the header"),
        ({"sequences": 10**30}, "starts.npy: holds"),
        ({"token_type": "object"}, "not the header"),
        ({"more": 1}, "not the header"),
    ],
)
def test_a_broken_header_is_refused(saved: Path, change, message: str) -> None:
    path = saved / "trie.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FormatError, match=message):
        Trie.load(saved)


def test_a_missing_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"trie\.json: not the header"):
        Trie.load(tmp_path)


@pytest.mark.skipif(not TOKENIZER.exists(), reason="needs ../shared/models/llama-tokenizer")
def test_names_of_a_real_tokenizer_never_begin_one_another() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    words = ["Inc", "Inc.", "Inc..", "Inc. Inc", "Iron", "Iron Man", "iron", "11", "11 11", "Ż", "…", "..."]
    texts = [f"and {word}.\n" for word in words]
    entities = {
        i: tuple(tokenizer.encode(text, add_special_tokens=False).ids) for i, text in enumerate(texts)
    }
    trie = build(entities)
    assert trie.n_sequences == len(words)
    assert_agree(trie, 0, plain(entities))
