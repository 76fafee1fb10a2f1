"""Label mentions for a typing model, from a few seeds of each type: co-expansion (SEType's idea).

Everything runs in this process: a query a type, and the mentions of what it finds.
"""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import Field

from cluster.commandline import command
from cluster.methods import LIST_METHODS, METHOD_NAME, Changes, MethodSettings, pipelines
from cluster.options import CommandSettings, declared
from engine.corpus.inputs.format import open_inputs
from engine.query import MAX_SEEDS
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.typing.seeds import read_seeds
from jobs import console

EXAMPLES = """
  seedset label-mentions --workspace work --seeds seeds.json --output weak
  seedset label-mentions --workspace work --seeds seeds.json --output weak --method retexpan --top 30
  seedset evaluate-typing --workspace work --test test.json --train weak
  seedset train-typing --workspace work --data weak --model newest --label-weight 1 --epochs 14
"""


class LabelMentionsSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix that holds the corpus and the bundle.")
    seeds: str = Field(
        description="JSON file of {type: [entity names]}: two types or more, with one name or more each."
    )
    output: str = Field(description="Write the labelled mentions into this folder or s3:// prefix.")
    method: Annotated[str, METHOD_NAME] = Field(default="default", description="Expand types by this method.")
    set: Changes = declared(MethodSettings, "set")
    top: int = Field(
        default=10, ge=1, le=1000, description="Give a type to this many entities of its list at most."
    )
    mentions_per_entity: int = Field(
        default=2,
        ge=1,
        description="Draw this many mentions of an entity at most, from the sentences that encoders read.",
    )
    negative_seeds: int = Field(
        default=MAX_SEEDS,
        ge=0,
        le=MAX_SEEDS,
        description="Expand a type with this many seeds of the other types as negative seeds at most; where "
        "there are more they are drawn, as many of each type as of any other.",
    )
    seed: int = Field(default=0, ge=0, description="Draw negative seeds and mentions by this seed.")
    bundle: str | None = Field(
        default=None, description="Use the bundle of this id.  [default: the current one]"
    )
    overwrite: bool = Field(default=False, description="Replace other labelled mentions in --output.")


@command(EXAMPLES, actions=[LIST_METHODS])
def main(settings: LabelMentionsSettings) -> None:
    """Label mentions to train a typing model on, from a few seeds of each type, by expanding these.

    Each type's seeds are expanded, with seeds of the other types as negative seeds. An entity of several
    lists goes to the type where it ranks best; where two ranks are the same or nearly so, to none. Seeds keep
    their own type. The file of seeds looks like {"city": ["Oslo", "Rome"], "person": ["Ada Lovelace"]}.

    Mentions of what has a type are written as train.jsonl, which train-typing and evaluate-typing read as it
    is (--data, --weak, --train), beside it types.txt, and entities.parquet: which entity got which type, by
    which rank. "to others" and "ties" count the places of each list that went to another one, or to none.
    """
    from jobs.steps.label_mentions import LabelsManifest, check_output, label_mentions
    from jobs.steps.read_sentences import check_bundle_of_corpus

    started = time.monotonic()
    workspace, output = Workspace.open(settings.workspace), Store.open(settings.output)
    pipeline = pipelines([settings.method], settings.set)[settings.method]
    bundle = Bundle.open(workspace, settings.bundle)
    check_bundle_of_corpus(workspace, bundle, "whose mentions are labelled")
    inputs, file = open_inputs(workspace), Store.open(settings.seeds)
    seeds = read_seeds(file, bundle.vocabulary)
    about = LabelsManifest(
        bundle=bundle.id,
        inputs=inputs.key,
        pipeline=str(pipeline),
        seeds_digest=file.sha256(),
        top=settings.top,
        mentions_per_entity=settings.mentions_per_entity,
        negative_seeds=settings.negative_seeds,
        seed=settings.seed,
    )
    check_output(output, about, settings.overwrite)
    found = label_mentions(workspace, bundle, pipeline, inputs, seeds, about, output)
    header = ["type", "seeds", "entities", "mentions", "to others", "ties"]
    console.console.print(console.table("entities of each list", header, found.rows()))
    console.say(f"labelled mentions: {output.uri}")
    shares = found.shares.values()
    console.result(
        types=len(seeds),
        seeds=sum(one.seeds for one in shares),
        entities=sum(one.kept for one in shares),
        mentions=sum(found.mentions.values()),
        to_others=sum(one.to_others for one in shares),
        ties=sum(one.ties for one in shares),
        without_sentence=found.without_sentence,
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    main.run()
