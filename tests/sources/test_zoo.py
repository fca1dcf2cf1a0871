from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from thresher.errors import UserError
from thresher.sources.detect import open_source
from thresher.sources.read import Reader

from .zoo.make import VERDICTS, make_zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zoo")
    make_zoo(root)
    return root


@pytest.mark.parametrize("name", VERDICTS)
def test_each_gets_its_verdict(zoo: Path, name: str) -> None:
    verdict = VERDICTS[name]
    data = f"{zoo}/{name}"
    with pytest.raises(UserError, match=verdict.sentence):
        open_source(data)
    if verdict.left is None:
        with pytest.raises(UserError, match=verdict.sentence):
            open_source(data, allow_damaged=True)
        return
    manifest = open_source(data, allow_damaged=True)
    usable = manifest.usable.nonzero()[0].tolist()
    assert len(usable) == verdict.left
    reader = Reader(manifest)
    for index in usable:
        Image.open(io.BytesIO(reader.read(index))).load()
    noted = manifest.options.get("damaged_shards", {})
    assert bool(noted) == (not name.startswith("table"))


def test_the_zoo_is_small(zoo: Path) -> None:
    assert sum(file.stat().st_size for file in zoo.rglob("*") if file.is_file()) < 300_000
