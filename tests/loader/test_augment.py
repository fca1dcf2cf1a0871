from __future__ import annotations

import pytest
import torch

from thresher.loader.augment import NUM_DRAWS, Augmentation, shift
from thresher.types import View

IDENTITY = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
CENTRE = torch.full((1, NUM_DRAWS), 0.5)


def picture(side: int = 8, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)


def test_plain_view_is_only_normalised() -> None:
    make = Augmentation(shift=2, flip=True, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    image = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    out = make(image, View.PLAIN, CENTRE)
    assert out[0, :, 0, 0].tolist() == pytest.approx([1.0, 3.0, 1.0])


def test_weak_view_flips_and_shifts_by_whole_pixels() -> None:
    make = Augmentation(shift=2, flip=True, **IDENTITY)
    image = picture()
    draws = CENTRE.clone()
    draws[0, :3] = torch.tensor([0.4, 0.99, 0.0])  # flip; down by 2; right by -2
    out = (make(image, View.WEAK, draws) * 255).round().to(torch.uint8)
    flipped = image.flip(3)
    torch.testing.assert_close(out[:, :, :6, 2:], flipped[:, :, 2:, :6])


@pytest.mark.parametrize("reach", [0, 2])
def test_weak_views_are_mirrored_first_then_shifted_then_normalised(reach: int) -> None:
    mean, std = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)
    images = picture(batch=6)
    draws = torch.rand(6, NUM_DRAWS, generator=torch.Generator().manual_seed(3))
    mirrored = torch.stack(
        [x.flip(2) if d < 0.5 else x for x, d in zip(images, draws[:, 0], strict=True)]
    )
    assert not torch.equal(mirrored, images)
    moved = shift(mirrored, reach, draws[:, 1:3]) if reach else mirrored
    expected = (moved / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    out = Augmentation(reach, True, mean, std)(images, View.WEAK, draws)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-6)


def test_flip_can_be_switched_off() -> None:
    make = Augmentation(shift=0, flip=False, **IDENTITY)
    draws = torch.zeros(1, NUM_DRAWS)
    out = make(picture(), View.WEAK, draws)
    torch.testing.assert_close(out, picture().float() / 255)


def test_shift_reflects_at_the_border() -> None:
    row = torch.arange(5.0).reshape(1, 1, 1, 5).expand(1, 1, 5, 5)
    out = shift(row, 2, torch.tensor([[0.5, 0.99]]))  # right by 2
    assert out[0, 0, 0].tolist() == [2.0, 3.0, 4.0, 3.0, 2.0]


def test_strong_view_in_the_middle_of_all_draws_changes_only_the_hole() -> None:
    make = Augmentation(shift=0, flip=True, hole=0.5, **IDENTITY)
    image = picture()
    out = make(image, View.STRONG, CENTRE) * 255
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[2:6, 2:6] = True
    torch.testing.assert_close(out[..., ~hole], image[..., ~hole].float(), atol=0.01, rtol=0)
    assert (out[..., hole] == 0).all()


def test_a_sample_looks_the_same_in_any_batch() -> None:
    make = Augmentation(shift=2, flip=True, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = picture(batch=6)
    draws = torch.rand(6, NUM_DRAWS, generator=torch.Generator().manual_seed(1))
    for view in View:
        together = make(images, view, draws)
        alone = torch.cat([make(images[i : i + 1], view, draws[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        assert together.is_contiguous(memory_format=torch.channels_last)
