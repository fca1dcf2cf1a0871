"""What other systems write is refused by its name, with what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from thresher.errors import UserError
from thresher.sources.detect import open_source

FOLDERS = {
    ("data-00000-of-00001.arrow", "dataset_info.json", "state.json"): r"load_from_disk\('.*/set'\)",
    ("dataset_dict.json", "train/data.arrow"): r"load_from_disk\('.*'\)\['train'\].to_parquet",
    ("index.json", "chunk-0-0.bin"): "is a LitData set",
    ("index.json", "shard.00000.mds"): "is a MosaicML Streaming set",
    ("CURRENT", "MANIFEST-000002", "000005.ldb"): "is a LevelDB",
    ("train-00000-of-00001.tfrecord",): "is a folder with a TFRecord file",
    # As MosaicML Streaming 0.13, LitData 0.2 and TensorFlow Datasets name them.
    ("train/index.json", "train/shard.00000.mds.zstd"): "set/train is a MosaicML Streaming set",
    ("train/index.json", "train/chunk-0-0.bin"): "set/train is a LitData set",
    ("train-00000-of-00002", "train-00001-of-00002"): "a folder with TFRecord files, by their",
}


@pytest.mark.parametrize("names", FOLDERS)
def test_folders(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with pytest.raises(UserError, match=FOLDERS[names]):
        open_source(str(tmp_path / "set"))


@pytest.mark.parametrize("name", ["a.beton", "b.TFRecord", "c.arrow", "d.h5"])
def test_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"is an? \w+ file. It is not read here: write its images"):
        open_source(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("shard.00000.mds.zstd", "is a MosaicML Streaming shard"),
        ("index.json", "set is a MosaicML Streaming set.*StreamingDataset"),
        ("train-00000-of-00002", "is a TFRecord file, by its name.*TFRecordDataset"),
    ],
)
def test_files_without_an_ending_of_their_own(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "set").mkdir()
    for file in (name, "index.json", "shard.00000.mds.zstd"):
        (tmp_path / "set" / file).write_bytes(b"x")
    with pytest.raises(UserError, match=says):
        open_source(str(tmp_path / "set" / name))


def test_pictures_that_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"x")
    with pytest.raises(UserError, match=r"is a HEIC image, which is not read here\. Convert it"):
        open_source(str(tmp_path / "a.HEIC"), labelled=False)
