"""Build the views of a bundle: the vectors of each entity, one builder a view.

A builder reads the sources, and what builders before it made, and adds its view. A new view is a new
builder in :data:`BUILDERS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from engine.attributes import TYPE
from engine.corpus.inputs.masking import load_tokenizer
from engine.entity_types import VIEW as TYPES_VIEW
from engine.models.fingerprint import model_fingerprint
from engine.models.text import TextEncoder
from engine.retrieval.discriminant import DISCRIMINANT, Discriminant, Sides, discriminant
from engine.retrieval.distributions import distributions_folder
from engine.retrieval.entity_sentences import CONTRAST
from engine.retrieval.index import Vectors, hubness_file
from engine.retrieval.mention_states import PROBING
from engine.retrieval.skipgrams import SKIPGRAMS
from engine.retrieval.views import ViewPart, centred, hubness, joint_rows, joint_view
from engine.training.cache import FrozenCache
from engine.training.contrast_lists import MinedLists
from engine.training.multimodal_data import image_view
from engine.training.text_head import HEAD
from jobs import console
from jobs.steps.contrast_view import contrast_view
from jobs.steps.description_view import description_view
from jobs.steps.encoder_training import trained_encoder
from jobs.steps.entity_types import has_own_types, typed_entities
from jobs.steps.frozen_cache import frozen_cache
from jobs.steps.lexical_view import lexical_view
from jobs.steps.mask_view import mask_view, sentence_map
from jobs.steps.masked_lm import masked_lm, mean_states, mention_states
from jobs.steps.multimodal_views import TextSource, ViewSource, multimodal_view, text_distributions
from jobs.steps.skipgrams import skipgrams
from jobs.steps.view_builder import Builder, BuiltViews, MentionReader, Sources
from jobs.workers.encoder import CONTRAST_JOB, MULTIMODAL_JOB

TYPES_WEIGHT = 0.5
"""Weight of the view of types in the joint one, where another has 1."""

ADAPTED = "adapted"
"""The view of mentions' mean states by the encoder after its training as a masked language model."""

STATE_WEIGHT = 2**0.5
"""Weight of the multi-modal view in the joint one, where a text view has 1: it is two modalities."""


def build_mask(sources: Sources, made: BuiltViews) -> None:
    """Add the mask view, the unit means of the mask representations: "mask"."""
    encoder = sources.encoders.of_mask_view
    made.add("mask", _mask_view("mask", encoder, sources.cache, sources))
    if sources.trained is not None:
        made.read_mentions = MentionReader(encoder, sources.cache)


def _mask_view(name: str, encoder: str, cache: FrozenCache, sources: Sources) -> Vectors:
    n_entities = len(sources.descriptions)
    return mask_view(name, encoder, cache, sources.workspace, n_entities, sources.executor)


def build_text_distributions(sources: Sources, made: BuiltViews) -> None:
    """Add what the trained text encoder's head predicts of each entity, the distributions of "mask"."""
    trained = sources.trained
    if trained is None or not sources.distributions:
        return
    if not (trained.folder / HEAD).exists():
        console.say(
            f"the text encoder {trained.name} was trained by a version that kept no head, so that there are "
            "no distributions of the text, for `--method probexpan`; `seedset train-encoder --restart` makes "
            "one"
        )
        return
    if not trained.is_of_corpus(sources.workspace):
        console.say(
            f"the text encoder {trained.name} was trained on another corpus (or its model input "
            f"{trained.inputs_key} is gone), so that there are no distributions of the text, for `--method "
            "probexpan`; `seedset train-encoder` makes an encoder for them"
        )
        return
    source = TextSource(trained, sources.cache, sources.temperature)
    folder = made.staged / distributions_folder("mask")
    text_distributions(source, len(sources.descriptions), sources.executor, folder)
    made.settings["text_distributions"] = {"trained": trained.name, "temperature": sources.temperature}


def build_description(sources: Sources, made: BuiltViews) -> None:
    """Add the unit vectors of the descriptions, "description"; zeros where there is none."""
    texts = sources.descriptions
    made.add(
        "description", description_view(sources.workspace, sources.encoders.base, texts, sources.executor)
    )


def build_lexical(sources: Sources, made: BuiltViews) -> None:
    """Add the lexical view, of each entity's description and sentences: "lexical"."""
    view = lexical_view(sources.workspace, sources.executor)
    if view.wordless:
        console.say(
            f"lexical view: {view.wordless} of {len(view.vectors)} entities have texts, but no word that "
            "another entity has too; they get no vector in it"
        )
    made.add("lexical", view.vectors)


