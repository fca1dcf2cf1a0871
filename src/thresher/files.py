"""Writing files so that a reader sees the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from thresher.errors import UserError

_REFUSALS = (
    *(errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ENXIO),
)


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it and rename it into place.

    Raises:
        UserError: no space left, or no right to write there. Nothing is left behind.
    """
    path = Path(path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            sync(temporary)
            # mkstemp makes files private; give what open() would have given.
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


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
