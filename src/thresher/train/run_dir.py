"""The directory of a run: what lies where, and who may write into it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from thresher.config import ResolvedConfig
from thresher.errors import UserError
from thresher.files import explain_write_errors, write_atomically

_WRITTEN = (
    "config.yaml", "config.json", "manifest.parquet", "metrics.jsonl", "ledger.parquet",
    "model*.safetensors", "summary.json", "checkpoints", "tensorboard", "report.html",
    "suspects.csv", "suspects.parquet",
)  # fmt: skip


LOCK_SECONDS = 20.0
_LOCK = ".lock"


@dataclass(frozen=True)
class RunDir:
    """Names of everything a run leaves behind."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration; ``thresher train --config`` takes it."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Every image of the data with its state."""
        return self.path / "manifest.parquet"

    @property
    def metrics(self) -> Path:
        """One JSON line per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def ledger(self) -> Path:
        """One row per training sample."""
        return self.path / "ledger.parquet"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        """Folder of TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def timm_config(self) -> Path:
        """timm's config.json, beside the weights, so that timm loads the folder."""
        return self.path / "config.json"

    @property
    def summary(self) -> Path:
        """Final figures."""
        return self.path / "summary.json"

    def weights(self, network: int) -> Path:
        """Weights of a network, counted from 0; the first is ``model.safetensors``."""
        return self.path / (
            "model.safetensors" if network == 0 else f"model-{network + 1}.safetensors"
        )

    @property
    def holds_run(self) -> bool:
        """Whether training wrote here; a foreign ``config.yaml`` alone does not make a run."""
        if not (self.config.is_file() and self.manifest.is_file()):
            return False
        try:
            body = self.read_config()
        except UserError:
            return False
        return {"data", "method", "model", "epochs"} <= body.keys()

    def check(self, *, resume: bool, overwrite: bool, inputs: Sequence[str | None] = ()) -> None:
        """Refuse a directory that must not be written into; changes nothing.

        Args:
            resume, overwrite: what the user wants of a run that is there.
            inputs: paths that the run reads, and that must not be deleted.

        Raises:
            UserError: it holds another run or something else, or there is nothing to resume.
        """
        if resume and overwrite:
            raise UserError("--resume and --overwrite exclude each other.")
        with explain_write_errors(self.path):
            if resume and not self.holds_run:
                raise UserError(
                    f"--resume: {self.path} holds no run. Name the run's directory with --out."
                )
            if resume or not self.path.exists():
                return
            if not self.path.is_dir():
                raise UserError(f"--out {self.path} is a file. Name a directory.")
            if self._is_half_begun():
                return
            if not self.holds_run:
                raise UserError(
                    f"--out {self.path} is not empty and holds no run of Thresher, so it is left as"
                    " it is. Choose another directory."
                )
        if not overwrite:
            raise UserError(
                f"--out {self.path} already holds a run. Add --resume to go on with it, --overwrite"
                " to replace it, or choose another directory."
            )
        here = self.path.resolve()
        for name in inputs:
            if name is not None and here in (Path(name).resolve(), *Path(name).resolve().parents):
                raise UserError(
                    f"--overwrite would delete {name}, which this run reads. Choose another --out."
                )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second process from training into the directory.

        Raises:
            UserError: one still does after ``LOCK_SECONDS``; the ranks of a run whose launcher
                was killed need some time to save and leave.
        """
        with explain_write_errors(self.path):
            made = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        mine = False
        try:
            give_up = time.monotonic() + LOCK_SECONDS
            while not (mine := _try_lock(handle)):
                if time.monotonic() > give_up:
                    raise UserError(
                        f"Another process is training into {self.path}. Wait for it, stop it, or"
                        " choose another --out."
                    )
                time.sleep(0.2)
            yield
        finally:
            if mine:
                self._remove_if_unused(made)
            os.close(handle)  # which gives the lock back

    def _is_half_begun(self) -> bool:
        """Whether all there is was left by a run of ours that ended before it began to train."""
        there = list(self.path.iterdir())
        if not there:
            return True
        return (
            (self.path / _LOCK).exists()
            and not self.holds_run
            and all(p.name == _LOCK or any(p.match(name) for name in _WRITTEN) for p in there)
        )

    def _remove_if_unused(self, made: Sequence[Path]) -> None:
        """Leave no trace of a run that was refused before it began."""
        if [path.name for path in self.path.iterdir()] == [_LOCK]:
            (self.path / _LOCK).unlink()
            for folder in made:
                with contextlib.suppress(OSError):  # a second process may wait for the lock
                    folder.rmdir()

    def prepare(self, *, resume: bool) -> None:
        """Make the directory ready, without what an older run left there unless it goes on.

        Only what a run writes is deleted.

        Raises:
            UserError: it cannot be written.
        """
        with explain_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if resume:
                return
            for name in _WRITTEN:
                for path in self.path.glob(name):
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()

    def keep_metrics_before(self, epoch: int) -> None:
        """Drop the figures of epochs that will be trained again, counted from 0, and half a line.

        Raises:
            UserError: the file cannot be written to.
        """
        if not self.metrics.is_file():
            return
        kept = 0
        with explain_write_errors(self.metrics):
            # Epochs follow one another, so what stays is a beginning. A new file would need space,
            # and a run that is started again on a full disk must go on.
            for line in self.metrics.read_bytes().splitlines(keepends=True):
                if not _is_of_epoch(line, epoch):
                    break
                kept += len(line)
            os.truncate(self.metrics, kept)

    def write_config(self, config: ResolvedConfig, method_options: Any) -> None:
        """Write the resolved configuration with the method's own options below its name."""
        body = dataclasses.asdict(config)
        body[config.method] = dataclasses.asdict(method_options)
        with write_atomically(self.config) as temporary:
            temporary.write_text(
                "# Resolved. To run it again: thresher train --config THIS --out NEW\n"
                + yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
            )

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration as plain values.

        Raises:
            UserError: this is no run's directory.
        """
        try:
            body = yaml.safe_load(self.config.read_text())
        except FileNotFoundError:
            raise UserError(f"{self.path} is not a run: it has no config.yaml.") from None
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{self.config} cannot be read: {error}") from None
        if not isinstance(body, dict) or "model" not in body:
            raise UserError(f"{self.config} is not a run's configuration.")
        return body

    def append_metrics(self, lines: Sequence[dict[str, Any]]) -> None:
        """Add whole lines to ``metrics.jsonl``, all or none.

        Raises:
            UserError: they cannot be written.
        """
        text = "".join(json.dumps(values) + "\n" for values in lines)
        with explain_write_errors(self.metrics), self.metrics.open("ab") as file:
            size = file.tell()
            try:
                file.write(text.encode())
                file.flush()
            except OSError:
                os.truncate(self.metrics, size)
                raise

    def write_summary(self, values: dict[str, Any]) -> None:
        """Write the final figures."""
        with write_atomically(self.summary) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n")


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, as some cluster ones are
        return True
    return True


def _is_of_epoch(line: bytes, last: int) -> bool:
    """Whether a line of figures is whole and of no later epoch."""
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n") and event["epoch"] <= last