def build_skipgrams(sources: Sources, made: BuiltViews) -> None:
    """Add the context features of SetExpan and CaSE, which are no vectors: a folder of their own."""
    n_entities, folder = len(sources.descriptions), made.staged / SKIPGRAMS
    skipgrams(sources.workspace, n_entities, sources.executor, folder)


def build_multimodal(sources: Sources, made: BuiltViews) -> None:
    """Add "image" and "multimodal", and predicted distributions, where an encoder was trained for them."""
    trained = trained_encoder(sources.workspace, MULTIMODAL_JOB)
    if trained is None:
        return
    inputs, n_entities = sources.cache.inputs, len(sources.descriptions)
    if trained.inputs_key != inputs.key:
        console.say(
            f"the multi-modal encoder {trained.name} was trained on other inputs than {inputs.key} and "
            "is left out; train it again on these"
        )
        return
    trained.check_model()
    # The states that it was trained on: the text encoder may be another one.
    cache = frozen_cache(sources.workspace, inputs, trained.model, executor=sources.executor)
    source = ViewSource(sources.workspace.root.uri, trained, cache, trained.modality, sources.temperature)
    folder = made.staged / distributions_folder("multimodal")
    made.add("multimodal", multimodal_view(source, n_entities, sources.executor, folder))
    contexts = source.contexts()
    made.add("image", centred(image_view(contexts, n_entities)))
    made.refused_images = contexts.features.refused
    made.settings["multimodal"] = {
        "trained": trained.name,
        "modality": trained.modality,
        "features": trained.features,
        "temperature": sources.temperature,
    }


def build_masked_lm(sources: Sources, made: BuiltViews) -> None:
    """Add "adapted", and what CGExpan asks (the model, every mention's state), where they are wanted."""
    use = sources.masked_lm
    if not (use.adapt or use.class_names):
        return
    base = sources.encoders.base
    made.settings["masked_lm"] = asdict(use)
    model = masked_lm(sources.workspace, base, use)
    asked = sources.cache, model, len(sources.descriptions), sources.executor
    if not use.class_names:
        made.add(ADAPTED, centred(mean_states(*asked)))
        return
    folder = made.staged / PROBING
    mentions = mention_states(*asked, folder / "mentions")
    if use.adapt:
        made.add(ADAPTED, centred(mentions.means()))
    model.load().save_pretrained(folder / "model")
    load_tokenizer(base).save_pretrained(folder / "model")


def build_contrast(sources: Sources, made: BuiltViews) -> None:
    """Add "contrast", the mask view by the encoder of the contrastive training.

    Where that has learnt to read seeds, add what reads sentences with a query's seeds appended, too.
    """
    trained = trained_encoder(sources.workspace, CONTRAST_JOB)
    if trained is None:
        return
    inputs = sources.cache.inputs
    if not trained.reads(sources.workspace, inputs):
        console.say(
            f"the contrastive training {trained.name} was made on other inputs than {inputs.key}, so that "
            "there is no view of it; run `seedset train-encoder --contrast newest` again on these"
        )
        return
    trained.check_model()
    made.settings[CONTRAST] = {"trained": trained.name, "lists": trained.lists}
    cache = frozen_cache(sources.workspace, inputs, trained.model, executor=sources.executor)
    made.read_mentions = MentionReader(trained.folder.uri, cache)
    if not trained.seed_text:
        made.add(CONTRAST, _mask_view(CONTRAST, trained.folder.uri, cache, sources))
        return
    n_entities, folder = len(sources.descriptions), made.staged / CONTRAST
    made.add(
        CONTRAST,
        contrast_view(
            sources.workspace, trained.folder.uri, cache, n_entities, sources.executor, folder / "sentences"
        ),
    )
    TextEncoder.load(trained.folder.uri).save(folder / "encoder")
    load_tokenizer(trained.folder.uri).save_pretrained(folder / "encoder")


