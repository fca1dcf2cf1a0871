"""Data of other training systems that are not read: what they are, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from thresher.sources.request import printable

_WRITE_OUT = (
    "It is not read here: write its images out as class folders, as WebDataset tars or as Parquet "
    "with image bytes, and name those."
)
_BY_ENDING = {
    ".arrow": "an Arrow file",
    ".beton": "an FFCV file",
    ".mds": "a MosaicML Streaming shard",
    ".tfrecord": "a TFRecord file",
    ".tfrecords": "a TFRecord file",
    ".rec": "an MXNet RecordIO file",
    ".h5": "an HDF5 file",
    ".hdf5": "an HDF5 file",
    ".npy": "a NumPy file",
    ".npz": "a NumPy file",
    ".mat": "a MATLAB file",
    ".ffcv": "an FFCV file",
}
_PICTURES = {
    ".heic": "a HEIC image",
    ".heif": "a HEIF image",
    ".jp2": "a JPEG 2000 image",
    ".jxl": "a JPEG XL image",
    ".svg": "a drawing",
    ".avif": "an AVIF image",
    ".psd": "a Photoshop file",
}
_LISTS = {
    ".xlsx": "Save it as CSV.",
    ".xls": "Save it as CSV.",
    ".ods": "Save it as CSV.",
    ".json": "Write one JSON object a line and name the file .jsonl.",
    ".txt": "Give it a first line such as path,label and commas between, and name it .csv.",
    ".lst": "Give it a first line such as path,label and commas between, and name it .csv.",
}


_TFRECORD = re.compile(r"-\d{5}-of-\d{5}")
_READ_BY = {
    "MosaicML": " streaming.StreamingDataset(local=...) reads it.",
    "LitData": " litdata.StreamingDataset reads it.",
    "TFRecord": " tf.data.TFRecordDataset reads it.",
    "FFCV": " What it was written from is the better source: its images may be smaller.",
}


def _advise(what: str, kind: str) -> str:
    reader = next((text for name, text in _READ_BY.items() if name in kind), "")
    return f"{what} is {kind}. {_WRITE_OUT}{reader}"


def foreign_file(name: str) -> str:
    """What to say of a file of another system; empty if its ending is not known."""
    path = Path(name)
    beside = [entry.name for entry in path.parent.iterdir()] if path.is_file() else []
    if path.name == "index.json" or path.suffix == ".bin":
        whole = foreign_folder(str(path.parent), beside)
        if whole:
            return whole
    if ".mds." in path.name:
        return _advise(printable(name), _BY_ENDING[".mds"])
    if _TFRECORD.fullmatch(path.name[-15:]):
        return _advise(printable(name), "a TFRecord file, by its name")
    advice = _LISTS.get(Path(name.lower()).suffix)
    if advice:
        return f"{printable(name)} is no table that is read here. {advice}"
    picture = _PICTURES.get(Path(name.lower()).suffix)
    if picture:
        return f"{printable(name)} is {picture}, which is not read here. Convert it to JPEG or PNG."
    kind = _BY_ENDING.get(Path(name.lower()).suffix)
    return _advise(printable(name), kind) if kind else ""


def foreign_folder(folder: str, names: Sequence[str]) -> str:
    """What to say of a folder that another system wrote; empty if none is known.

    Args:
        folder: as the user named it.
        names: what lies in it.
    """
    there, shown = set(names), printable(folder)
    if "dataset_dict.json" in there:
        return (
            f"{shown} holds splits that save_to_disk of Hugging Face's datasets wrote, which are "
            "not read here. Convert the one to train on: "
            f"datasets.load_from_disk('{shown}')['train'].to_parquet('train.parquet')."
        )
    if {"state.json", "dataset_info.json"} <= there:
        return (
            f"{shown} was written by save_to_disk of Hugging Face's datasets, which is not read "
            f"here. Convert it: datasets.load_from_disk('{shown}').to_parquet('data.parquet')."
        )
    kind = None
    if "CURRENT" in there and any(name.startswith("MANIFEST-") for name in names):
        kind = "a LevelDB"
    elif "index.json" in there and any(name.endswith(".bin") for name in names):
        kind = "a LitData set"
    elif "index.json" in there and any(".mds" in name for name in names):
        kind = "a MosaicML Streaming set"
    else:
        by_ending = (_BY_ENDING.get(Path(name.lower()).suffix) for name in names)
        found = next((kind for kind in by_ending if kind), None)
        kind = f"a folder with {found}" if found else None
    if kind is None and names and all(_TFRECORD.search(name) for name in names):
        kind = "a folder with TFRecord files, by their names"
    return _advise(shown, kind) if kind else ""
