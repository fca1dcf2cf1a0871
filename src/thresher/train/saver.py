"""Saves while training goes on: a copy in memory at once, the disk in a thread.

Every rank writes its own parts into one directory and tells the others through the store; when all
have, the first rank puts the directory into its place. If one cannot write, nothing takes its
place, training goes on, and the next save tries again.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.train.checkpoint import (
    aside_of,
    commit,
    prune,
    remove_leftovers,
    target_of,
    write_parts,
)


class Saver:
    """Writes the checkpoints of a run, one at a time.

    Args:
        folder: of all checkpoints of the run, which all ranks see.
        runtime: this process's place among its peers.
        keep: how many of the newest to leave.
        token: of this incarnation of the run, the same on all ranks.
    """

    def __init__(self, folder: Path, runtime: Runtime, keep: int, token: str) -> None:
        self._folder = folder
        self._runtime = runtime
        self._keep = keep
        self._token = token
        self._store = runtime.connect()
        self._count = 0
        self._is_last = False
        self._failure: str | None = None
        self._unexpected: BaseException | None = None
        self._thread: threading.Thread | None = None
        if runtime.is_first:
            remove_leftovers(folder)

    def save(
        self,
        epoch: int,
        step: int,
        parts: Mapping[str, Any],
        meta: Mapping[str, Any],
        *,
        last: bool = False,
    ) -> None:
        """Copy the state and begin to write it; waits for the save before it.

        Args:
            epoch, step: the position the state belongs to.
            parts: of this rank, file stem to what ``torch.save`` takes.
            meta: what the run is; JSON; of the first rank.
            last: ``finish`` follows, and reports a failure.
        """
        self.wait()
        self._is_last = last
        self._count += 1
        copy = {stem: _to_host(value) for stem, value in parts.items()}
        meta = {"epoch": epoch, "step": step, "world_size": self._runtime.world_size, **meta}
        self._thread = threading.Thread(
            target=self._write, args=(target_of(self._folder, epoch, step), copy, meta), name="save"
        )
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written by this rank.

        Raises:
            Exception: what the thread did not expect.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._unexpected is not None:
            raise self._unexpected

    def finish(self) -> None:
        """Wait for the last save of all ranks.

        Raises:
            UserError: it could not be written.
        """
        self.wait()
        if self._count:
            outcome = self._store.get(f"{self._key}/outcome").decode()
            if outcome:
                raise UserError(outcome, told=not self._runtime.is_first)

    @property
    def _key(self) -> str:
        return f"save/{self._token}/{self._count}"

    def _write(self, target: Path, parts: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        try:
            self._write_all(target, parts, meta)
        except BaseException as error:
            self._unexpected = error

    def _write_all(self, target: Path, parts: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        aside = aside_of(target, f"{self._token}-{self._count}")
        said: dict[str, Any]
        try:
            said = {"sha256": write_parts(aside, parts)}
        except (UserError, OSError) as error:
            said = {"error": str(error)}
        self._store.set(f"{self._key}/{self._runtime.rank}", json.dumps(said))
        if not self._runtime.is_first:
            return
        outcome = ""
        try:
            self._commit(aside, target, meta)
        except (UserError, OSError) as error:
            outcome = str(error)
            shutil.rmtree(aside, ignore_errors=True)
        self._store.set(f"{self._key}/outcome", outcome)
        if outcome and not self._is_last:
            print(
                f"thresher: no checkpoint was written, training goes on: {outcome}",
                file=sys.stderr,
                flush=True,
            )

    def _commit(self, aside: Path, target: Path, meta: Mapping[str, Any]) -> None:
        """Wait for all ranks' parts, then make it count."""
        # All of them first: who removes a failed directory must be the last one to write into it.
        said = [
            json.loads(self._store.get(f"{self._key}/{rank}"))
            for rank in range(self._runtime.world_size)
        ]
        hashes: dict[str, str] = {}
        for one in said:
            if "error" in one:
                raise UserError(one["error"])
            hashes |= one["sha256"]
        commit(aside, target, {**meta, "sha256": hashes})
        prune(self._folder, self._keep)


def _to_host(value: Any) -> Any:
    """A copy that later steps do not change."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _to_host(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_host(inner) for inner in value)
    return value
