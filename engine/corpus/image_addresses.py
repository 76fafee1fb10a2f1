"""Resolve and check the addresses of contexts' images, without opening one."""

from __future__ import annotations

import posixpath
from dataclasses import replace

from engine.corpus.text import fault_of_name
from engine.refusals import Code, Refusal
from engine.storage.store import Store

FOLDER = "corpus/images"
"""Folder of a workspace for images that came as bytes: ``<sha256 of the content>.<kind>``."""

MAX_BYTES = 32 << 20
MAX_ADDRESS = 4096
"""Characters."""


def address_in(folder: Store, image: str) -> str:
    """Return the address of an image that a source in ``folder`` names: a relative path lies below it.

    It is kept as it is spelt: what is there under another spelling is found when it is read.
    """
    scheme, separator, rest = image.partition("://")
    if separator and scheme.lower() == "file" and (path := rest.removeprefix("localhost")).startswith("/"):
        return path
    if separator and scheme.lower() == "s3":
        return f"s3://{rest}"
    if "://" in image or image.startswith("/"):
        return image
    return replace(folder, path=posixpath.normpath(f"{folder.path}/{image}")).uri


def fault_of_address(address: str) -> Refusal | None:
    """Return why an address (of :func:`address_in`) cannot be stored, or None; nothing is opened."""
    if fault := fault_of_name(address, MAX_ADDRESS):
        return fault
    if not address.startswith(("/", "s3://")):
        return Refusal(Code.IMAGE_ADDRESS, f"{address[:80]!r} is no path and no s3:// address")
    return None
