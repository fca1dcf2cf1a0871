"""From texts to web labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thresher.errors import UserError
from thresher.label.classes import Phrase
from thresher.label.columns import open_files, open_rows
from thresher.label.match import Matcher
from thresher.label.tables import open_remote_table, open_table
from thresher.label.tars import open_tars
from thresher.label.texts import (
    FILE_NAME,
    Texts,
    below_common_folder,
    choose_columns,
    file_name_text,
)
from thresher.sources.detect import open_source
from thresher.sources.kinds import PARQUET_SUFFIXES
from thresher.sources.manifest import Manifest
from thresher.sources.names import natural_key
from thresher.sources.parquet import image_column
from thresher.sources.parquet_paths import LISTS
from thresher.sources.places import is_url, name_of
from thresher.sources.request import Request, enumerate_some, explain_read_errors, printable
from thresher.sources.table import TEXT_SUFFIXES

Several = Literal["drop", "first"]
_CHUNK = 1 << 16  # rows whose texts are Python objects at a time


@dataclass(frozen=True)
class Labels:
    """The web labels of a collection.

    Attributes:
        texts: the collection.
        columns: the columns of text that were looked in, in this order.
        phrases: the phrases that were looked for.
        outcomes: the different results of a search: phrases found, at most one per class, in the
            order of the text. The first is the empty one.
        outcome_of: int32[N], index into ``outcomes``.
        column_of: int8[N], index into ``columns``, -1 where nothing was found.
        several: what was done where several classes were found.
    """

    texts: Texts
    columns: tuple[str, ...]
    phrases: tuple[Phrase, ...]
    outcomes: tuple[tuple[int, ...], ...]
    outcome_of: np.ndarray
    column_of: np.ndarray
    several: Several

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that at least one image got, in the order that training gives them."""
        counts = self.counts()
        return tuple(sorted((name for name in counts if counts[name]), key=natural_key))

    def names_of(self, outcome: int) -> tuple[str, ...]:
        """The classes found, in the order of the text."""
        return tuple(self.phrases[index].class_name for index in self.outcomes[outcome])

    def label_of(self, outcome: int) -> str | None:
        """The class that this outcome gives."""
        names = self.names_of(outcome)
        if not names or (len(names) > 1 and self.several == "drop"):
            return None
        return names[0]

    def times(self) -> np.ndarray:
        """int64[len(outcomes)], how many images have each outcome."""
        return np.bincount(self.outcome_of, minlength=len(self.outcomes))

    def counts(self) -> Counter[str]:
        """Images per class; classes of the file that no image got are there with 0."""
        counts = Counter({phrase.class_name: 0 for phrase in self.phrases})
        for outcome, times in enumerate(self.times().tolist()):
            label = self.label_of(outcome)
            if label is not None:
                counts[label] += times
        return counts


def find_texts(
    source: str,
    path_column: str | None,
    image_column: str | None = None,
    allow_damaged: bool = False,
) -> Texts:
    """Open the collection: a table, tars with texts, or a tree of image files.

    Args:
        source: path or URL.
        path_column: of a table with paths; None: found by its name.
        image_column: of Parquet files with images; None: found by its name.
        allow_damaged: leave out what cannot be read of tars and Parquet files.

    Raises:
        UserError: it is none of these, or see ``sources``.
    """
    with explain_read_errors(source):
        if Path(source).is_file() and _lists_paths(source, path_column, image_column):
            return open_table(source, path_column)
        if is_url(source) and name_of(source).lower().endswith(TEXT_SUFFIXES):
            return open_remote_table(source, path_column)
        manifest = open_source(
            source,
            path_column=path_column,
            image_column=image_column,
            labelled=False,
            allow_damaged=allow_damaged,
        )
        if manifest.kind not in _TEXTS:
            raise UserError(
                f"{printable(source)} is an LMDB, which holds no texts. Labels are made for a "
                "table, a folder of images, Parquet images with text columns, or tars as "
                "img2dataset writes them."
            )
        in_files = manifest.kind == "files" and LISTS not in manifest.options
        if in_files and is_url(source) and name_of(source).lower().endswith(PARQUET_SUFFIXES):
            return open_remote_table(source, path_column)
        return replace(_TEXTS[manifest.kind](manifest), options=manifest.options)


