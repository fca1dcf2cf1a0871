"""Shared by all tests: the demo's images, small real data sets, one thread per process."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.sources.faulty import FaultyProxy
    from tests.sources.web import WebServer
    from thresher.dist.group import Group
    from thresher.sources.remote.retry import Patience

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the machine's cores are shared by real processes

ROOT = Path(__file__).resolve().parents[1]
FASHION = ROOT / "examples" / "fashion-noisy"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def pair() -> Iterator[Group]:
    """Two ranks, as far as an exchange asks; its sums are those of one."""
    from thresher.dist.group import pretended_pair

    with pretended_pair() as group:
        yield group


@pytest.fixture(scope="session")
def fashion() -> Path:
    """Folder of the demo's Parquet files."""
    return FASHION


def write_classes(root: Path, per_class: int = 12, size: int = 16, seed: int = 0) -> Path:
    """A folder tree of two classes that differ by brightness, as PNG files."""
    rng = np.random.default_rng(seed)
    for label, (name, level) in enumerate((("dark", 60), ("light", 190))):
        folder = root / name
        folder.mkdir(parents=True)
        for index in range(per_class):
            pixels = rng.integers(level - 40, level + 40, size=(size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{label}-{index:03d}.png")
    return root


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """Twelve dark and twelve light images in two class folders."""
    return write_classes(tmp_path / "data")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test, never that of the user."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("THRESHER_CACHE_DIR", str(folder))
    monkeypatch.delenv("THRESHER_CACHE_GB", raising=False)
    return folder


def be_quick(monkeypatch: pytest.MonkeyPatch, patience: Patience) -> None:
    """Bear with servers for so long in this process; its connections are new ones."""
    from thresher.sources.remote import store

    monkeypatch.setattr(store, "PATIENCE", patience)
    monkeypatch.setattr("thresher.sources.remote.shard.PATIENCE", patience)
    monkeypatch.setattr(store, "_stores", {})


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A web server of the folder ``www``."""
    from tests.sources.web import QUICK, WebServer

    be_quick(monkeypatch, QUICK)
    (tmp_path / "www").mkdir()
    server = WebServer(tmp_path / "www")
    yield server
    server.close()


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The address of an S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The bucket ``s3://data``, empty, and an environment in which it is found."""
    import boto3

    from tests.sources.s3 import QUICK

    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    be_quick(monkeypatch, QUICK)
    resource = boto3.resource("s3", endpoint_url=endpoint, region_name="us-east-1")
    bucket = resource.create_bucket(Bucket="data")
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


@pytest.fixture
def proxy(endpoint: str, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """What lies between us and the bucket, and spoils answers on request."""
    from tests.sources.faulty import FaultyProxy

    proxy = FaultyProxy(endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()
