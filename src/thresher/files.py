"""Writing files so that a reader sees the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from thresher.errors import UserError

_REFUSALS = (
    *(errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ENXIO),
)

_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-(\d*)-\w{8}\.thresher\.tmp")
_HERE = f"{zlib.crc32(socket.gethostname().encode()):08x}"  # locks of other machines may not show
_ABANDONED_SECONDS = 24 * 3600  # what another machine has not written to for longer, nobody will
_swept: set[tuple[int, Path]] = set()
_swept_lock = threading.Lock()


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it and rename it into place.

    Raises:
        UserError: no space left, or no right to write there. Nothing is left behind.
    """
    path = Path(path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        handle, temporary = _make_temporary(path)
        try:
            yield temporary
            sync(temporary)
            # mkstemp makes files private; give what open() would have given.
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def _make_temporary(path: Path) -> tuple[int, Path]:
    """A new file beside ``path``, and a handle whose lock says that its writer lives."""
    while True:
        writer = f"{_HERE}-{os.getpid()}-{_born(os.getpid())}"
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.{writer}-", suffix=".thresher.tmp", dir=path.parent
        )
        with contextlib.suppress(OSError):  # where there are no locks, nobody sweeps either
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Between the two, another process may have taken it for a leftover.
        if Path(name).exists():
            return handle, Path(name)
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what processes left that were killed as they wrote here; once in each process.

    A temporary file tells its writer's machine and process, and is locked for as long as that
    lives. The lock tells of processes in other containers, whose numbers mean nothing here; the
    number tells where a library has put a file of its own, without a lock, in the place of ours. Of
    other machines neither may be seen on a shared disk, so that theirs have to be old.
    """
    with _swept_lock:
        key = (os.getpid(), folder.absolute())
        if key in _swept:
            return
        _swept.add(key)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            writer = _TEMPORARY.fullmatch(entry.name)
            if writer is not None and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_left(entry, *writer.groups())


def _remove_if_left(entry: os.DirEntry[str], machine: str, process: str, born: str) -> None:
    if machine == _HERE:
        lives = born != "" and _born(int(process)) == born
    else:
        age = time.time() - entry.stat(follow_symlinks=False).st_mtime
        lives = age < _ABANDONED_SECONDS
    if lives:
        return
    handle = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where the writer lives
        Path(entry.path).unlink()
    finally:
        os.close(handle)


def _born(process: int) -> str:
    """When a process began, which tells it from a later one of its number; empty if unknown."""
    try:
        # Behind the name, which may hold anything, this is the twentieth field.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, ValueError, IndexError):
        return ""


def refuse_inside(out: Path, data: str, named: str) -> None:
    """Refuse results inside a folder of data: the next command would take them for data.

    Args:
        out: where the results would go.
        data: what the user named as data; only a folder here can hold them.
        named: how the user named or can name ``out``, for the message.

    Raises:
        UserError: ``out`` is the folder or lies in it.
    """
    if data and Path(data).is_dir() and out.resolve().is_relative_to(Path(data).resolve()):
        raise UserError(f"{named} lies inside the data, {data}. Name a folder outside of it.")


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing right into a sentence that names ``path``."""
    try:
        yield
    except PermissionError:
        raise UserError(
            f"No right to write {path}. Choose another place with --out, or change its rights."
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"No space left to write {path}. Free some, or choose another place with --out."
            ) from None
        if error.errno in _REFUSALS:
            raise UserError(f"Cannot write {path}: {os.strerror(error.errno)}.") from None
        raise


def sync(path: Path) -> None:
    """Make a file, or the renames in a folder, last through a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
