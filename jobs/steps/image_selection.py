"""Choose an image for every record of a table, part by part (equation 1 of the MESED paper)."""

from __future__ import annotations

from collections import Counter

from engine.errors import FormatError
from engine.images.selection.results import SelectionFolder, SelectionManifest, SelectionWorker
from engine.images.selection.settings import SelectionSettings
from engine.models.fingerprint import model_fingerprint
from engine.storage.store import Store
from jobs import console
from jobs.workers.executor import Executor, given_or_auto, make_parts


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
        UserError: a model cannot be loaded.
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
        )
    return wanted, folder.finish(made.parts.values()), made.made