def build_types(sources: Sources, made: BuiltViews) -> None:
    """Add the types of every entity, and "types", the view of what the typing model read, where wanted."""
    if sources.types is None:
        return
    inputs, n_entities = sources.cache.inputs, len(sources.descriptions)
    typed = typed_entities(sources.workspace, inputs, sources.types, n_entities, sources.executor)
    if has_own_types(sources.workspace):
        console.say(
            f"types: the corpus has an attribute {TYPE!r} of its own, which entities are filtered by as "
            "before; what the typing model found is in words, in the view and in `retexpan+types`"
        )
    made.add(TYPES_VIEW, typed.view)
    made.settings["types"] = {"model": sources.types, "fingerprint": model_fingerprint(sources.types)}
    typed.write(made.staged)


def build_joint(sources: Sources, made: BuiltViews) -> None:
    """Add the views before it side by side, "joint", and its hubness."""
    parts = _joined(sources, made)
    shape = len(sources.descriptions), sum(part.vectors_ND.shape[1] for part in parts)
    blocks = joint_view(parts)
    if (told_apart := _discriminant(sources.lists, parts, made)) is not None:
        blocks = map(told_apart.apply, blocks)
    made.add_rows("joint", blocks, shape)
    np.save(made.staged / hubness_file("joint"), hubness(made.views["joint"]), allow_pickle=False)


def _discriminant(
    lists: MinedLists | None, parts: Sequence[ViewPart], made: BuiltViews
) -> Discriminant | None:
    """Return what seeds of mined lists tell apart in the joint view; None without lists, or with images."""
    if lists is None:
        return None
    if "multimodal" in made.views:
        console.say(f"the joint view with images is made without the seeds of the lists {lists.key}")
        return None
    made.settings[DISCRIMINANT] = {"lists": lists.key}
    sides = [Sides(one.positive, one.negative) for one in lists.read(len(parts[0].vectors_ND))]
    seeds = np.unique(np.concatenate([ids for query in sides for ids in query]).astype(np.int64))
    places = [Sides(*(np.searchsorted(seeds, ids).astype(np.int32) for ids in query)) for query in sides]
    return discriminant(joint_rows(parts, seeds), places)


def _joined(sources: Sources, made: BuiltViews) -> list[ViewPart]:
    """Return the joint view's parts: views of the text, and the multi-modal view with equal weight."""
    views = made.views
    # What contrast was trained on tells attributes apart that entity prediction alone does not.
    mask = ViewPart.centred(views.get(CONTRAST, views["mask"]), _sentence_map(sources, made))
    texts = [ViewPart.centred(views["description"]), ViewPart(views["lexical"])]
    if "multimodal" not in views:
        types = [ViewPart(views[TYPES_VIEW], factor=TYPES_WEIGHT)] if TYPES_VIEW in views else []
        # Both read the same mentions: together they are as long as one view.
        both = (mask, ViewPart(views[ADAPTED])) if ADAPTED in views else ()
        return [*(one.times(0.5**0.5) for one in both), *([] if both else [mask]), *texts, *types]
    if left_out := [name for name in (ADAPTED, TYPES_VIEW) if name in views]:
        console.say(f"the joint view with images is made without {' and '.join(left_out)}")
    multimodal = ViewPart(views["multimodal"])
    if made.settings["multimodal"]["modality"] == "image":
        return [multimodal]
    # The state is trained on the same texts: a mask view that is not trained would only add noise to it.
    texts = [*([mask] if sources.trained or CONTRAST in views else []), *texts]
    return [
        *(text.with_unit_similarity_std() for text in texts if text.vectors_ND.any()),
        multimodal.with_unit_similarity_std().times(STATE_WEIGHT),
    ]


def _sentence_map(sources: Sources, made: BuiltViews) -> Vectors | None:
    """Return the map by which the joint view reads mentions; None where what it brings was not measured."""
    if made.read_mentions is None or "multimodal" in made.views or ADAPTED in made.views:
        return None
    return sentence_map(*made.read_mentions, sources.executor)


BUILDERS = (
    Builder(build_mask),
    Builder(build_text_distributions, "text_distributions"),
    Builder(build_description),
    Builder(build_lexical),
    Builder(build_skipgrams),
    Builder(build_multimodal, "multimodal"),
    Builder(build_masked_lm, "masked_lm"),
    Builder(build_contrast, CONTRAST),
    Builder(build_types, "types"),
    Builder(build_joint, DISCRIMINANT),
)
"""Builders in order: one may read the views of those before it."""

OWN_SETTINGS = tuple(builder.setting for builder in BUILDERS if builder.setting)
"""What builders may say in a manifest: what none says of a bundle is not taken from the one before it."""
