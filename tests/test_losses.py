from __future__ import annotations

import math

import pytest
import torch

from thresher.losses import cross_entropy, soft_cross_entropy

# softmax of these is (1/4, 1/4, 1/2) and (1/2, 1/4, 1/4)
LOGITS = torch.tensor([[0.0, 0.0, math.log(2)], [math.log(2), 0.0, 0.0]])


def test_cross_entropy_is_minus_log_of_the_labels_probability() -> None:
    loss = cross_entropy(LOGITS, torch.tensor([2, 1]))
    assert loss.tolist() == pytest.approx([math.log(2), math.log(4)], abs=1e-6)


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    # 0.7 of the label and 0.1 of each class: 0.8 log 2 + 0.1 log 4 + 0.1 log 4 = 1.2 log 2
    loss = cross_entropy(LOGITS[:1], torch.tensor([2]), smoothing=0.3)
    assert loss.item() == pytest.approx(1.2 * math.log(2), abs=1e-6)


def test_soft_cross_entropy_weights_the_classes() -> None:
    targets = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    expected = [0.5 * math.log(4) + 0.5 * math.log(2), math.log(2)]
    assert soft_cross_entropy(LOGITS, targets).tolist() == pytest.approx(expected, abs=1e-6)


def test_soft_cross_entropy_to_one_class_is_cross_entropy() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 2, 1, 1])
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    torch.testing.assert_close(soft_cross_entropy(logits, one_hot), cross_entropy(logits, labels))
