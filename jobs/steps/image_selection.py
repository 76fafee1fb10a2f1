"""Choose an image for every record of a table, part by part (equation 1 of the MESED paper)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from engine.errors import FormatError
from engine.images.fetch import ImageFiles, check_seen, there_after_all
from engine.images.selection.results import SelectionFolder, SelectionManifest, SelectionWorker
from engine.images.selection.settings import SelectionSettings
from engine.models.fingerprint import model_fingerprint
from engine.models.hub import NamedModel
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console
from jobs.steps.unknown_tokens import SAMPLED_PARTS, SAMPLED_ROWS, check_words
from jobs.workers.executor import Executor, given_or_auto, make_parts

ANOTHER_CLIP = "a CLIP of the sentences' language"


def choose_images(
    table: str,
    output: str,
    settings: SelectionSettings,
    overwrite: bool = False,
    executor: Executor | None = None,
) -> tuple[SelectionManifest, Counter[str], int]:
    """Choose an image for every record of a table; parts that are there already are kept.

    Args:
        table: a file of JSON lines or Parquet, see :mod:`engine.images.selection.table`.
        output: a folder or an s3:// prefix, see :mod:`engine.images.selection.results`.
        settings: models and alpha.
        overwrite: replace another choice in ``output``.
        executor: where the models run; None: an :class:`AutoExecutor`.

    Returns:
        What was asked, the counts of all parts, and how many parts this run made.

    Raises:
        StorageError: another choice is in ``output``, there is no table, or a bucket cannot be used.
        FormatError: the table is cut off or broken, or holds no record that can be used.
        UserError: a model cannot be loaded, CLIP's tokenizer knows less than half of the sentences, or a
            worker does not see images that are there.
    """
    source, folder = Store.open(table), SelectionFolder(Store.open(output))
    named = settings.model_dump(include={"clip", "detector", "vision"}, exclude_none=True)
    models = {option: model_fingerprint(name, f"--{option}") for option, name in named.items()}
    with console.meter("reading, records") as meter:
        wanted = folder.begin(source, settings, overwrite, meter.add, models)
    if not wanted.records:
        raise FormatError(
            f"{source.uri}: no usable record in it ({wanted.refused} refused, see {output}/quarantine); "
            "see --help for the columns"
        )
    _check_sentences(folder, wanted)
    files = ImageFiles(Workspace(folder.folder))
    _leave_out_parts_without_images(folder, files)
    with given_or_auto(executor, folder.folder) as executor:
        made = make_parts(
            folder.parts,
            wanted.tasks(),
            SelectionWorker,
            (folder.folder.uri, settings),
            executor,
            label="records",
            size=wanted.records_of,
            gpu=True,
            check=lambda: check_seen(files, _missing_images(folder)),
        )
    return wanted, folder.finish(made.parts.values()), made.made


def _check_sentences(folder: SelectionFolder, wanted: SelectionManifest) -> None:
    """Say how much of a sample of the sentences CLIP's tokenizer does not know; see :func:`check_words`."""
    named = NamedModel.open(wanted.settings.clip, "--clip")
    texts = folder.sampled_sentences(wanted, SAMPLED_PARTS, SAMPLED_ROWS)
    check_words(texts, named.fast_tokenizer(), named.label, ANOTHER_CLIP)


def _missing_images(folder: SelectionFolder) -> Iterator[str]:
    """Yield the missing images of the parts that are there: of one to be made again, the list is old."""
    for part in folder.parts.names():
        yield from folder.missing_images(part)


def _leave_out_parts_without_images(folder: SelectionFolder, files: ImageFiles) -> None:
    """Remove parts whose missing images have come since, so that they are made again."""
    for part in folder.parts.names():
        if any(there_after_all(files, folder.missing_images(part))):
            console.say(f"part {part}: images that were missing are there now; it is made again")
            folder.parts.file(part).delete()
