"""Small bundles for tests, made through the same doors as real ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.catalogue.sentences import SENTENCES
from engine.corpus.inputs.masking import MentionMasker, load_tokenizer
from engine.corpus.schema import MENTION_SCHEMA
from engine.entity_types import TYPES, EntityTypes
from engine.generation.model import LanguageModel
from engine.generation.names import name_trie
from engine.models.mask_states import mask_states
from engine.models.seed_tokens import with_seed_tokens
from engine.models.text import TextEncoder
from engine.retrieval.code_building import make_codes, write_codes
from engine.retrieval.codes import codes_file
from engine.retrieval.distributions import EntityDistributions, distributions_folder
from engine.retrieval.entity_sentences import CONTRAST, EntitySentences
from engine.retrieval.index import VectorIndex, index_file, map_hubness, read_vectors, unit, views_of
from engine.retrieval.mention_states import PROBING, MentionStates
from engine.retrieval.skipgrams import SKIPGRAMS, SkipGrams
from engine.stages.type_mentions import TYPING
from engine.storage.bundle import Bundle
from engine.storage.publishing import publish
from engine.storage.workspace import Workspace
from engine.typing.model import TypingModel
from engine.vocabulary import ENTITY_SCHEMA, REMOVED
from tests.support.encoders import write_encoder, write_masked_lm
from tests.support.language_models import tiny_model


def write_entities(
    path: Path,
    names: Sequence[str],
    aliases: Mapping[str, list[str]] | None = None,
    descriptions: Sequence[str] | None = None,
    attributes: Sequence[Mapping[str, list[str]]] | None = None,
    removed: Collection[int] = (),
) -> None:
    """Write an entity table with these names, in order; those of the ids ``removed`` have been removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "entity_id": range(len(names)),
        "name": names,
        "aliases": [(aliases or {}).get(name, []) for name in names],
        "description": [*descriptions] if descriptions else [None] * len(names),
        "attributes": [list(one.items()) for one in attributes or [{}] * len(names)],
    }
    table = pa.table(columns, schema=ENTITY_SCHEMA)
    if removed:
        table = table.append_column(REMOVED, pa.array([i in removed for i in range(len(names))]))
    pq.write_table(table, path)


def write_mentions(path: Path, names: Sequence[str], texts: Sequence[str]) -> None:
    """Write sentences as a bundle holds them: each text, with an entity's name for {}, without an image."""
    rows = [
        {
            "entity_id": i,
            "sentence": text.format(name),
            "start": text.index("{}"),
            "end": text.index("{}") + len(name),
            "image": None,
        }
        for i, name in enumerate(names)
        for text in texts
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=MENTION_SCHEMA), path, row_group_size=100)


def write_distributions(
    staged: Path, view: str, dense: np.ndarray, logs: np.ndarray | None = None, kept: int = 256
) -> None:
    """Write the distributions [N, N] of a view into a staged folder, and the means of their logarithms.

    Without these, as if each entity had one context.
    """
    logs = np.log(np.maximum(dense, 1e-30)) if logs is None else logs
    EntityDistributions.of(dense, logs, kept).write(staged / distributions_folder(view))


def random_skipgrams(n: int, seed: int = 0, features: int = 200, pairs_each: int = 12) -> SkipGrams:
    """Return the skip-grams of n entities, each met in some of few contexts, drawn at random."""
    random = np.random.default_rng(seed)
    hashes = np.sort(random.integers(0, 2**63, features, np.uint64))
    owners = np.repeat(np.arange(n), pairs_each).astype(np.int32)
    counts = random.integers(1, 5, len(owners)).astype(np.int32)
    return SkipGrams.collect(owners, random.choice(hashes, len(owners)), counts, n)


def write_skipgrams(staged: Path, n: int, seed: int = 0) -> None:
    """Write :func:`random_skipgrams` into a staged folder."""
    random_skipgrams(n, seed).write(staged / SKIPGRAMS)


def write_probing(staged: Path, n: int, d: int, seed: int = 0, mentions: int = 6) -> None:
    """Write a masked language model of random weights, and random states of n entities' mentions."""
    write_masked_lm(staged / PROBING / "model", d, seed)
    states = unit(np.random.default_rng(seed).normal(size=(n * mentions, d))).astype(np.float16)
    MentionStates(np.arange(0, n * mentions + 1, mentions), states).write(staged / PROBING / "mentions")


def contrast_sentences(entity: int) -> list[str]:
    """Return two to six sentences with {} for the entity's name, of words drawn for this entity."""
    random = np.random.default_rng(entity)
    words = ["".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), 5)) for _ in range(3)]
    return [f"Was {{}} {' '.join(random.permutation(words))} {place}?" for place in range(2 + entity % 5)]


def write_contrast(staged: Path, names: Sequence[str], d: int, seed: int = 0) -> None:
    """Write what conditioned retrieval reads: sentences, and an encoder of states [d] that knows seeds."""
    folder = staged / CONTRAST / "encoder"
    write_encoder(folder, d, seed)
    encoder, tokenizer = with_seed_tokens(TextEncoder.load(str(folder)), load_tokenizer(folder))
    encoder.save(folder)
    tokenizer.save_pretrained(folder)
    texts = [(i, text) for i in range(len(names)) for text in contrast_sentences(i)]
    inputs = MentionMasker(tokenizer, 64).encode(
        [text.format(names[i]) for i, text in texts],
        [text.index("{}") for _, text in texts],
        [text.index("{}") + len(names[i]) for i, text in texts],
    )
    ids, masks = [np.array(one.input_ids, np.int32) for one in inputs], [one.mask_index for one in inputs]
    states = mask_states(encoder, ids, masks)
    own = np.array([i for i, _ in texts])
    sentences = EntitySentences.of(len(names), own, ids, np.array(masks), states)
    sentences.write(staged / CONTRAST / "sentences")


