"""TensorBoard's events are an extra: a run does without them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch.utils.tensorboard

from thresher.train.events import open_events


def test_a_full_disk_leaves_out_events_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a run is started again while something else fills the disk."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.utils.tensorboard, "SummaryWriter", full)
    with pytest.warns(UserWarning, match="TensorBoard events are not written .*No space left"):
        events = open_events(tmp_path)
    events.close()
