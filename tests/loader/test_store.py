"""Kept images: the same crops from them, where they are kept, and what is said of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from tests.conftest import encode
from thresher.errors import UserError
from thresher.loader import keep
from thresher.loader.canvas import CROP_DRAWS, Box, cut, random_box
from thresher.loader.draws import uniforms
from thresher.loader.pipeline import Loader
from thresher.loader.store import DeviceStore, HostStore, store_side

CPU = torch.device("cpu")
SIZE = 48
PLAN = np.arange(12).reshape(3, 4)


def ramps(height: int, width: int) -> np.ndarray:
    """Red tells the column and green the row, as shares of the image."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None, :]
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return pixels


IMAGES = [
    encode(Image.fromarray(ramps(60 + 17 * i, 200 - 9 * i)), "PNG") for i in range(12)
]  # fmt: skip


def canvases(cache: str, epoch: int, **options: object) -> torch.Tensor:
    settings = {"size": SIZE, "framing": "random_crop", "seed": 3, **options}
    loader = Loader(IMAGES.__getitem__, np.arange(12), np.zeros(12), cache=cache, **settings)
    for earlier in range(epoch):
        list(loader.batches(earlier, PLAN))
    out = torch.cat([batch.canvas for batch in loader.batches(epoch, PLAN)])
    loader.close()
    return out.float()


@pytest.mark.parametrize(("min_area", "levels"), [(0.25, 4), (0.08, 5)])
@pytest.mark.parametrize("epoch", [0, 2])
def test_crops_of_kept_images_have_the_boxes_of_crops_of_decoded_ones(
    epoch: int, min_area: float, levels: int
) -> None:
    """Colours tell where each corner of a crop lies in its image."""
    kept, decoded = (canvases(where, epoch, min_area=min_area) for where in ("host", "none"))
    # Half a pixel of the kept square is 255 / 60 / 2 = 2.1 levels, and its rounding one more. A
    # small part is enlarged, so that half of its outermost pixels shows, up to 1.6 levels.
    assert (kept - decoded)[:, :2].abs().max() < levels
    other = canvases("none", epoch + 1, min_area=min_area)
    assert (other - decoded)[:, :2].abs().amax(dim=(1, 2, 3)).median() > 12


def test_a_fresh_start_in_a_later_epoch_gives_the_same_crops() -> None:
    loader = Loader(
        IMAGES.__getitem__, np.arange(12), np.zeros(12), size=SIZE, framing="random_crop", seed=3
    )
    assert loader.cache.place == "host"
    fresh = torch.cat([batch.canvas for batch in loader.batches(2, PLAN)])
    loader.close()
    torch.testing.assert_close(fresh.float(), canvases("host", 2))


def test_the_device_crops_as_the_host_does() -> None:
    """On the CPU, which runs the same operations."""
    side = store_side(SIZE, random=True)
    host, device = HostStore(3, side), DeviceStore(3, side, CPU)
    rng = np.random.default_rng(0)
    for row in range(3):
        image = Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8))
        smooth = np.array(image.filter(ImageFilter.GaussianBlur(6)))
        cut(smooth, Box(0, 0, 90, 120), host.pixels[row])
    for store in (host, device):
        store.sizes[:] = 90, 120
    device.put(np.arange(3), torch.from_numpy(host.pixels))
    assert device.filled.all()
    draws = uniforms(0, 0, np.arange(3), 0, CROP_DRAWS)
    rows = np.array([2, 0, 1])
    from_device = device.canvases(rows, SIZE, draws).permute(0, 2, 3, 1).numpy().astype(int)
    for place, row in enumerate(rows):
        out = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
        host.crop(row, draws[place], out)
        assert np.abs(from_device[place] - out).mean() < 2.5
    whole = device.canvases(rows, SIZE, None)
    np.testing.assert_array_equal(whole.permute(0, 2, 3, 1).numpy(), host.pixels[rows])


