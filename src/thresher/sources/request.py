"""What the user asked for: the data and the options every source is opened with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from thresher.errors import UserError
from thresher.sources.remote.errors import Missing

NO_LABEL = "no label"


@dataclass(frozen=True)
class Request:
    """One call of ``open_source``, passed unchanged to the source that takes it.

    Attributes:
        data: path, URL or pattern as the user wrote it, for messages; of URLs without secrets.
        path_column: column of a table that holds paths; None: found by name.
        label_column: column of a table, or field of a tar's ``.json`` members, with the label.
        image_column: column of a Parquet image data set with the bytes.
        classes: the class list to map labels onto; None: the data's own.
        labelled: False where labels are not needed (predict): all samples count, none has a label.
        allow_damaged: use what is readable of a truncated tar or a table with missing files.
    """

    data: str
    path_column: str | None = None
    label_column: str | None = None
    image_column: str | None = None
    classes: tuple[str, ...] | None = None
    labelled: bool = True
    allow_damaged: bool = False


def enumerate_some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, quoted, and how many there are in all if that is more."""
    shown = ", ".join(f"'{printable(name)}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"


def printable(name: str) -> str:
    """A name as it can stand in a message: no line breaks, no bytes that are not text."""
    name = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def choose_column(
    existing: Sequence[str],
    chosen: str | None,
    usual: Sequence[str],
    *,
    what: str,
    option: str,
    source: str,
) -> str:
    """The column to use: the user's choice, or the first of the usual names that exists.

    Raises:
        UserError: it does not exist; the message names those that do.
    """
    if chosen is not None:
        if chosen in existing:
            return _only(chosen, existing, source)
        problem = f"{source} has no column '{printable(chosen)}'"
    else:
        by_lower_name = {name.strip().lower(): name for name in reversed(existing)}
        for name in usual:
            if name in by_lower_name:
                return _only(by_lower_name[name], existing, source)
        problem = f"{source} has no column that is known to hold the {what}"
    raise UserError(
        f"{problem}. Its columns: {enumerate_some(existing, most=12)}. "
        f"Choose the {what} column with {option}."
    )


def _only(name: str, existing: Sequence[str], source: str) -> str:
    if existing.count(name) > 1:
        raise UserError(
            f"{source} has {existing.count(name)} columns named '{printable(name)}'. Give those "
            "that are not meant another name."
        )
    return name


def first_line(error: Exception) -> str:
    """The first line of an error's message, without its full stop."""
    return printable(str(error).strip().partition("\n")[0]).rstrip(".")


@contextlib.contextmanager
def explain_read_errors(path: str) -> Iterator[None]:
    """Turn a vanished file or a missing right into a sentence that names the path."""
    try:
        yield
    except PermissionError as error:
        raise UserError(
            f"No right to read {_named(error, path)}. Change its rights, or run as its owner."
        ) from None
    except FileNotFoundError as error:
        raise UserError(f"There is no file or folder {_named(error, path)}.") from None
    except Missing:
        raise UserError(f"There is no file or folder {path}.") from None
    except OSError as error:
        raise UserError(f"Cannot read {_named(error, path)}: {error.strerror or error}.") from None
    except pa.ArrowException as error:
        raise UserError(f"{printable(path)} cannot be read: {first_line(error)}.") from None


def _named(error: OSError, path: str) -> str:
    return printable(error.filename if isinstance(error.filename, str) else path)
