"""Packing: data of any kind into a folder of tars, from where an earlier run stopped."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from thresher.errors import UserError
from thresher.files import explain_write_errors
from thresher.loader.decode import DecodeError
from thresher.pack.encode import Packed, repack
from thresher.pack.folder import PackFolder
from thresher.pack.index import write_index
from thresher.pack.settings import PackSettings, fingerprint, require_same_shards
from thresher.pack.shard import ShardRecord, ShardWriter
from thresher.pack.stream import OrderedStream
from thresher.sources.manifest import OK, Manifest
from thresher.sources.places import shown
from thresher.sources.read import Reader, ReadError
from thresher.sources.request import NO_LABEL, printable

Result = Packed | str  # the image to store, or why there is none


@dataclass(frozen=True)
class PackResult:
    """What was packed, in all runs together.

    Attributes:
        images: images in the tars; ``copied`` of them byte for byte.
        unreadable: samples listed in ``unreadable.csv``.
        shards: tars; ``kept`` of them are of an earlier run.
        size: bytes of the tars.
    """

    images: int
    copied: int
    unreadable: int
    shards: int
    kept: int
    size: int


def pack(
    manifest: Manifest,
    out: Path,
    settings: PackSettings,
    *,
    workers: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> PackResult:
    """Pack all samples of a manifest; tars finished before are checked and kept.

    Args:
        manifest: the data.
        out: folder for the tars, new or of an interrupted run.
        settings: decide the bytes; the number of workers does not.
        workers: threads.
        on_progress: called with the number of samples done.

    Raises:
        UserError: the folder cannot be used, the disk is full, or no image can be read. Finished
            tars are then kept and indexed.
    """
    settings.check()
    folder = PackFolder(out)
    records: list[ShardRecord] = []
    with (
        explain_write_errors(out),
        folder.claim(settings, fingerprint(manifest)),
        _one_thread_each(),
    ):
        require_same_shards(manifest, out)
        packing = _Packing(manifest, folder, settings, workers, on_progress)
        try:
            kept = packing.run(records)
        except BaseException as error:
            packing.close()
            # The index is what makes the finished tars usable; the first error is the one to tell.
            with contextlib.suppress(UserError, OSError):
                if records:
                    write_index(out, manifest, records, settings)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(out, records) from None
            raise
        packing.close()
        write_index(out, manifest, records, settings)
    return PackResult(
        images=sum(int((record.offsets >= 0).sum()) for record in records),
        copied=sum(int(record.copied.sum()) for record in records),
        unreadable=sum(len(record.reasons) for record in records),
        shards=len(records),
        kept=kept,
        size=sum(record.size for record in records),
    )


class _Packing:
    """One run over the samples, tar by tar."""

    def __init__(
        self,
        manifest: Manifest,
        folder: PackFolder,
        settings: PackSettings,
        workers: int,
        on_progress: Callable[[int], None],
    ) -> None:
        self._manifest = manifest
        self._folder = folder
        self._settings = settings
        self._workers = workers
        self._on_progress = on_progress
        self._reader = Reader(manifest)
        self._states: list[str] = manifest.states.tolist()
        self._labels: np.ndarray = manifest.labels
        self._stream: OrderedStream[Result] | None = None

    def run(self, records: list[ShardRecord]) -> int:
        """Append the record of every tar; returns how many were finished before."""
        position = kept = 0
        while position < len(self._manifest):
            number = len(records)
            record = self._folder.finished(number, position)
            kept += record is not None
            if record is None:
                record = self._write(number, self._stream_at(position))
                self._folder.save_record(number, record)
            records.append(record)
            position = record.stop
            self._on_progress(position)
        return kept

    def close(self) -> None:
        """End the threads."""
        if self._stream is not None:
            self._stream.close()
        self._reader.close()

    def _stream_at(self, position: int) -> OrderedStream[Result]:
        """The stream that goes on from the last tar, or a new one behind a tar that was kept."""
        if self._stream is None or self._stream.position != position:
            if self._stream is not None:
                self._stream.close()
            self._stream = OrderedStream(self._repack, position, len(self._manifest), self._workers)
        return self._stream

    def _repack(self, index: int) -> Result:
        state = self._states[index]
        if state not in (OK, NO_LABEL):
            return state
        try:
            return repack(self._reader.read(index), self._settings)
        except (ReadError, DecodeError) as error:
            return printable(str(error))

    def _write(self, number: int, stream: OrderedStream[Result]) -> ShardRecord:
        """Write samples to a tar until the next would make it too large."""
        first = stream.position
        offsets, lengths, copied = [], [], []
        reasons: dict[int, str] = {}
        with ShardWriter(self._folder.tar(number)) as shard:
            while stream.position < len(self._manifest):
                index, result = stream.position, stream.peek()
                if isinstance(result, str):
                    reasons[index] = result
                    offsets.append(-1)
                    lengths.append(-1)
                    copied.append(False)
                else:
                    label = self._label(index)
                    more = sum(shard.size_of(len(data)) for data in (result.data, label))
                    full = shard.size + more > self._settings.shard_bytes
                    if full and len(reasons) < len(offsets):
                        break
                    offsets.append(shard.add(f"{index:09d}.jpg", result.data))
                    lengths.append(len(result.data))
                    copied.append(result.copied)
                    if label:
                        shard.add(f"{index:09d}.cls", label)
                stream.advance()
                self._on_progress(stream.position)
            if len(reasons) == len(offsets):
                raise UserError(
                    f"No image of {shown(self._manifest.source)} can be read, the first: "
                    f"{printable(self._manifest.key(first))} ({reasons[first]})."
                )
            size = shard.size
            sha256 = shard.finish()
        return ShardRecord(
            name=self._folder.tar(number).name,
            first=first,
            stop=stream.position,
            sha256=sha256,
            size=size,
            offsets=np.array(offsets, dtype=np.int64),
            lengths=np.array(lengths, dtype=np.int64),
            copied=np.array(copied, dtype=bool),
            reasons=reasons,
        )

    def _label(self, index: int) -> bytes:
        label = int(self._labels[index])
        return self._manifest.classes[label].encode() if label >= 0 else b""


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep torch from starting threads of its own in each of ours."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _disk_full(out: Path, records: list[ShardRecord]) -> UserError:
    images = sum(int((record.offsets >= 0).sum()) for record in records)
    finished = (
        f"{len(records)} tars with {images:,} images are finished and can be used"
        if records
        else "No tar was finished"
    )
    return UserError(
        f"No space left in {out}. {finished}; free some space and run the same command again "
        "to go on from there."
    )