@pytest.mark.parametrize("framing", ["whole", "random_crop"])
def test_a_loader_with_a_device_store(framing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded once, unreadable ones marked, crops near those of the host's cache."""
    monkeypatch.setattr(
        "thresher.loader.pipeline.decide", lambda *_: keep.Decision("device", "test")
    )
    reads: list[int] = []

    def read(index: int) -> bytes:
        reads.append(index)
        return b"no image" if index == 5 else IMAGES[index]

    loader = Loader(read, np.arange(12), np.zeros(12), size=SIZE, framing=framing, seed=3)
    first = [list(loader.batches(epoch, PLAN)) for epoch in range(2)][1]
    loader.close()
    assert sorted(reads) == list(range(12))
    assert loader.unreadable == {5: "not an image"}
    assert [batch.valid.tolist() for batch in first] == [[True] * 4, [True, False] + [True] * 2,
                                                         [True] * 4]  # fmt: skip
    monkeypatch.undo()
    expected = canvases("host", 1, framing=framing)
    expected[5] = expected[4]
    got = torch.cat([batch.canvas for batch in first]).float()
    assert (got - expected).abs().mean() < 2


def test_the_smallest_crop_is_as_small_as_it_may_be() -> None:
    """A square image of 200 pixels; the second draw's middle is a square crop."""
    draws = np.array([0, 0.5, 0, 0], dtype=np.float32)
    assert random_box(200, 200, draws) == Box(0, 0, 100, 100)
    assert random_box(200, 200, draws, min_area=0.04) == Box(0, 0, 40, 40)
    assert random_box(200, 200, draws, min_area=1.0) == Box(0, 0, 200, 200)


def test_boxes_scale_with_their_image() -> None:
    assert Box(10, 20, 30, 40).scaled(0.5, 2.0) == Box(5, 40, 15, 80)
    assert Box(3, 3, 1, 1).scaled(0.1, 0.1) == Box(0, 0, 1, 1)
    for draws in uniforms(0, 0, np.arange(200), 0, CROP_DRAWS):
        box = random_box(333, 500, draws).scaled(60 / 333, 60 / 500)
        assert 0 <= box.top < box.top + box.height <= 60
        assert 0 <= box.left < box.left + box.width <= 60


def test_auto_keeps_what_fits_and_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "free_memory", lambda: 8 * 10**9)
    assert keep.decide("auto", 10**9, CPU).place == "host"
    assert keep.decide("auto", 10**9, CPU).why == "decoded images stay in memory (1.0 GB)"
    assert keep.decide("auto", 10**9, CPU, processes=4).place == "none"
    refused = keep.decide("auto", 3 * 10**9, CPU)
    assert refused.place == "none"
    assert "needs 3.0 GB, more than a quarter of the 8.0 GB" in refused.why
    assert keep.decide("host", 3 * 10**9, CPU).place == "host"
    assert keep.decide("none", 1, CPU).place == "none"
    with pytest.raises(UserError, match=r"--cache host needs 9\.0 GB of memory, but 8\.0 GB"):
        keep.decide("host", 9 * 10**9, CPU)


def test_a_device_cache_without_a_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="--cache device keeps images in a CUDA device's memory"):
        Loader(IMAGES.__getitem__, np.arange(2), np.zeros(2), size=8, framing="whole",
               cache="device")  # fmt: skip


def test_free_memory_minds_a_containers_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "_CGROUP", tmp_path)
    whole = keep.free_memory()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert keep.free_memory() > whole // 2
    (tmp_path / "memory.max").write_text("12000\n")
    assert keep.free_memory() == 7000


def test_images_that_a_checkpoint_knows_to_be_unreadable_need_no_second_look() -> None:
    """Later epochs take whole batches from memory, as after an epoch that was not stopped."""
    loader = Loader(IMAGES.__getitem__, np.arange(12), np.zeros(12), size=SIZE, framing="centre")
    loader.unreadable[5] = "damaged"
    batches = list(loader.batches(0, PLAN))
    assert [int(batch.valid.sum()) for batch in batches] == [4, 3, 4]

    def never(sample: int) -> bytes:
        raise AssertionError(f"{sample} is read again")

    loader._maker = dataclasses.replace(loader._maker, read=never)
    batches = list(loader.batches(1, PLAN))
    assert [int(batch.valid.sum()) for batch in batches] == [4, 3, 4]
    assert loader._is_full
    loader.close()
