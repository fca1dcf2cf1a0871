"""Data of other training systems that are not read: what they are, and what to do instead."""

from __future__ import annotations

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
_LISTS = {
    ".xlsx": "Save it as CSV.",
    ".xls": "Save it as CSV.",
    ".ods": "Save it as CSV.",
    ".json": "Write one JSON object a line and name the file .jsonl.",
    ".txt": "Give it a first line such as path,label and commas between, and name it .csv.",
    ".lst": "Give it a first line such as path,label and commas between, and name it .csv.",
}


def foreign_file(name: str) -> str:
    """What to say of a file of another system; empty if its ending is not known."""
    advice = _LISTS.get(Path(name.lower()).suffix)
    if advice:
        return f"{printable(name)} is no table that is read here. {advice}"
    kind = _BY_ENDING.get(Path(name.lower()).suffix)
    return f"{printable(name)} is {kind}. {_WRITE_OUT}" if kind else ""


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
    return f"{shown} is {kind}. {_WRITE_OUT}" if kind else ""
