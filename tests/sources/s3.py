"""What tests with an S3 server share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thresher.sources.remote.retry import Patience

QUICK = Patience(tries=3, first_pause=0.01, longest_pause=0.05, total_seconds=10, read_seconds=5)


def upload(bucket: Any, root: Path) -> None:
    """Put all files below a folder into a bucket."""
    for file in root.rglob("*"):
        if file.is_file():
            bucket.upload_file(str(file), file.relative_to(root).as_posix())
