"""From what every image looked like to what is worth telling."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thresher.scan.copies import BLANK_STD, NEAR_BITS, Grouped, find_copies
from thresher.scan.identity import public
from thresher.sources.manifest import OK, Manifest

LONG = 4.0
TINY = 32
SIDES = (32, 64, 128, 224, 320, 512, 1024, 2048)
MOST_GROUPS = 100
MOST_PER_GROUP = 20
# What each finding is called and means, in the order of their weight.
TITLES = {
    "exact_leaks": ("Test images inside the data", "identical files"),
    "near_leaks": ("Look-alikes of test images inside the data", "other files, same picture"),
    "exact_labels": ("The same file under different labels", "at most one of them is right"),
    "near_labels": ("The same picture under different labels", "files differ, the picture not"),
    "unreadable": ("Unreadable images", "training marks and skips them"),
    "exact": ("Exact duplicates", "identical files"),
    "near": ("Near-duplicates", "re-encoded, resized or slightly cut copies"),
    "blank": ("Blank images", "almost one colour"),
    "tiny": ("Tiny images", f"short side below {TINY} px and half the median"),
    "long": ("Extreme shapes", f"one side more than {LONG:.0f} times the other"),
    "animated": ("Animations", "only the first frame counts"),
}


@dataclass(frozen=True)
class Findings:
    """Everything that the page, the lists and the table on the terminal say.

    Attributes:
        table: the rows of the data and then of the test set, columns of ``store.SCHEMA``.
        num_data: where the test set begins.
        labels: int[N], index into ``classes``, -1 for none.
        classes: names of the data's classes, then the further ones of the test set.
        found: rows of ``table`` by finding, in groups; a finding about single images has
            one row per group.
        refused: names of files that were not loaded: pickles.
    """

    data: Manifest
    against: Manifest | None
    table: pa.Table
    num_data: int
    labels: np.ndarray
    classes: tuple[str, ...]
    found: dict[str, Grouped]
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    class_counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def num_unreadable(self) -> int:
        """Images of the data that cannot be used, whatever the reason."""
        return len(self.found["unreadable"].row)

    @property
    def reasons(self) -> dict[str, int]:
        """Why images of the data cannot be used, the most frequent reason first."""
        states = counts_of(self.column("state"))
        return {reason: count for reason, count in states.items() if reason != OK}

    def key(self, row: int) -> str:
        """The name of the image in this row, for people."""
        if row < self.num_data:
            return public(self.data.key(row))
        assert self.against is not None
        return public(self.against.key(row - self.num_data))

    def label(self, row: int) -> str | None:
        """The name of its class."""
        index = int(self.labels[row])
        return None if index < 0 else self.classes[index]

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the data's rows alone."""
        return self.table[name].slice(0, self.num_data)


def find(
    data: Manifest,
    table: pa.Table,
    against: Manifest | None = None,
    against_table: pa.Table | None = None,
    *,
    distance: int = NEAR_BITS,
    refused: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    stop: Callable[[], None] = lambda: None,
) -> Findings:
    """Put together what all images looked like."""
    classes, labels = data.classes, data.labels.astype(np.int64)
    whole = table
    if against is not None:
        assert against_table is not None
        whole = pa.concat_tables([table, against_table])
        classes, more = _merge(classes, against)
        labels = np.concatenate([labels, more])
    ok = pc.equal(whole["state"], OK).to_numpy()
    rows = np.flatnonzero(ok)
    seen = whole.filter(pa.array(ok))
    std = _numbers(seen["std"])
    copies = find_copies(
        content=_numbers(seen["hash"]),
        phash=_numbers(seen["phash"]),
        dhash=_numbers(seen["dhash"]),
        std=std,
        labels=labels[rows],
        rows=rows,
        num_data=len(data),
        distance=distance,
        stop=stop,
    )
    ours = rows < len(data)
    width, height = _numbers(seen["width"])[ours], _numbers(seen["height"])[ours]
    short, long = np.minimum(width, height), np.maximum(width, height)
    rows = rows[ours]
    tiny = (short < TINY) & (short < np.median(short) / 2) if len(short) else short < 0
    singles = {
        "unreadable": np.flatnonzero(~ok[: len(data)]),
        "blank": rows[std[ours] < BLANK_STD],
        "tiny": rows[tiny],
        "long": rows[long > LONG * short],
        "animated": rows[_numbers(seen["animated"])[ours].astype(bool)],
    }
    found = copies._asdict() | {
        kind: Grouped(np.arange(len(each), dtype=np.int64), each) for kind, each in singles.items()
    }
    usable = ok[: len(data)] & (data.labels >= 0)
    return Findings(
        data=data,
        against=against,
        table=whole,
        num_data=len(data),
        labels=labels,
        classes=classes,
        found={kind: found[kind] for kind in TITLES},
        refused=refused,
        notes=notes,
        class_counts=np.bincount(data.labels[usable], minlength=len(data.classes)),
    )


