"""List the bundles of a workspace, or choose the one that is served.

``seedset bundles --workspace W``
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings
from engine.corpus.schema import is_of_former_corpus
from engine.errors import BundleError, StorageError, UserError
from engine.retrieval.index import views_of
from engine.storage.bundle import MANIFEST, Manifest, current_id, listing
from engine.storage.manifests import origin_of
from engine.storage.publishing import point_to
from engine.storage.workspace import Workspace

EXAMPLES = """
  seedset bundles --workspace demo-workspace/workspace
  seedset bundles --workspace demo-workspace/workspace --versions
  seedset bundles --workspace s3://bucket/prefix --use 0123456789abcdef
"""


class BundlesSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix with bundles.")
    versions: bool = Field(
        default=False,
        description="List which versions of the program and of libraries made all that is there, the corpus "
        "and what is made of it too.",
    )
    use: str | None = Field(default=None, description="Serve the bundle of this id from now on.")


@command(EXAMPLES)
def main(settings: BundlesSettings) -> None:
    """List the bundles of a workspace, newest first, the current one marked with *; or choose another.

    Jobs that publish a bundle make it the current one. A served application follows the current bundle
    within seconds, unless it was started with a bundle of its own. So --use with the id of the bundle
    before takes a publication back. Every byte of a bundle is checked before it becomes the current one.
    """
    workspace, use = Workspace.open(settings.workspace), settings.use
    if settings.versions:
        if use is not None:
            raise UserError("--versions only lists: leave --use out, or run the two after each other")
        print("\n".join(origin_lines(workspace)))
        return
    try:
        current = current_id(workspace)
    except BundleError:
        if not any(listing(workspace)):
            raise
        current = ""
    if use is None:
        bundles, broken = listing(workspace)
        print_table(bundles, broken, current)
        for manifest in bundles:
            if manifest.id == current and is_of_former_corpus(workspace, manifest.settings.get("corpus")):
                print(f"{current} was made before the corpus changed; `seedset refresh` makes one of it")
        return
    point_to(workspace, use)
    print(f"current bundle: {use}" + (f" (before: {current})" if current not in ("", use) else ""))


def origin_lines(workspace: Workspace) -> Iterator[str]:
    """Yield a line for each manifest of a workspace: what made the artifact, in which form.

    Raises:
        StorageError: there is none.
    """
    root = workspace.root
    found = [workspace.corpus / MANIFEST]
    for name in ("inputs", "images", "cache", "bundles"):
        found += sorted((root / name).files(f"/{MANIFEST}"), key=lambda file: file.path)
    lines = [
        f"{file.parent.path.removeprefix(f'{root.path}/')}: {origin}"
        for file in found
        if (origin := origin_of(file))
    ]
    if not lines:
        raise StorageError(f"{root.uri}: nothing was made here yet; run `seedset import` first")
    yield from lines


def print_table(bundles: list[Manifest], broken: dict[str, str], current: str) -> None:
    """Print a line a bundle, and a line for each folder that is none."""
    rows = [("", "id", "created", "MiB", "language model", "views"), *(_row(m, current) for m in bundles)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for name, reason in broken.items():
        print(f"{'*' if name == current else ' '}  {name}: cannot be used: {reason.splitlines()[0]}")


def _row(manifest: Manifest, current: str) -> tuple[str, ...]:
    files = manifest.files
    return (
        "*" if manifest.id == current else "",
        manifest.id,
        manifest.created,
        f"{sum(file.size for file in files.values()) / 2**20:.1f}",
        "yes" if any(name.startswith("lm/") for name in files) else "no",
        ", ".join(_view(manifest, view) for view in views_of(manifest)),
    )


def _view(manifest: Manifest, view: str) -> str:
    """Return a view's name, and what its search by codes finds, if it has codes."""
    codes = manifest.settings.get("index", {}).get("codes", {}).get(view)
    return f"{view} ({codes['kind']}, recall {codes['recall']:.3f})" if codes else view


if __name__ == "__main__":
    main.run()
