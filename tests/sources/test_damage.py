"""What is said of shards that are left out."""

from __future__ import annotations

from pathlib import Path

from thresher.sources.damage import left_out
from thresher.sources.detect import open_source

from .conftest import make_image, write_tar


def write_tars(root: Path, num: int) -> list[Path]:
    return [
        write_tar(
            root / f"{number}.tar",
            {
                "a.jpg": make_image(number),
                "a.cls": b"0",
                "b.jpg": make_image(number + 100),
                "b.cls": b"1",
            },
        )
        for number in range(num)
    ]


def test_one_line_names_a_few_and_why(tmp_path: Path) -> None:
    tars = write_tars(tmp_path, 12)
    data = f"{tmp_path}/*.tar"
    assert left_out(open_source(data).options) is None
    tars[2].write_bytes(b"")
    said = left_out(open_source(data, allow_damaged=True).options)
    assert said == (
        "1 damaged file is left out, wholly or in part: '2.tar'. "
        f"{tars[2]} is damaged: it is empty. It has no good member."
    )
    for number in (10, 11, 3):
        tars[number].write_bytes(b"<html>" * 100)
    said = left_out(open_source(data, allow_damaged=True).options)
    assert said == (
        "4 damaged files are left out, wholly or in part: '2.tar', '3.tar', '10.tar', ... (4 in "
        f"all). The first: {tars[2]} is damaged: it is empty. It has no good member."
    )
