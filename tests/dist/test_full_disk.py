"""A disk that is full when a run's results are written: one sentence, no rank waits."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import SafetensorError
from torch import nn

from tests.conftest import write_classes
from tests.dist.runs import free_port, rank, sentences, thresher
from thresher.errors import UserError
from thresher.export import weights

COMMON = (
    "--method", "ce", "--epochs", "2", "--batch-size", "12", "--image-size", "16", "--val-share",
    "0", "--accelerator", "cpu", "--threads", "1", "--peer-timeout", "30",
)  # fmt: skip
# Every file is synced under a name of its own before it takes its place.
FULL = """
import errno, os, thresher.files as files
sync = files.sync
def full(path):
    if path.name.startswith(".{name}."):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    sync(path)
files.sync = full
"""
FULL_FOR_FIGURES = """
import errno, os, thresher.train.run_dir as run_dir
def full(self, lines):
    with run_dir.explain_write_errors(self.metrics):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.metrics))
run_dir.RunDir.append_metrics = full
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("full") / "data")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "ledger.parquet", "summary.json", "metrics.jsonl"]
)
def test_a_full_disk_at_the_end_is_one_sentence(name: str, data: Path, tmp_path: Path) -> None:
    out, port = tmp_path / "run", free_port()
    code = FULL_FOR_FIGURES if name == "metrics.jsonl" else FULL.format(name=name)
    words = ["train", data, "--out", out, *COMMON]
    codes, said = sentences([rank(number, 2, port, words, code) for number in range(2)])
    assert codes == [2, 2]
    assert len(said) == 1, said
    assert f"No space left to write {out / name}" in said[0]
    left = {path.name for path in out.iterdir()}
    assert name not in left
    assert "summary.json" not in left, "nothing takes it for finished"
    assert not [name for name in left if name.endswith(".tmp")]
    # With space again the run goes on from its last checkpoint, which has nothing left to train.
    done = thresher("train", "--resume", "--out", out)
    assert done.returncode == 0, done.stderr
    assert (out / "ledger.parquet").is_file()


def test_what_safetensors_says_of_a_full_disk_is_a_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(UserError, match="No space left to write"):
        weights.write_weights(nn.Linear(1, 1), tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
