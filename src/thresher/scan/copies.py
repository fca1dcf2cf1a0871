"""Which images are the same picture: byte for byte, or to the eye."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from thresher.scan.near import groups_of, near_pairs

NEAR_BITS = 8
"""Default distance of perceptual hashes up to which images count as the same picture. On 250
photographs all re-encoded, resized, brightened and greyed copies lie within 8 of 64 bits, as do
92 % of those that lost 2 % at each edge; no two different ones are closer than 16."""
CONFIRM_BITS = 10
"""A second hash, of another kind, must agree within this. It removes the chance meetings that
one hash of 64 bits has among millions of images (144 in a million random ones at 8 bits) and
most that plain backgrounds bring about; of the cut photographs 91 % remain."""
BLANK_STD = 3.0
"""Grey levels; below this an image is blank, and its hash only noise."""


class Grouped(NamedTuple):
    """Rows in groups: ``row[i]`` is in group ``group[i]``; groups count from 0, side by side."""

    group: np.ndarray
    row: np.ndarray

    @property
    def num_groups(self) -> int:
        """How many groups there are."""
        return int(self.group[-1]) + 1 if len(self.group) else 0


class Copies(NamedTuple):
    """All findings about the same picture being there more than once.

    Attributes:
        exact: groups of identical files.
        near: groups of images that look the same, at least two of them different files.
        exact_labels: those of ``exact`` that carry several labels.
        near_labels: those of ``near`` whose different files carry several labels.
        exact_leaks: files of the test set with the identical files in the data.
        near_leaks: images of the test set with those of the data that only look the same.
    """

    exact: Grouped
    near: Grouped
    exact_labels: Grouped
    near_labels: Grouped
    exact_leaks: Grouped
    near_leaks: Grouped


def find_copies(
    *,
    content: np.ndarray,
    phash: np.ndarray,
    dhash: np.ndarray,
    std: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    num_data: int,
    distance: int = NEAR_BITS,
    stop: Callable[[], None] = lambda: None,
) -> Copies:
    """Compare all images with all.

    Args:
        content: uint64[k], hash of the bytes.
        phash: uint64[k].
        dhash: uint64[k].
        std: float[k], of the grey pixels.
        labels: int[k], -1 for none.
        rows: int64[k], who they are: below ``num_data`` of the data, else of the test set.
        num_data: where the test set begins.
        distance: most differing bits of the same picture.
    """
    content = np.unique(content, return_inverse=True)[1]
    is_data = rows < num_data
    exact = _groups(content[is_data], rows[is_data], least=2)
    label_of_row = np.full(int(rows.max(initial=-1)) + 1, -1, dtype=np.int64)
    label_of_row[rows] = labels
    content_of_row = np.full(len(label_of_row), -1, dtype=np.int64)
    content_of_row[rows] = content

    seen = np.flatnonzero(std >= BLANK_STD)
    nodes, node = np.unique(
        np.stack([phash[seen], dhash[seen]], axis=1), axis=0, return_inverse=True
    )
    node = node.reshape(-1)
    second = nodes[:, 1]
    pairs = near_pairs(
        np.ascontiguousarray(nodes[:, 0]),
        distance,
        confirm=lambda i, j: np.bitwise_count(second[i] ^ second[j]) <= CONFIRM_BITS,
        stop=stop,
    )
    data_here = np.bincount(node[is_data[seen]], minlength=len(nodes)) > 0
    root = groups_of(len(nodes), pairs[data_here[pairs].all(axis=1)])
    of_data = is_data[seen]
    near = _groups(root[node[of_data]], rows[seen][of_data], least=2)
    near = _where(near, _num_distinct(near, content_of_row[near.row]) > 1)
    return Copies(
        exact=exact,
        near=near,
        exact_labels=_where(exact, _num_distinct(exact, label_of_row[exact.row]) > 1),
        near_labels=_near_labels(near, label_of_row, content_of_row),
        exact_leaks=_exact_leaks(content, rows, is_data),
        near_leaks=_near_leaks(node, pairs, rows[seen], content[seen], is_data[seen]),
    )


def _groups(key: np.ndarray, rows: np.ndarray, least: int) -> Grouped:
    """Rows by key, without the keys of fewer than ``least`` rows; the largest group first."""
    _, inverse, sizes = np.unique(key, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    kept = sizes[inverse] >= least
    inverse, rows = inverse[kept], rows[kept]
    order = np.lexsort((rows, inverse, -sizes[inverse]))
    return Grouped(_renumber(inverse[order]), rows[order])


def _renumber(ordered: np.ndarray) -> np.ndarray:
    """0, 1, ... for each run of equal values."""
    if not len(ordered):
        return np.zeros(0, dtype=np.int64)
    return np.cumsum(np.concatenate([[False], ordered[1:] != ordered[:-1]])).astype(np.int64)


def _where(groups: Grouped, keep: np.ndarray) -> Grouped:
    kept = keep[groups.group] if len(groups.group) else np.zeros(0, dtype=bool)
    return Grouped(_renumber(groups.group[kept]), groups.row[kept])


def _num_distinct(groups: Grouped, values: np.ndarray) -> np.ndarray:
    """int64[num_groups], the distinct values in each group, -1 not counted."""
    counted = values >= 0
    pairs = np.unique(np.stack([groups.group[counted], values[counted]], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=groups.num_groups)


def _near_labels(near: Grouped, label_of_row: np.ndarray, content_of_row: np.ndarray) -> Grouped:
    """Groups in which different files have different labels.

    A file that has several labels itself is left aside: it is a finding of its own.
    """
    content, label = content_of_row[near.row], label_of_row[near.row]
    labelled = label >= 0
    pairs = np.unique(np.stack([content[labelled], label[labelled]], axis=1), axis=0)
    num_labels = np.bincount(pairs[:, 0], minlength=int(content.max(initial=-1)) + 1)
    single = num_labels[content] == 1 if len(content) else labelled
    return _where(near, _num_distinct(near, np.where(single, label, -1)) > 1)


def _exact_leaks(content: np.ndarray, rows: np.ndarray, is_data: np.ndarray) -> Grouped:
    shared = np.isin(content, np.intersect1d(content[is_data], content[~is_data]))
    return _groups(content[shared], rows[shared], least=1)


def _near_leaks(
    node: np.ndarray, pairs: np.ndarray, rows: np.ndarray, content: np.ndarray, is_data: np.ndarray
) -> Grouped:
    """Per picture of the test set its look-alikes in the data that are not identical to it."""
    tested = np.unique(node[~is_data])
    if not len(tested):
        return Grouped(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    both = np.concatenate([np.stack([tested, tested], axis=1), pairs, pairs[:, ::-1]])
    both = both[np.isin(both[:, 0], tested) & np.isin(both[:, 1], node[is_data])]
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    order = np.argsort(node, kind="stable")
    starts = np.searchsorted(node[order], np.arange(int(node.max()) + 2))
    group: list[np.ndarray] = []
    row: list[np.ndarray] = []
    test_nodes, first = np.unique(both[:, 0], return_index=True)
    last = np.append(first, len(both))[1:]
    for test_node, begin, end in zip(test_nodes.tolist(), first, last, strict=True):
        in_test = order[starts[test_node] : starts[test_node + 1]]
        in_test = in_test[~is_data[in_test]]
        others = both[begin:end, 1].tolist()
        in_data = np.concatenate([order[starts[n] : starts[n + 1]] for n in others])
        in_data = in_data[is_data[in_data]]
        in_data = in_data[~np.isin(content[in_data], content[in_test])]
        if len(in_data):
            found = np.concatenate([in_test, in_data])
            row.append(rows[found])
            group.append(np.full(len(found), len(group), dtype=np.int64))
    empty = np.zeros(0, dtype=np.int64)
    return Grouped(np.concatenate([empty, *group]), np.concatenate([empty, *row]))