def publish_vectors(
    workspace: Workspace,
    names: Sequence[str],
    views: Mapping[str, np.ndarray],
    hubness: Mapping[str, np.ndarray] | None = None,
    model: LanguageModel | None = None,
    more: Callable[[Path], None] = lambda staged: None,
) -> Bundle:
    """Publish a bundle whose views hold the given vectors [len(names), D], normalised.

    With a language model it also holds that and the trie of the names. ``more`` adds to the staged folder.
    """
    staged = workspace.bundles.staging()
    write_entities(staged / "entities.parquet", names)
    for view, vectors in views.items():
        VectorIndex(unit(vectors)).write(staged / "index" / f"{view}.faiss")
    for view, penalty in (hubness or {}).items():
        np.save(staged / "index" / f"{view}.hubness.npy", penalty.astype(np.float32))
    if model is not None:
        model.model.save_pretrained(staged / "lm")
        model.tokenizer.save_pretrained(staged / "lm")
        name_trie(model.tokenizer, names).save(staged / "trie")
    more(staged)
    publish(workspace, staged, {"views": sorted(views)})
    return Bundle.open(workspace)


def random_bundle(root: Path, n: int = 500, d: int = 16, seed: int = 0) -> Bundle:
    """Publish n entities ("entity 0" …) with random vectors under every view that a method reads."""
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    names = [f"entity {i}" for i in range(n)]
    return publish_vectors(Workspace.open(root), names, {"mask": vectors, "best": vectors})


SENTENCES_OF_EACH = ("Once {} was here.", "Some say that {} is like the others.", "{} and no end.")


def random_types(n: int, seed: int = 0, kinds: int = 12) -> EntityTypes:
    """Return types of n entities, three each at random; none holds, so that there is no attribute of them."""
    random = np.random.default_rng(seed)
    types = np.concatenate([random.choice(kinds, 3, replace=False) for _ in range(n)])
    sure = random.uniform(0.1, 0.45, 3 * n)
    names = [f"kind {i}" for i in range(kinds)]
    return EntityTypes.collect(names, np.repeat(np.arange(n), 3), types, sure, np.ones(n, np.int64))


def write_typing(staged: Path, d: int, seed: int = 0) -> None:
    """Write a typing model of random weights into a staged folder."""
    folder = staged / TYPING
    write_encoder(folder, d, seed)
    model = TypingModel.begin(str(folder), ["metal", "person", "ore", "noble_metal"], seed=seed)
    model.save(folder)


def method_bundle(
    root: Path,
    n: int = 500,
    d: int = 16,
    seed: int = 0,
    names: Sequence[str] = (),
    attributes: Sequence[Mapping[str, list[str]]] = (),
    removed: Collection[int] = (),
) -> Bundle:
    """Publish n entities, or those named, with all that methods and pages read, at random.

    Views with hubness, predicted distributions, a language model, an encoder of states [d], descriptions,
    three sentences each, and the attributes "class" ("rare" the first tenth, then "common") and "parity"
    ("even" or "odd", by id), or the given ones. Those of the ids ``removed`` have been removed.
    """
    n = len(names) or n
    random = np.random.default_rng(seed)
    named = ("mask", "description", "lexical", "joint", "image", "multimodal")
    views = {name: random.normal(size=(n, d)) for name in named}
    views["contrast"] = np.random.default_rng(seed + 1).normal(size=(n, d))
    names = names or [f"entity {i}" for i in range(n)]

    def more(staged: Path) -> None:
        kinds = attributes or [
            {"class": ["rare" if 10 * i < n else "common"], "parity": [("even", "odd")[i % 2]]}
            for i in range(n)
        ]
        about = [f"The {('even', 'odd')[i % 2]} one of number {i}." for i in range(n)]
        write_entities(
            staged / "entities.parquet", names, descriptions=about, attributes=kinds, removed=removed
        )
        write_mentions(staged / SENTENCES, names, SENTENCES_OF_EACH)
        write_encoder(staged / "encoder", d, seed)
        for number, view in enumerate(("multimodal", "mask")):
            dense = np.random.default_rng(seed + number).dirichlet(np.full(n, 0.1), n)
            write_distributions(staged, view, dense)
        write_skipgrams(staged, n, seed)
        write_probing(staged, n, d, seed)
        write_contrast(staged, names, d, seed)
        random_types(n, seed).write(staged / TYPES)
        write_typing(staged, d, seed)

    hubs = {"joint": random.random(n)}
    return publish_vectors(Workspace.open(root), names, views, hubs, tiny_model(), more)


def add_codes(bundle: Bundle, kind: str, probes: int) -> None:
    """Put codes of that kind beside each view of a bundle that was published; ``probes`` lists are read."""
    for view in views_of(bundle.manifest):
        path = bundle.path(index_file(view))
        codes = make_codes(read_vectors(path), map_hubness(path), kind)
        codes.set_probes(probes)
        write_codes(codes, bundle.folder / codes_file(view))
