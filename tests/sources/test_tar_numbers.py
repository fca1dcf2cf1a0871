"""Numbers in the extended headers of tars that somebody wrote to do harm."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

import pytest

from thresher.errors import UserError
from thresher.sources.detect import open_source

from .conftest import make_image


def write_hostile(path: Path, records: bytes) -> Path:
    """A good image, and one behind an extended header with these records."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind, data in (
            ("good.jpg", tarfile.REGTYPE, make_image(1)),
            ("header", tarfile.XHDTYPE, records),
            ("bad.jpg", tarfile.REGTYPE, make_image(2)),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    return str(length + (len(str(length)) > len(str(len(rest))))).encode() + rest


@pytest.mark.parametrize(
    "records",
    [
        record(b"size", b"9" * 5000),
        record(b"size", b"0" * 5000 + b"7"),
        b"9" * 5000 + b" path=x\n",
        b"9" * 5000,
        b"1" * 21 + b" path=x\n",
    ],
    ids=["size", "zeros", "length", "digits alone", "just too long"],
)
def test_numbers_of_thousands_of_digits_are_damage(tmp_path: Path, records: bytes) -> None:
    tar = write_hostile(tmp_path / "a.tar", records)
    with pytest.raises(UserError) as caught:
        open_source(str(tar), labelled=False)
    assert str(caught.value) == (
        f"{tar} is damaged: an extended header is damaged. The last good member is 'good.jpg'. "
        "Download or write it again, or take the rest with --allow-damaged."
    )
    assert len(open_source(str(tar), labelled=False, allow_damaged=True)) == 1


def test_a_size_beyond_the_file_is_a_cut_file(tmp_path: Path) -> None:
    tar = write_hostile(tmp_path / "a.tar", record(b"size", b"9" * 20))
    with pytest.raises(UserError, match="it ends in the middle of a file"):
        open_source(str(tar), labelled=False)


def test_many_tiny_records_take_no_time(tmp_path: Path) -> None:
    tar = write_hostile(tmp_path / "a.tar", b"3 \n" * ((1 << 20) // 3))
    start = time.perf_counter()
    assert len(open_source(str(tar), labelled=False)) == 2
    assert time.perf_counter() - start < 10  # half a minute where each record copies the rest
