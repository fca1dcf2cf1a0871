"""Other loaders doing the same work, each as its documentation shows it.

They draw parts of the same sizes and proportions as Thresher does; ``min_area`` is the least share
of an image.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from thresher.loader.canvas import CROP_RATIO
from thresher.sources.detect import open_source
from thresher.sources.read import Reader

_BATCH = 128
_WORKERS = 2
_SIZE = 224


def _transform(min_area: float) -> v2.Compose:
    return v2.Compose(
        [
            v2.RandomResizedCrop(_SIZE, scale=(min_area, 1.0), ratio=CROP_RATIO, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )


def torchvision_loader(tree: Path, min_area: float) -> Iterator[int]:
    data = ImageFolder(str(tree), _transform(min_area))
    for images, _ in DataLoader(data, _BATCH, shuffle=True, num_workers=_WORKERS):
        yield len(images)


class _Tars(Dataset[tuple[torch.Tensor, int]]):
    """Packed tars, read as Thresher reads them and decoded as the baseline decodes."""

    def __init__(self, folder: Path, min_area: float) -> None:
        manifest = open_source(str(folder))
        self._reader, self._labels = Reader(manifest), manifest.labels
        self._transform = _transform(min_area)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(io.BytesIO(self._reader.read(index))).convert("RGB")
        return self._transform(image), int(self._labels[index])


def torchvision_on_tars(packed: Path, min_area: float) -> Iterator[int]:
    for images, _ in DataLoader(
        _Tars(packed, min_area), _BATCH, shuffle=True, num_workers=_WORKERS
    ):
        yield len(images)


def timm_loader(tree: Path, min_area: float) -> Iterator[int]:
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", root=str(tree), split=""),
        input_size=(3, _SIZE, _SIZE),
        batch_size=_BATCH,
        is_training=True,
        # Neither normalises nor converts to float, which the others leave to the device.
        use_prefetcher=True,
        num_workers=_WORKERS,
        interpolation="bilinear",
        scale=(min_area, 1.0),
        ratio=CROP_RATIO,
        color_jitter=0.0,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    # The batches of its worker processes: uint8, before the part that runs on a device.
    for images, _ in loader.loader:
        yield len(images)


def _decode_with_pil(transform: v2.Compose, data: bytes) -> torch.Tensor:
    image: torch.Tensor = transform(Image.open(io.BytesIO(data)).convert("RGB"))
    return image


def webdataset_loader(packed: Path, min_area: float) -> Callable[[], Iterator[int]] | None:
    with contextlib.suppress(ImportError):
        import webdataset

        decode = partial(_decode_with_pil, _transform(min_area))
        shards = sorted(str(path) for path in packed.glob("*.tar"))

        def batches() -> Iterator[int]:
            data = (
                webdataset.WebDataset(
                    shards, shardshuffle=False, workersplitter=webdataset.split_by_worker,
                    empty_check=False,
                )
                .shuffle(100)
                .to_tuple("jpg", "__key__")
                .map_tuple(decode, len)
                .batched(_BATCH)
            )  # fmt: skip
            for images, _ in DataLoader(data, batch_size=None, num_workers=_WORKERS):
                yield len(images)

        return batches
    return None


def dali_loader(files: list[str], min_area: float) -> Callable[[], Iterator[int]] | None:
    with contextlib.suppress(ImportError):
        from nvidia.dali import fn, pipeline_def

        @pipeline_def(batch_size=_BATCH, num_threads=_WORKERS, device_id=None)  # type: ignore[untyped-decorator]
        def pipeline() -> Any:
            encoded, labels = fn.readers.file(files=files, random_shuffle=True, name="files")
            images = fn.decoders.image_random_crop(
                encoded,
                device="cpu",
                random_area=[min_area, 1.0],
                random_aspect_ratio=list(CROP_RATIO),
            )
            images = fn.resize(images, size=(_SIZE, _SIZE), antialias=True)
            return fn.flip(images, horizontal=fn.random.coin_flip()), labels

        def batches() -> Iterator[int]:
            built = pipeline()
            built.build()
            for _ in range(len(files) // _BATCH):
                images, _ = built.run()
                yield len(images)

        return batches
    return None
