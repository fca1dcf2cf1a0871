"""A bounded folder of files that can be had again: pieces of remote files, spooled images.

Several processes may share it. A file is written aside and renamed, so that whoever sees it sees
all of it; the files used longest ago are removed first. One that is removed while it is open stays
readable to those who opened it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from thresher.errors import UserError

DEFAULT_GB = 20.0
_TOUCH_SECONDS = 60  # how exactly the last use is known
_ABANDONED_SECONDS = 24 * 3600  # a file being written for longer was left by a process that died
_SHARE_UNCHECKED = 32  # the folder is measured after every 1/32 of its bound written


class NoRoom(UserError):  # noqa: N818 - it is what there is
    """A file that has to be kept cannot be."""


class DiskCache:
    """Files by name, up to a sum of bytes. Thread-safe and process-safe.

    The bound may be exceeded for a moment by 1/32 per process that writes.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self._unchecked = most_bytes  # so that the first write checks
        self._lock = threading.Lock()

    def read(self, name: str, offset: int, length: int, size: int) -> bytes | None:
        """A part of a file that is ``size`` bytes long, or None if it is not there whole."""
        handle = self.open(name)
        if handle is None:
            return None
        try:
            if os.fstat(handle).st_size != size:
                return None
            data = os.pread(handle, length, offset)
            return data if len(data) == min(length, size - offset) else None
        except OSError:
            return None
        finally:
            os.close(handle)

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def open(self, name: str) -> int | None:
        """A handle to read a file by, which the caller closes, or None if it is not there."""
        try:
            handle = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        _touch(handle)
        return handle

    def write(self, name: str, data: bytes) -> bool:
        """Keep a file if that is possible; whether it was."""
        if len(data) > self.most_bytes:
            return False
        try:
            self._write(name, lambda file: file.write(data))
        except OSError:
            return False
        return True

    def make(self, name: str, size: int, fill: Callable[[BinaryIO], object]) -> Path:
        """The path of a file, written now by ``fill`` if it is absent; others wait meanwhile.

        Raises:
            NoRoom: it is larger than the bound, or the disk is full.
        """
        path = self._path(name)
        if _is_there(path, size):
            return path
        self.require_room(size)
        try:
            with self._exclusive(f"{name}.lock", wait=True):
                if not _is_there(path, size):
                    self._write(name, fill)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise NoRoom(
                    f"No copy can be kept in {self.folder}: {error.strerror}. Choose another "
                    "folder by the environment variable THRESHER_CACHE_DIR."
                ) from None
            raise
        return path

    def require_room(self, size: int) -> None:
        """Raises: NoRoom: a file of this size is beyond the bound."""
        if size > self.most_bytes:
            raise NoRoom(
                f"A file of {size / 1e9:.3g} GB does not fit into the cache of "
                f"{self.most_bytes / 1e9:.3g} GB. Set the environment variable THRESHER_CACHE_GB "
                "to more."
            )

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def _write(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file)
                size = file.tell()
            os.replace(temporary, path)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise
        with self._lock:
            self._unchecked += size
            check = self._unchecked > self.most_bytes // _SHARE_UNCHECKED
            if check:
                self._unchecked = 0
        if check:
            self._evict(keep=path)

    def _evict(self, keep: Path) -> None:
        """Remove the files used longest ago, unless another process is at it."""
        with self._exclusive("lock", wait=False) as mine:
            if not mine:
                return
            files: list[tuple[float, int, Path]] = []
            total = 0
            now = time.time()
            for lock in (self.folder / "locks").iterdir():
                if now - lock.stat().st_mtime > _ABANDONED_SECONDS:
                    lock.unlink(missing_ok=True)
            for path, status in self._files():
                if path.suffix == ".tmp" and now - status.st_mtime > _ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
                    continue
                total += status.st_blocks * 512
                if path != keep and path.suffix != ".tmp":
                    files.append((status.st_mtime, status.st_blocks * 512, path))
            goal = self.most_bytes - self.most_bytes // _SHARE_UNCHECKED
            for _, size, path in sorted(files):
                if total <= goal:
                    return
                path.unlink(missing_ok=True)
                total -= size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder in self.folder.iterdir():
            if folder.name == "locks" or not folder.is_dir():
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        yield Path(entry.path), entry.stat(follow_symlinks=False)

    @contextlib.contextmanager
    def _exclusive(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold a lock that other processes respect, and that dies with this one."""
        path = self.folder / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)


def default_cache() -> DiskCache:
    """The cache of this user: ``THRESHER_CACHE_DIR`` and ``THRESHER_CACHE_GB`` (20) tell.

    Raises:
        UserError: the size is no number.
    """
    folder = os.environ.get("THRESHER_CACHE_DIR")
    if not folder:
        base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        folder = str(Path(base, "thresher"))
    raw = os.environ.get("THRESHER_CACHE_GB", str(DEFAULT_GB))
    try:
        gigabytes = float(raw)
        most_bytes = int(gigabytes * 1e9)
    except (ValueError, OverflowError):
        most_bytes = -1
    if most_bytes < 0:
        raise UserError(f"THRESHER_CACHE_GB is '{raw}'; it is a number of gigabytes.")
    with _caches_lock:
        return _caches.setdefault((folder, most_bytes), DiskCache(Path(folder), most_bytes))


_caches: dict[tuple[str, int], DiskCache] = {}
_caches_lock = threading.Lock()


def cache_name(*parts: object) -> str:
    """A name for what these parts identify; it tells nobody what they are."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()[:40]


def _is_there(path: Path, size: int) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    if size >= 0 and status.st_size != size:
        return False
    if time.time() - status.st_mtime > _TOUCH_SECONDS:
        with contextlib.suppress(OSError):
            os.utime(path)
    return True


def _touch(handle: int) -> None:
    with contextlib.suppress(OSError):
        if time.time() - os.fstat(handle).st_mtime > _TOUCH_SECONDS:
            os.utime(handle)
