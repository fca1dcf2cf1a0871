"""Writes the zoo: small files that are broken in the ways collections break.

    python tests/sources/zoo/make.py FOLDER

``VERDICTS`` says of each what opening it must answer, and how many images are left where damage is
allowed (None: it is refused all the same). Nothing is stored but this script.
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


class Verdict(NamedTuple):
    """A regular expression for the sentence, and what is left with --allow-damaged."""

    sentence: str
    left: int | None = None


VERDICTS = {
    "tar-cut-in-a-file/{0..1}.tar": Verdict(
        r"/1\.tar is damaged: it ends in the middle of a file\. .* '1\.cls'\. Download or write", 6
    ),
    "tar-cut-in-a-header/{0..1}.tar": Verdict(
        r"/1\.tar is damaged: it ends in the middle of a header\. .*--allow-damaged", 6
    ),
    "tar-that-is-a-web-page/{0..1}.tar": Verdict(
        r"/1\.tar is damaged: it is not a tar file\. It has no good member\.", 4
    ),
    "tar-with-a-flipped-bit/{0..1}.tar": Verdict(
        r"/1\.tar is damaged: the header at byte \d+ is damaged", 5
    ),
    "tar-with-a-zeroed-header/{0..1}.tar": Verdict(
        r"/1\.tar is damaged: the header at byte \d+ is damaged", 5
    ),
    "tar-of-gzip/{0..1}.tar": Verdict(
        r"/1\.tar is damaged: it is not a tar file but one of gzip; unpack it\.", 4
    ),
    "tar-empty/{0..1}.tar": Verdict(r"/1\.tar is damaged: it is empty", 4),
    "tar-lost/{0..1}.tar": Verdict(r"1 of 2 files of .* do not exist: '.*/1\.tar'", 4),
    "tar-leading-out/{0..1}.tar": Verdict(
        r"'\.\./\.\./evil\.jpg' of .* points outside the archive"
    ),
    "tar-all-cut/0.tar": Verdict(r"0\.tar is damaged: it ends in the middle of a file"),
    "parquet-without-images/{0..1}.parquet": Verdict(
        r"/1\.parquet has no column 'image' of the same type as the first file", 4
    ),
    "parquet-cut/{0..1}.parquet": Verdict(r"/1\.parquet is not a readable Parquet file: .*", 4),
    "parquet-first-cut/{0..1}.parquet": Verdict(
        r"/0\.parquet is not a readable Parquet file: .*", 4
    ),
    "parquet-of-length-0/{0..1}.parquet": Verdict(
        r"/1\.parquet is not a readable Parquet file: .*", 4
    ),
    "parquet-only-captions/0.parquet": Verdict(
        r"has no image column. Its columns: 'caption', 'label'\."
    ),
    "parquet-other-classes/{0..1}.parquet": Verdict(r"/1\.parquet names other classes than"),
    "parquet-two-label-columns/0.parquet": Verdict(r"has 2 columns named 'label'\. Give those"),
    "parquet-lists-of-images/0.parquet": Verdict(r"more than one image or path\. Write a row"),
    "lmdb-with-a-broken-page": Verdict(r"data\.mdb is damaged: .* Copy it again", 120),
    "lmdb-of-another-map": Verdict(
        r"is an LMDB, but not of Caffe's Datum records: .*image-000000001"
    ),
    "lmdb-cut": Verdict(r"data\.mdb is cut short: it has [\d,]+ of [\d,]+ bytes", 160),
    "lmdb-of-length-0": Verdict(r"data\.mdb is cut short: 0 bytes are no LMDB"),
    "lmdb-that-is-text": Verdict(r"data\.mdb cannot be opened as LMDB"),
    "table-of-lost-files/t.csv": Verdict(r"1 of 3 files listed in .* do not exist", 2),
    "table-of-other-unicode/t.csv": Verdict(
        r"1 of 3 files listed in .* do not exist.* written otherwise in Unicode", 2
    ),
    "table-with-an-open-quote/t.csv": Verdict(r"Labels of .* reach over several lines \(1\)"),
    "manifest-of-a-lost-shard/m.parquet": Verdict(r"There is no file .*/1\.tar\. Put it there", 4),
    "manifest-of-a-changed-shard/m.parquet": Verdict(
        r"/1\.tar changed size since the scan, from [\d,]+ to [\d,]+ bytes\. Scan or pack", 4
    ),
    "manifest-cut/m.parquet": Verdict(r"m\.parquet is not a readable Parquet file"),
}


def image(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (number * 37 % 256, 90, 20)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path: Path, *extra: str) -> bytearray:
    """Four images, two of each class; returns the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for i in range(4):
            for name, data in ((f"{i}.png", image(i)), (f"{i}.cls", b"%d" % (i % 2))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        for name in extra:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        end = archive.offset
    # Without the padding to 10 KiB, which is most of a tar this small; two blocks mark its end.
    path.write_bytes(path.read_bytes()[: end + 1024])
    return bytearray(path.read_bytes())


def parquet(path: Path, names: tuple[str, ...] = ("cat", "dog"), column: str = "image") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {"label": {"names": list(names), "_type": "ClassLabel"}}
    values = [image(i) if column == "image" else f"a {i}" for i in range(4)]
    table = pa.table({column: values, "label": [0, 1, 0, 1]})
    metadata = {"huggingface": str({"info": {"features": features}}).replace("'", '"')}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path.read_bytes()


def database(path: Path, records: dict[bytes, bytes]) -> Path:
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=1 << 20) as env, env.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)
    (path / "lock.mdb").unlink()
    return path / "data.mdb"


