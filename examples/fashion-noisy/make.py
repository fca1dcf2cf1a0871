"""Make the demo data: real Fashion-MNIST images, 40 % of the training labels wrong.

    python examples/fashion-noisy/make.py --source /usr/share/datasets/fashion-mnist

reads the four original files (Debian: ``apt install dataset-fashion-mnist``) and writes

- ``train.parquet``        images and NOISY labels, the only file that training opens
- ``test.parquet``         images and true labels, for scoring
- ``train-true.parquet``   the true training labels by row, for scoring and for the ceiling run

Every draw comes from one fixed seed. The bytes also depend on the libraries that encode them;
the committed files were written with the versions in ``WRITTEN_WITH``.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

WRITTEN_WITH = {"pyarrow": "26.0.1", "pillow": "13.0.0", "numpy": "2.4.6"}
CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
# Garments that people confuse; a wrong label falls inside its group three times out of four.
GROUPS = ((0, 2, 3, 4, 6), (5, 7, 9))
IN_GROUP = 0.75
WRONG_SHARE = 0.40
SEED = 20261123


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped IDX file (LeCun's format) of unsigned bytes."""
    with gzip.open(path, "rb") as file:
        raw = file.read()
    num_dims = raw[3]
    shape = np.frombuffer(raw, dtype=">i4", count=num_dims, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * num_dims).reshape(shape)


def choose_balanced(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of ``per_class`` random samples of each class, in random order."""
    chosen = [
        rng.choice(np.flatnonzero(labels == c), size=per_class, replace=False)
        for c in range(len(CLASSES))
    ]
    return rng.permutation(np.concatenate(chosen))


def add_noise(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make exactly ``WRONG_SHARE`` of each class wrong, mostly within its group."""
    noisy = labels.copy()
    group_of = {c: set(group) for group in GROUPS for c in group}
    for true in range(len(CLASSES)):
        members = np.flatnonzero(labels == true)
        wrong = rng.choice(members, size=round(WRONG_SHARE * len(members)), replace=False)
        neighbours = sorted(group_of.get(true, set()) - {true})
        others = [c for c in range(len(CLASSES)) if c != true]
        for index in wrong:
            near = bool(neighbours) and rng.random() < IN_GROUP
            noisy[index] = rng.choice(neighbours if near else others)
    return noisy


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def write_images(path: Path, images: np.ndarray, labels: np.ndarray, prefix: str) -> None:
    """Write the layout of Hugging Face image datasets, class names in the schema metadata."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(CLASSES), "_type": "ClassLabel"},
    }
    cells = [
        {"bytes": png(pixels), "path": f"{prefix}-{row:05d}.png"}
        for row, pixels in enumerate(images)
    ]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array(cells, type=image_type),
            "label": pa.array(labels, type=pa.int64()),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, compression="zstd", row_group_size=500)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--train-per-class", type=int, default=200)
    parser.add_argument("--test-per-class", type=int, default=100)
    args = parser.parse_args()

    rng = np.random.default_rng(SEED)
    images = read_idx(args.source / "train-images-idx3-ubyte.gz")
    labels = read_idx(args.source / "train-labels-idx1-ubyte.gz")
    rows = choose_balanced(labels, args.train_per_class, rng)
    true = labels[rows].astype(np.int64)
    args.out.mkdir(parents=True, exist_ok=True)
    write_images(args.out / "train.parquet", images[rows], add_noise(true, rng), "train")
    pq.write_table(
        pa.table({"row": np.arange(len(true)), "label": true}),
        args.out / "train-true.parquet",
    )

    images = read_idx(args.source / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(args.source / "t10k-labels-idx1-ubyte.gz")
    rows = choose_balanced(labels, args.test_per_class, rng)
    write_images(args.out / "test.parquet", images[rows], labels[rows].astype(np.int64), "test")


if __name__ == "__main__":
    main()
