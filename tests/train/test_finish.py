"""The ledger of a run as people get it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from thresher.dist.runtime import Runtime
from thresher.ledger.ledger import Ledger
from thresher.methods.base import basic_columns
from thresher.sources.manifest import make_manifest
from thresher.train.finish import write_ledger_table
from thresher.types import Judgement


def test_a_loss_too_large_for_its_column_is_written_as_the_largest(tmp_path: Path) -> None:
    """The column is float16; infinity would spoil every mean that people make of it."""
    manifest = make_manifest(
        kind="files",
        shards=["/data"],
        classes=["cat", "dog"],
        source="/data",
        keys=["0.jpg", "1.jpg"],
        labels=np.array([0, 1]),
    )
    ledger = Ledger(np.arange(2), np.array([0, 1]), basic_columns(2, num_classes=2))
    losses = torch.tensor([[1e6, 4.0], [1.0, 2.0]])
    ledger.update(torch.arange(2), {"loss": losses})
    judgement = Judgement(torch.ones(2), torch.tensor([0, 1]), torch.ones(2))
    runtime = Runtime("cpu", "fp32", alone=True)
    write_ledger_table(tmp_path / "ledger.parquet", manifest, ledger, judgement, runtime)
    written = pq.read_table(tmp_path / "ledger.parquet")
    assert written["loss"].to_pylist() == [(65_504 + 4) / 2, 1.5]