def second_header(raw: bytearray, name: bytes) -> int:
    return raw.index(name + b"\0")


def make_tars(root: Path) -> None:
    for name in VERDICTS:
        if name.startswith("tar-"):
            tar(root / name.replace("{0..1}", "0"))
    whole = tar(root / "tar-cut-in-a-file/1.tar")
    (root / "tar-cut-in-a-file/1.tar").write_bytes(whole[: second_header(whole, b"2.png") + 540])
    (root / "tar-cut-in-a-header/1.tar").write_bytes(whole[: second_header(whole, b"2.png") + 100])
    page = b"<html><body>503 Service Unavailable</body></html>"
    (root / "tar-that-is-a-web-page/1.tar").write_bytes(page)
    flipped = bytearray(whole)
    flipped[second_header(whole, b"1.cls")] ^= 0xFF
    (root / "tar-with-a-flipped-bit/1.tar").write_bytes(flipped)
    (root / "tar-empty/1.tar").write_bytes(b"")
    zeroed = bytearray(whole)
    start = second_header(whole, b"1.cls")
    zeroed[start : start + 512] = bytes(512)
    (root / "tar-with-a-zeroed-header/1.tar").write_bytes(zeroed)
    (root / "tar-of-gzip/1.tar").write_bytes(gzip.compress(whole))
    tar(root / "tar-leading-out/1.tar", "../../evil.jpg")
    (root / "tar-all-cut/0.tar").write_bytes(whole[:540])


def make_parquet(root: Path) -> None:
    for name in VERDICTS:
        if name.startswith("parquet-"):
            whole = parquet(root / name.replace("{0..1}", "0"))
            if "{0..1}" in name:
                (root / name.replace("{0..1}", "1")).write_bytes(whole)
    parquet(root / "parquet-without-images/1.parquet", column="caption")
    (root / "parquet-cut/1.parquet").write_bytes(whole[:-40])
    (root / "parquet-first-cut/0.parquet").write_bytes(whole[:-40])
    (root / "parquet-of-length-0/1.parquet").write_bytes(b"")
    parquet(root / "parquet-only-captions/0.parquet", column="caption")
    parquet(root / "parquet-other-classes/1.parquet", names=("dog", "cat"))
    images, labels = pa.array([image(i) for i in range(4)]), pa.array([0, 1, 0, 1])
    twice = pa.Table.from_arrays([images, labels, labels], names=["image", "label", "label"])
    pq.write_table(twice, root / "parquet-two-label-columns/0.parquet")
    lists = pa.table({"image": [[image(0), image(1)], [image(2)]], "label": [0, 1]})
    pq.write_table(lists, root / "parquet-lists-of-images/0.parquet")


def make_lmdbs(root: Path) -> None:
    database(root / "lmdb-of-another-map", {b"num-samples": b"1", b"image-000000001": image(0)})
    data = image(0)
    length = bytes([len(data) & 0x7F | 0x80, len(data) >> 7])  # for two bytes of seven bits
    datums = [b"\x22" + length + data + b"\x28" + bytes([label]) + b"\x38\x01" for label in (0, 1)]
    cut = database(root / "lmdb-cut", {b"%03d" % i: datums[i % 2] for i in range(200)})
    cut.write_bytes(cut.read_bytes()[:-4096])
    broken = database(
        root / "lmdb-with-a-broken-page", {b"%03d" % i: datums[i % 2] for i in range(120)}
    )
    content = bytearray(broken.read_bytes())
    content[4 * 4096 : 4 * 4096 + 16] = b"\xff" * 16
    broken.write_bytes(content)
    for name, content in (("lmdb-of-length-0", b""), ("lmdb-that-is-text", b"text\n" * 2000)):
        (root / name).mkdir()
        (root / name / "data.mdb").write_bytes(content)


def make_tables(root: Path) -> None:
    from thresher.sources.detect import open_source

    folder = root / "table-of-lost-files"
    folder.mkdir()
    for i in range(2):
        (folder / f"{i}.png").write_bytes(image(i))
    (folder / "t.csv").write_text("path,label\n0.png,cat\n1.png,dog\n2.png,dog\n")
    other, quote = root / "table-of-other-unicode", root / "table-with-an-open-quote"
    for copy in (other, quote):
        copy.mkdir()
        for name in ("0.png", "1.png", "e\u0301.png"):  # an accent of its own, as macOS writes it
            (copy / name).write_bytes(image(0))
    rows = "path,label\n0.png,cat\n1.png,dog\n\u00e9.png,dog\n"
    (other / "t.csv").write_text(rows, encoding="utf-8")
    (quote / "t.csv").write_text('path,label\n0.png,"cat\n1.png,"dog\n')
    for name in ("lost-shard", "changed-shard"):
        folder = root / f"manifest-of-a-{name}"
        whole = [tar(folder / f"{i}.tar") for i in range(2)][1]
        open_source(f"{folder}/{{0..1}}.tar").save(folder / "m.parquet")
        (folder / "1.tar").write_bytes(whole + b"\0" * 512)
    (root / "manifest-of-a-lost-shard/1.tar").unlink()
    (root / "manifest-cut").mkdir()
    content = (root / "manifest-of-a-lost-shard/m.parquet").read_bytes()
    (root / "manifest-cut/m.parquet").write_bytes(content[:-30])


def make_zoo(root: Path) -> None:
    make_tars(root)
    make_parquet(root)
    make_lmdbs(root)
    make_tables(root)


if __name__ == "__main__":
    make_zoo(Path(sys.argv[1]))