_TEXTS: dict[str, Callable[[Manifest], Texts]] = {
    "tar": open_tars,
    "parquet": open_rows,
    "files": open_files,
}


def _lists_paths(file: str, path_column: str | None, images: str | None) -> bool:
    """Whether a file is a table of paths; Parquet may hold the images themselves."""
    if file.lower().endswith(TEXT_SUFFIXES) or path_column is not None:
        return True
    if not file.lower().endswith(PARQUET_SUFFIXES):
        return False
    schema = pq.read_schema(file)
    request = Request(data=file, image_column=images, labelled=False)
    return image_column(schema, request) is None


def label(
    texts: Texts, phrases: Sequence[Phrase], *, asked: str | None, several: Several, source: str
) -> Labels:
    """Look for the phrases in each image's text.

    Raises:
        UserError: no such column, nothing found, or only one class found.
    """
    columns = choose_columns(texts, asked, source)
    ids: dict[tuple[int, ...], int] = {(): 0}
    outcome_of = np.zeros(len(texts.names), dtype=np.int32)
    column_of = np.full(len(texts.names), -1, dtype=np.int8)
    for place, column in enumerate(columns):
        found = _search(texts, column, phrases, ids)
        new = (outcome_of == 0) & (found != 0)
        outcome_of[new] = found[new]
        column_of[new] = place
    labels = Labels(
        texts=texts,
        columns=tuple(columns),
        phrases=tuple(phrases),
        outcomes=tuple(ids),
        outcome_of=outcome_of,
        column_of=column_of,
        several=several,
    )
    _require_two_classes(labels, source)
    return labels


def _search(
    texts: Texts, column: str, phrases: Sequence[Phrase], ids: dict[tuple[int, ...], int]
) -> np.ndarray:
    """int32[N], the outcome of each image for one column; new outcomes are added to ``ids``."""
    if column == FILE_NAME:
        chunks: Iterable[pa.Array] = texts.names.chunks
        cut = below_common_folder(texts.names)
        matcher = Matcher(phrases, apart=True)
    else:
        chunks, matcher = texts.read(column), Matcher(phrases)
    find: Callable[[str], tuple[int, ...]] = matcher.find
    if column == FILE_NAME:

        def find(name: str) -> tuple[int, ...]:
            return matcher.find(file_name_text(cut(name)))

    parts = [np.zeros(0, dtype=np.int32)]
    for chunk in chunks:
        for start in range(0, len(chunk), _CHUNK):
            # The same query stands at thousands of images: look once.
            coded = chunk.slice(start, _CHUNK).dictionary_encode()
            outcomes = [ids.setdefault(find(text), len(ids)) for text in coded.dictionary.tolist()]
            # The appended 0 is what a missing text gets.
            positions = pc.fill_null(coded.indices, len(outcomes)).to_numpy()
            parts.append(np.array([*outcomes, 0], dtype=np.int32)[positions])
    found = np.concatenate(parts)
    assert len(found) == len(texts.names)
    return found


def _others(labels: Labels) -> str:
    """The columns that --from can name beside those that were looked in."""
    there = [name for name in (*labels.texts.columns, FILE_NAME) if name not in labels.columns]
    return enumerate_some(there, most=12) if there else "no others"


def _require_two_classes(labels: Labels, source: str) -> None:
    where = "', '".join(labels.columns)
    if not labels.outcome_of.any():
        raise UserError(
            f"No phrase was found in '{where}' of {printable(source)} "
            f"({len(labels.outcome_of):,} images). Look at the texts, or choose others with "
            f"--from; there are {_others(labels)}."
        )
    if len(labels.classes) < 2:
        got = (
            f"only images of '{labels.classes[0]}'" if labels.classes else "no images of any class"
        )
        raise UserError(
            f"There are {got} in '{where}' of {printable(source)}. A classifier needs at least two "
            "classes. List more words, choose other texts with --from, or --several first."
        )
