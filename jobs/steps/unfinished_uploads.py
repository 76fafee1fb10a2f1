"""Give up uploads of which a killed writer sent some parts: they take space, and no listing has them."""

from __future__ import annotations

import time

from engine.errors import StorageError
from engine.storage import s3
from engine.storage.store import Store
from jobs import console
from jobs.steps.survey import DAY


def give_up_uploads(root: Store, dry_run: bool, now: float | None = None) -> tuple[int, int]:
    """Give up the uploads below a bucket's folder that were begun more than a day ago and have not ended.

    Without the right to list them that is said, and nothing else: the rest can be cleaned.

    Args:
        root: of a workspace; on a disk there is nothing of the kind.
        dry_run: list them, and change nothing.
        now: seconds since the epoch; None: this moment.

    Returns:
        How many there are, and how many were given up.
    """
    if root.is_local:
        return 0, 0
    now = time.time() if now is None else now
    try:
        old = [one for one in s3.unfinished_uploads(root.path) if now - one.begun >= DAY]
    except StorageError as error:
        console.say(f"uploads that were left unfinished are not looked for: {error}")
        return 0, 0
    for one in old:
        console.say(f"unfinished upload s3://{one.path}, begun {(now - one.begun) / DAY:.0f} days ago")
        if not dry_run:
            s3.give_up_upload(one)
    return len(old), 0 if dry_run else len(old)
