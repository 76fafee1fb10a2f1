from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.blocks.format import (
    IGNORED,
    BlockCounts,
    TokenBlocks,
    block_parts,
    corpus_texts,
    named_plans,
    pack,
    pad_of,
    part_texts,
    plan_parts,
    read_descriptions,
)
from engine.corpus.blocks.settings import BlockSettings
from engine.corpus.blocks.worker import BlockWorker
from engine.errors import UserError
from engine.generation.tokenizers import fingerprint, load_tokenizer
from engine.storage.workspace import Workspace
from tests.support.corpora import jsonl, run_import, ultrawiki
from tests.support.language_models import tiny_tokenizer

SHARED = "Iron and gold are metals."
SENTENCES = {
    "iron": [SHARED, "The iron rusts.", "This iron is hard."],
    "gold": [SHARED, "The gold shines."],
    "tin": ["The tin melts."],
}
DESCRIBED = {"iron": "iron: a metal.", "gold": "The tin melts.", "tin": "tin: a metal."}


def settings(**changes: object) -> BlockSettings:
    given = {"tokenizer": fingerprint(tiny_tokenizer()), "vocab_size": 320, "block": 8, "held_out": 0}
    return BlockSettings.model_validate(given | {"descriptions": True} | changes)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Three mentions a part: iron's are the first part, gold's and tin's the second."""
    monkeypatch.setattr("engine.corpus.importing.writer.PART_ROWS", 3)
    run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", SENTENCES, ent2text=DESCRIBED), "ultrawiki")
    return Workspace.open(tmp_path / "w")


def test_every_distinct_text_is_read_once_beside_its_entity(workspace: Workspace) -> None:
    """Gold's description is tin's sentence, and the shared sentence belongs to iron, who comes first."""
    assert list(corpus_texts(workspace, settings())) == [
        f"{text}\n"
        for text in (
            DESCRIBED["iron"],
            *SENTENCES["iron"],
            "The gold shines.",
            DESCRIBED["tin"],
            "The tin melts.",
        )
    ]


def test_sentences_alone_are_read_where_nothing_else_is_asked_for(workspace: Workspace) -> None:
    assert not BlockSettings(tokenizer="", vocab_size=9).descriptions
    texts = list(corpus_texts(workspace, settings(descriptions=False)))
    assert texts == [f"{s}\n" for s in (*SENTENCES["iron"], "The gold shines.", "The tin melts.")]


def test_held_out_sentences_are_drawn_and_not_trained_on(workspace: Workspace) -> None:
    chosen = settings(held_out=0.4)
    plans = plan_parts(workspace, chosen)
    descriptions = read_descriptions(workspace)
    train, held = (
        [t for plan in plans for t in part_texts(workspace, plan, descriptions)[i]] for i in (0, 1)
    )
    assert len(held) == 2
    assert sorted(train + held) == sorted(corpus_texts(workspace, settings()))
    other = [p.held.tolist() for s in range(9) for p in plan_parts(workspace, settings(held_out=0.4, seed=s))]
    assert len({str(rows) for rows in other}) > 2, "the draw depends on the seed"
    assert [p.held.tolist() for p in plans] == [p.held.tolist() for p in plan_parts(workspace, chosen)]


