"""The store behind a handle, which is imitated: no Ray is started. Its errors; a replica that is lost."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.handle import DeploymentHandle

from serve.errors import UnavailableError
from serve.sets.errors import SetConflictError, SetExistsError, UnknownSetError
from serve.sets.host import HandleSets, SetsHost


async def opened(path: Path) -> SetsHost:
    """A replica, as Serve makes one."""
    host = SetsHost.__new__(SetsHost)
    await cast(Any, host).__init__(str(path))
    return host


def handle_of(host: SetsHost | None) -> DeploymentHandle:
    """A handle that carries errors as Ray does; None: the replica is lost."""

    async def remote(*given: Any) -> Any:
        if host is None:
            raise RayActorError
        try:
            return pickle.loads(pickle.dumps(await host.do(*given)))
        except Exception as error:
            carried = pickle.loads(pickle.dumps(error))
            raise RayTaskError("do", "traceback", carried).as_instanceof_cause() from None

    return cast(DeploymentHandle, SimpleNamespace(do=SimpleNamespace(remote=remote)))


def test_errors_of_the_store_come_through_a_handle_as_they_are(tmp_path: Path) -> None:
    async def ask() -> None:
        sets = HandleSets(handle_of(await opened(tmp_path / "sets.sqlite")))
        made = (await sets("create", "one", None, "ada"))["id"]
        with pytest.raises(SetExistsError, match="'one'"):
            await sets("create", "ONE", None, "ada")
        with pytest.raises(UnknownSetError, match="no set 'x'"):
            await sets("read", "x")
        await sets("append", made, 1, "rename", {"name": "two"}, "ada")
        with pytest.raises(SetConflictError) as caught:
            await sets("append", made, 1, "rename", {"name": "three"}, "bob")
        assert (type(caught.value), caught.value.current) == (SetConflictError, 2)

    asyncio.run(ask())


def test_a_replica_that_comes_back_has_what_was_written_and_meanwhile_it_is_said(tmp_path: Path) -> None:
    async def ask() -> None:
        path = tmp_path / "sets.sqlite"
        made = await HandleSets(handle_of(await opened(path)))("create", "one", None, "ada")
        with pytest.raises(UnavailableError, match="try again"):
            await HandleSets(handle_of(None))("read", made["id"])
        again = await HandleSets(handle_of(await opened(path)))("read", made["id"])
        assert again == made

    asyncio.run(ask())