def counts_of(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    found = [
        (str(pair["values"]), int(pair["counts"]))
        for pair in pc.value_counts(column.drop_null()).to_pylist()
    ]
    return dict(sorted(found, key=lambda pair: (-pair[1], pair[0])))


def side_counts(findings: Findings) -> list[tuple[str, int]]:
    """Readable images by their short side in pixels."""
    width, height = findings.column("width"), findings.column("height")
    short = _numbers(pc.min_element_wise(width, height).drop_null())
    place = np.searchsorted(SIDES, short, side="right")
    counts = np.bincount(place, minlength=len(SIDES) + 1).tolist()
    names = [f"under {SIDES[0]}"]
    names += [f"{low} to {high - 1}" for low, high in itertools.pairwise(SIDES)]
    names.append(f"{SIDES[-1]} and more")
    return list(zip(names, counts, strict=True))


def as_json(findings: Findings) -> dict[str, Any]:
    """All counts, and the first groups of each list."""
    counts = findings.class_counts
    present = counts[counts > 0]
    return {
        "version": 1,
        "data": public(findings.data.source),
        "against": None if findings.against is None else public(findings.against.source),
        "images": findings.num_data,
        "against_images": len(findings.table) - findings.num_data,
        "readable": findings.num_data - findings.num_unreadable,
        "unlabelled": int((findings.data.labels < 0).sum()),
        "classes": dict(zip(findings.data.classes, counts.tolist(), strict=True)),
        "imbalance": float(present.max() / present.min()) if len(present) else None,
        "states": counts_of(findings.column("state")),
        "formats": counts_of(findings.column("format")),
        "modes": counts_of(findings.column("mode")),
        "short_side": dict(side_counts(findings)),
        "refused": {"files": len(findings.refused), "list": list(findings.refused[:MOST_GROUPS])},
        "notes": list(findings.notes),
        "findings": {kind: _one_as_json(findings, found) for kind, found in findings.found.items()},
    }


def as_table(findings: Findings) -> pa.Table:
    """The lists in full: a row per image and finding; files that were refused have no id."""
    kinds = np.repeat(list(findings.found), [len(f.row) for f in findings.found.values()])
    rows = np.concatenate([found.row for found in findings.found.values()])
    group = np.concatenate([found.group for found in findings.found.values()])
    in_data = rows < findings.num_data
    keys = findings.data.table["key"]
    if findings.against is not None:
        keys = pa.chunked_array([*keys.chunks, *findings.against.table["key"].chunks], pa.string())
    names = pa.array([*findings.classes], pa.string())
    labels = pa.array(findings.labels[rows], mask=findings.labels[rows] < 0)
    refused = pa.table(
        {
            "finding": pa.array(["refused"] * len(findings.refused), pa.string()),
            "source": pa.array(["data"] * len(findings.refused), pa.string()),
            "key": pa.array(findings.refused, pa.string()),
        }
    )
    images = pa.table(
        {
            "finding": pa.array(kinds, pa.string()),
            "group": group,
            "source": pc.if_else(pa.array(in_data), "data", "against"),
            "id": np.where(in_data, rows, rows - findings.num_data),
            "key": pa.array(map(public, keys.take(pa.array(rows)).to_pylist()), pa.string()),
            "label": names.take(labels),
            **{
                name: findings.table[name].take(pa.array(rows))
                for name in ("state", "width", "height", "bytes")
            },
        }
    )
    return pa.concat_tables([images, refused], promote_options="default")


def _one_as_json(findings: Findings, found: Grouped) -> dict[str, Any]:
    listed = []
    ends = np.searchsorted(found.group, np.arange(MOST_GROUPS + 1))
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        if start < end:
            rows = found.row[start : min(end, start + MOST_PER_GROUP)].tolist()
            listed.append([_image_as_json(findings, row) for row in rows])
    return {"groups": found.num_groups, "images": len(np.unique(found.row)), "list": listed}


def _image_as_json(findings: Findings, row: int) -> dict[str, Any]:
    in_data = row < findings.num_data
    return {
        "source": "data" if in_data else "against",
        "id": row if in_data else row - findings.num_data,
        "key": findings.key(row),
        "label": findings.label(row),
        "state": findings.table["state"][row].as_py(),
    }


def _merge(classes: tuple[str, ...], against: Manifest) -> tuple[tuple[str, ...], np.ndarray]:
    """Labels of the test set as indices into the data's classes and further ones behind them."""
    index = {name: i for i, name in enumerate(classes)}
    for name in against.classes:
        index.setdefault(name, len(index))
    places = np.array([*(index[name] for name in against.classes), -1], dtype=np.int64)
    return tuple(index), places[against.labels]


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy())
