"""From labels as they stand in the data to indices into a list of classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thresher.errors import UserError
from thresher.sources.manifest import OK
from thresher.sources.names import natural_key, plain_name
from thresher.sources.request import NO_LABEL, Request, enumerate_some, printable

NOT_A_LABEL = frozenset(["nan", "none", "null", "na", "n/a", "<na>", "#n/a", "undefined"])
"""How programs write that there is nothing, in lower case. Among numbers such a text means just
that; among names it is a class, because one may be called None: ``notes`` tells of it."""
_NUMBER = re.compile(r"-?[0-9]+(\.0+)?")


def encode_labels(
    values: pa.ChunkedArray, request: Request, names: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Map a column of integers or text onto classes.

    Only the distinct values become Python objects, so that the cost of ten million rows is that
    of two Arrow kernels.

    Args:
        values: one label per sample; null, NaN and blank text mean 'no label', and so do texts
            such as 'nan' among numbers, and -1 where ``names`` are given (the Hugging Face
            convention).
        request: its ``classes``, if given, are the classes of the result.
        names: what integers stand for, if the data say so.

    Returns:
        int32[N], index into the classes or -1, and the classes.

    Raises:
        UserError: no labels, only one class, a label that ``classes`` does not have, a number
            that has no name, or a type that cannot be a label.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    _check_type(values.type, request)
    distinct = pc.unique(values).drop_null()
    found = [_name_of(value, names, request) for value in distinct.to_pylist()]
    if request.classes is None or not set(found) <= {None, *request.classes}:
        found = _whole_numbers(_without_nan(found))
    index_of_distinct, classes = index_names(found, request, names)
    position = pc.fill_null(pc.index_in(values, value_set=distinct), -1).to_numpy()
    # The appended -1 is what position -1, no label, picks.
    return np.append(index_of_distinct, np.int32(-1))[position], classes


def index_names(
    found: Sequence[str | None], request: Request, names: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Map the distinct labels found in the data (None: no label) onto classes.

    Names are compared in Unicode's composed form: macOS writes the accent of 'café' as a
    character of its own, which would make it another class than elsewhere.

    Returns:
        int32[len(found)], index into the classes or -1, and the classes.

    Raises:
        UserError: see ``encode_labels``.
    """
    found = [None if name is None else _composed(name) for name in found]
    present = sorted({name for name in found if name is not None}, key=natural_key)
    if not present:
        raise UserError(f"No sample of {request.data} has a label.")
    if request.classes is not None:
        classes = request.classes
        known = set(map(_composed, classes))
        unknown = [name for name in present if name not in known]
        if unknown:
            raise UserError(
                f"Labels in {request.data} that training does not know: "
                f"{enumerate_some(unknown)}. It knows {enumerate_some(classes)}."
                + _nearly(unknown, classes)
            )
    else:
        if len(present) == 1:
            raise UserError(
                f"{request.data} has only one class, {enumerate_some(present)}. "
                "A classifier needs at least two."
            )
        classes = tuple(present) if names is None else tuple(names)
    index = {_composed(name): position for position, name in enumerate(classes)}
    indices = [-1 if name is None else index[name] for name in found]
    return np.array(indices, dtype=np.int32), classes


def _nearly(unknown: Sequence[str], classes: Sequence[str]) -> str:
    """Which of them differ from a class only in case or spaces."""
    known = {plain_name(name): name for name in classes}
    for name in unknown:
        other = known.get(plain_name(name))
        if other is not None:
            return (
                f" '{printable(name)}' differs from '{printable(other)}' only in case or spaces; "
                "give both one name."
            )
    return ""


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def trimmed_labels(values: pa.ChunkedArray) -> list[str]:
    """Labels that ``encode_labels`` takes for others, because only spaces set them apart."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return []
    distinct: list[str] = pc.unique(values).drop_null().to_pylist()
    there = set(distinct)
    return sorted(name for name in there if name != name.strip() and name.strip() in there)


def _without_nan(found: list[str | None]) -> list[str | None]:
    """None for 'nan' and the like where all other labels are numbers."""
    names = {name for name in found if name is not None}
    nothing = {name for name in names if name.casefold() in NOT_A_LABEL}
    if not nothing or names == nothing or not all(map(_NUMBER.fullmatch, names - nothing)):
        return found
    return [None if name in nothing else name for name in found]


def _whole_numbers(found: list[str | None]) -> list[str | None]:
    """'3' for '3.0', which is what tables make of numbers once a label among them is missing."""
    present = [name for name in found if name is not None]
    if not all(map(_NUMBER.fullmatch, present)):
        return found
    return [None if name is None else name.partition(".")[0] for name in found]


def label_states(labels: np.ndarray, request: Request) -> pa.Array:
    """The state of each sample as far as its label goes: ok, or 'no label' where one is needed."""
    absent = pa.array((labels < 0) & request.labelled)
    return pc.if_else(absent, NO_LABEL, OK)


def no_labels(num: int, request: Request) -> tuple[np.ndarray, tuple[str, ...]]:
    """What ``encode_labels`` returns, for a request that needs no labels."""
    return np.full(num, -1, dtype=np.int32), request.classes or ()


def _check_type(kind: pa.DataType, request: Request) -> None:
    scalar = (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_null(kind)
    )
    if not scalar:
        raise UserError(
            f"The label column of {request.data} is of type {kind}; labels are integers or text. "
            "Choose another column with --label-column."
        )


def _name_of(
    value: int | float | bool | str, names: Sequence[str] | None, request: Request
) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if np.isnan(value):
            return None
        if not value.is_integer():
            raise UserError(
                f"The label column of {request.data} holds fractions ({value}); labels are "
                "integers or text. Choose another column with --label-column."
            )
        value = int(value)
    if names is None:
        return str(value)
    if value == -1:
        return None
    if not 0 <= value < len(names):
        raise UserError(
            f"{request.data} has the label {value}, but it names only {len(names)} classes "
            f"(0 to {len(names) - 1})."
        )
    return names[value]
