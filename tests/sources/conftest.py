"""Tiny real images, and data of every kind made of them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

UGLY_NAMES = ("a&b <i>.jpg", "猫 一.jpg", "with space.jpg", "ünï.JPG", "quote'\".jpg")


def make_image(number: int, size: tuple[int, int] = (4, 3), kind: str = "JPEG") -> bytes:
    """An encoded image whose bytes differ by number."""
    buffer = io.BytesIO()
    colour = (number * 37 % 256, number * 91 % 256, number * 13 % 256)
    image = Image.new("RGB", size, colour)
    image.save(buffer, format=kind, **({"comment": str(number)} if kind == "JPEG" else {}))
    return buffer.getvalue()


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_tar(path: Path, members: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_parquet_images(
    path: Path,
    images: list[bytes | None],
    labels: list[object] | None,
    *,
    names: list[str] | None = None,
    paths: list[str | None] | None = None,
    row_group_size: int = 3,
    plain: bool = False,
    label_column: str = "label",
) -> Path:
    """As the ``datasets`` library writes it; ``plain``: a binary column without paths."""
    columns: dict[str, pa.Array] = {}
    if plain:
        columns["image"] = pa.array(images, pa.binary())
    else:
        cells = [
            {"bytes": data, "path": where}
            for data, where in zip(images, paths or [None] * len(images), strict=True)
        ]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns["image"] = pa.array(cells, kind)
    if labels is not None:
        columns[label_column] = pa.array(labels)
    table = pa.table(columns)
    if names is not None:
        features = {
            "image": {"_type": "Image"},
            label_column: {"names": names, "_type": "ClassLabel"},
        }
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


@pytest.fixture
def two_classes() -> dict[str, bytes]:
    """Files of a tree with classes 'cat' and 'dog', some with names that need care."""
    cats = {f"cat/{name}": make_image(i) for i, name in enumerate(UGLY_NAMES)}
    dogs = {f"dog/{i}.jpg": make_image(100 + i) for i in range(3)}
    return cats | dogs


@pytest.fixture
def unprivileged() -> Iterator[tuple[Path, Callable[[], contextlib.AbstractContextManager[None]]]]:
    """A folder, and a context in which even a test run by root has no special rights."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)

    @contextlib.contextmanager
    def drop() -> Iterator[None]:
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)

    yield folder, drop
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def fork() -> Callable[[Callable[[], bytes]], bytes]:
    """Call a function in a forked child and give back what it returns."""

    def run(call: Callable[[], bytes]) -> bytes:
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # forking beside threads: on purpose
            child = os.fork()
        if child == 0:
            try:
                with os.fdopen(write, "wb") as pipe:
                    pipe.write(call())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            data = pipe.read()
        os.waitpid(child, 0)
        return data

    return run
