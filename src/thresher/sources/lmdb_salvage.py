"""Records of an LMDB file of which a part is missing, found without its library.

LMDB finds records from a root page that is usually written last, and maps the file, where what is
missing ends the process. Here every page that is there is looked at instead: leaf pages name keys
and where their values lie. Right for databases that were only added to, as Caffe's tools do.
Layout: ``mdb.c`` of LMDB 0.9, structures MDB_meta, MDB_page and MDB_node, on 64-bit machines.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEADER = 16  # of each page: number, padding, flags, ends of the free space (or pages it goes on)
_LEAF, _OVERFLOW = 0x02, 0x04
_BIG = 0x01  # flag of a node: its value has pages of its own
_MAGIC = 0xBEEFC0DE
_PAGE_SIZES = {1 << bits for bits in range(9, 17)}


class Record(NamedTuple):
    """A key, and where in the file its value lies."""

    key: bytes
    offset: int
    length: int


def salvage(file: Path) -> list[Record]:
    """All records whose values are in the file whole, in the order of their keys."""
    handle = os.open(file, os.O_RDONLY)
    try:
        found = {record.key: record for record in _walk(handle, os.fstat(handle).st_size)}
    finally:
        os.close(handle)
    return [found[key] for key in sorted(found)]


def _walk(handle: int, size: int) -> Iterator[Record]:
    head = os.pread(handle, 44, 0)
    if len(head) < 44 or struct.unpack_from("<I", head, _HEADER)[0] != _MAGIC:
        return
    (page_size,) = struct.unpack_from("<I", head, 40)
    if page_size not in _PAGE_SIZES:
        return
    number = 2  # behind two pages of metadata
    while (number + 1) * page_size <= size:
        page = os.pread(handle, _HEADER, number * page_size)
        own, _, flags, lower, _ = struct.unpack("<QHHHH", page)
        step = 1
        if own == number and flags & _OVERFLOW:
            step = max(1, struct.unpack_from("<I", page, 12)[0])
        elif own == number and flags & _LEAF:
            page = os.pread(handle, page_size, number * page_size)
            yield from _records(handle, page, number * page_size, min(lower, page_size), size)
        number += step


def _records(handle: int, page: bytes, base: int, lower: int, size: int) -> Iterator[Record]:
    for (at,) in struct.iter_unpack("<H", page[_HEADER : _HEADER + (lower - _HEADER) // 2 * 2]):
        if at + 8 > len(page):
            continue
        low, high, flags, key_size = struct.unpack_from("<HHHH", page, at)
        length, value = low | high << 16, at + 8 + key_size
        offset = base + value
        if flags & _BIG:
            if value + 8 > len(page):
                continue
            (first,) = struct.unpack_from("<Q", page, value)
            offset = first * len(page) + _HEADER
            header = os.pread(handle, _HEADER, first * len(page)) if offset <= size else b""
            if len(header) < _HEADER or not header[10] & _OVERFLOW:
                continue
        if offset + length <= size:
            yield Record(page[at + 8 : at + 8 + key_size], offset, length)