def test_a_part_holds_its_texts_token_by_token(workspace: Workspace, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    chosen = settings(held_out=0.2)
    worker = BlockWorker(workspace.root.uri, str(tmp_path / "tokenizer"), chosen)
    plans = named_plans(workspace, plan_parts(workspace, chosen))
    counts = {name: worker(plan) for name, plan in plans.items()}
    parts = block_parts(workspace, chosen)
    assert parts.finished() == counts
    descriptions = read_descriptions(workspace)
    for name, plan in plans.items():
        blocks, held = (np.load(parts.file(name, suffix).path) for suffix in (".npy", ".held.npy"))
        texts, apart = part_texts(workspace, plan, descriptions)
        assert blocks.dtype == np.uint16
        assert (blocks[:, 0] == tokenizer.bos_token_id).all()
        flat = blocks[:, 1:].ravel()
        kept = flat[flat != pad_of(flat.dtype)]
        assert tokenizer.decode(kept) == "".join(texts)
        assert tokenizer.decode(held) == "".join(apart)
        assert counts[name] == BlockCounts(
            sentences=len(plan.rows),
            descriptions=len(plan.described),
            held_out=len(apart),
            blocks=len(blocks),
            tokens=len(kept),
            padding=len(flat) - len(kept),
        )
    for suffix, name in zip((".npy", ".held.npy"), plans, strict=True):
        file = parts.file(name, suffix)
        file.write_bytes(file.read_bytes()[:-1])
        assert name not in parts.finished(), "what was cut is made again"


def test_a_part_keeps_its_name_until_what_it_is_made_from_changes(
    workspace: Workspace, tmp_path: Path
) -> None:
    def names(sentences: dict[str, list[str]], described: dict[str, str]) -> list[str]:
        source = ultrawiki(tmp_path / "again", sentences, ent2text=described)
        run_import(tmp_path / "w", source, "ultrawiki", overwrite=True)
        return list(named_plans(workspace, plan_parts(workspace, settings())))

    before = list(named_plans(workspace, plan_parts(workspace, settings())))
    assert names(SENTENCES, DESCRIBED) == before
    more = names(SENTENCES | {"tin": [*SENTENCES["tin"], "Tin again."]}, DESCRIBED)
    assert (more[:2], len(more)) == (before, 3), "the second part is full"
    other = names(SENTENCES | {"gold": [SHARED, "The gold glows."]}, DESCRIBED)
    assert (other[0], other[1] == before[1]) == (before[0], False)
    told = names(SENTENCES, DESCRIBED | {"iron": "iron: no metal."})
    assert (told[0] == before[0], told[1]) == (False, before[1])


def test_a_node_with_another_tokenizer_says_so(workspace: Workspace, tmp_path: Path) -> None:
    tiny_tokenizer(300).save_pretrained(tmp_path / "tokenizer")
    assert load_tokenizer(tmp_path / "tokenizer").is_fast
    with pytest.raises(UserError, match="another tokenizer"):
        BlockWorker(workspace.root.uri, str(tmp_path / "tokenizer"), settings())


@given(
    lengths=st.lists(st.integers(0, 60), max_size=4),
    block=st.integers(8, 20),
    begin=st.sampled_from([None, 0]),
    vocabulary=st.sampled_from([300, 65_535, 65_536, 200_000]),
)
def test_no_token_is_lost_or_made_up_by_packing(
    lengths: list[int], block: int, begin: int | None, vocabulary: int
) -> None:
    chosen = settings(block=block, vocab_size=vocabulary)
    flat = [np.arange(n) * 977 % (vocabulary - 1) + 1 for n in lengths]
    flat = [tokens.astype(chosen.dtype) for tokens in flat]
    data = TokenBlocks([pack(tokens, chosen, begin) for tokens in flat])
    room = block - (begin is not None)
    assert len(data) == sum(-(-n // room) for n in lengths)
    if not len(data):
        return
    rows = np.arange(len(data))
    ids, targets = data.gather(rows)
    assert ids.shape == targets.shape == (len(data), block)
    wanted = targets != IGNORED
    assert data.count_targets(rows) == int(wanted.sum())
    # A target is the next input; with a begin token the targets are all tokens, in order.
    assert (targets[:, :-1][wanted[:, :-1]] == ids[:, 1:][wanted[:, :-1]]).all()
    assert not wanted[:, -1].any()
    if begin is not None:
        assert targets[wanted].tolist() == np.concatenate(flat).tolist()
        assert (ids[:, 0] == begin).all()


def test_settings_make_the_key() -> None:
    keys = {settings(**c).key("d") for c in ({}, {"block": 9}, {"held_out": 0.1}, {"descriptions": False})}
    assert len(keys) == 4
    assert settings().key("d") != settings().key("e")


def test_a_context_without_a_sentence_is_not_read(tmp_path: Path) -> None:
    rows = [
        {"entity": "iron", "image": "a.png"},
        {"entity": "iron", "sentence": "Iron."},
        {"entity": "tin", "image": "b.png"},
    ]
    run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", rows), "jsonl")
    workspace = Workspace.open(tmp_path / "w")
    assert list(corpus_texts(workspace, settings())) == ["Iron.\n"]
    [plan] = plan_parts(workspace, settings(held_out=0.5))
    assert (plan.rows.tolist(), plan.held.tolist()) == ([1], [])


def test_a_corpus_that_has_grown_keeps_what_is_held_out_and_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.corpus.importing.writer.PART_ROWS", 10)
    chosen = settings(held_out=0.1)

    def planned(first: int, last: int, **adding: bool) -> tuple[set[str], set[str]]:
        rows = [{"entity": "iron", "sentence": f"Iron of day {day}."} for day in range(first, last)]
        run_import(tmp_path / "w", jsonl(tmp_path / f"{first}.jsonl", rows), "jsonl", **adding)
        grown = Workspace.open(tmp_path / "w")
        plans = named_plans(grown, plan_parts(grown, chosen))
        held = {text for plan in plans.values() for text in part_texts(grown, plan, [""])[1]}
        return set(plans), held

    names, held = planned(0, 100)
    more, still = planned(100, 110, append=True)
    assert (len(held), len(still)) == (10, 11)
    others = still - held
    assert len(held - still) == len(others) - 1
    assert len(names - more) <= len(others | (held - still)), "a part anew for each that changes side"
    assert len(more) == 11
