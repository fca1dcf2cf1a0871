"""Batches on the device: the same wherever images are kept; what is marked gpu needs one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import encode
from thresher.loader import keep
from thresher.loader.augment import Augmentation
from thresher.loader.feed import Feed
from thresher.loader.order import Order
from thresher.loader.pipeline import Loader
from thresher.loader.transfer import Transfer, to_device
from thresher.types import Batch, View

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
GB = 10**9
CUDA = torch.device("cuda")
NUM = 37


def images() -> list[bytes]:
    rng = np.random.default_rng(0)
    made = []
    for index in range(NUM):
        small = Image.fromarray(rng.integers(0, 255, (3, 4, 3), dtype=np.uint8))
        made.append(encode(small.resize((50 + index, 40 + index % 7)), "PNG"))
    made[5] = b"no image"
    return made


def served(device: str, cache: str, framing: str) -> list[tuple[Batch, torch.Tensor]]:
    loader = Loader(
        images().__getitem__, np.arange(NUM), np.arange(NUM) % 3, size=32, framing=framing,
        seed=2, cache=cache, device=torch.device(device),
    )  # fmt: skip
    feed = Feed(
        loader, Order(NUM, 8, seed=1), Augmentation(0, True, (0.5,) * 3, (0.2,) * 3),
        (View.WEAK, View.STRONG), torch.device(device), seed=3,
    )  # fmt: skip
    batches = [item for epoch in range(3) for item in feed.epoch(epoch)]
    feed.close()
    assert loader.unreadable == {5: "not an image"}
    return batches


@pytest.fixture
def device_store_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU stands in for a GPU: it runs the same operations."""
    decide = keep.decide
    monkeypatch.setattr(
        "thresher.loader.pipeline.decide",
        lambda cache, *rest: (
            keep.Decision("device", "test") if cache == "device" else decide(cache, *rest)
        ),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("device_store_anywhere")
def test_batches_are_the_same_wherever_images_are_kept(device: str) -> None:
    expected = served("cpu", "none", "whole")
    for cache in ("none", "host", "device"):
        got = served(device, cache, "whole")
        assert len(got) == len(expected)
        for (batch, rows), (wanted, wanted_rows) in zip(got, expected, strict=True):
            assert batch.views[0].device.type == device
            assert batch.views[0].shape == (8, 3, 32, 32)  # never another shape
            assert rows.tolist() == wanted_rows.tolist()
            for name in ("ids", "labels", "valid"):
                assert getattr(batch, name).tolist() == getattr(wanted, name).tolist()
            for view, wanted_view in zip(batch.views, wanted.views, strict=True):
                torch.testing.assert_close(view.cpu(), wanted_view, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("device_store_anywhere")
def test_crops_on_the_device_are_those_of_the_host(device: str) -> None:
    """Near them: edges of a box fall on whole pixels on the host and between them on the device."""
    for (batch, _), (wanted, _) in zip(
        served(device, "device", "random_crop"), served("cpu", "host", "random_crop"), strict=True
    ):
        assert batch.ids.tolist() == wanted.ids.tolist()
        assert (batch.views[0].cpu() - wanted.views[0]).abs().mean() < 0.1


@pytest.mark.gpu
def test_copies_run_ahead_on_their_own_stream() -> None:
    """Each batch is whole when it is used, however long the step before it takes."""
    batches = [torch.full((64, 1024, 256), float(index)).pin_memory() for index in range(20)]
    sums = []
    for (batch,) in Transfer(CUDA).ahead(iter(batches), lambda b: (to_device(b, CUDA),)):
        torch.cuda._sleep(20_000_000)
        sums.append(batch.mean())
        del batch
    assert [float(value) for value in sums] == list(range(20))


def test_every_item_is_sent_once_and_in_order() -> None:
    numbers = [torch.tensor([index]) for index in range(5)]
    device = torch.device("cpu")
    sent = Transfer(device).ahead(iter(numbers), lambda n: (to_device(n, device),))
    assert [int(number) for (number,) in sent] == [0, 1, 2, 3, 4]


def test_auto_prefers_the_device_then_memory_then_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "free_device_memory", lambda _: 10 * GB)
    monkeypatch.setattr(keep, "free_memory", lambda: 40 * GB)
    fits = keep.decide("auto", 4 * GB, CUDA)
    assert fits == keep.Decision("device", "decoded images stay on the device (4.0 GB)")
    larger = keep.decide("auto", 5 * GB, CUDA)
    assert larger.place == "host"
    assert larger.why == (
        "decoded images stay in memory (5.0 GB), since they need more than 40 % of what the device"
        " has free"
    )
    assert keep.decide("auto", 11 * GB, CUDA).place == "none"
    assert keep.decide("auto", 4 * GB, torch.device("cpu")).place == "host"
    assert keep.decide("device", 7 * GB, CUDA).place == "device"
    assert keep.decide("host", 4 * GB, CUDA).why == "decoded images stay in memory (4.0 GB)"
    with pytest.raises(ValueError, match=r"--cache device needs 9\.0 GB, but the device has 10\.0"):
        keep.decide("device", 9 * GB, CUDA)
