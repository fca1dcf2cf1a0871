"""Ends of all kinds: killed, interrupted, a worker that dies, a disk that is full."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from tests.sources.web import WebServer, status
from thresher.cli import main
from thresher.errors import UserError
from thresher.scan import store as store_module
from thresher.scan.look import Look
from thresher.scan.pool import CRASHED, Chunk, Pool, Stopped
from thresher.scan.run import scan
from thresher.scan.store import Store
from thresher.scan.worker import save_locations
from thresher.sources.detect import open_source

from .conftest import jpeg, write_tree

NUM = 400


@pytest.fixture
def many(tmp_path: Path) -> Path:
    data = jpeg(1)
    files = {f"{i % 2}/{i:04d}.jpg": data + b"%d" % i for i in range(NUM)}
    return write_tree(tmp_path / "data", files)


def start(data: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command, slowed down so that there is a middle to be stopped in."""
    code = (
        "import sys; import thresher.scan.explore as e; e._PART_SECONDS = 0.0; e.CHUNK = 4;"
        "from thresher.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, "scan", str(data), "--out", str(out), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for_parts(out: Path, process: subprocess.Popen[bytes], num: int) -> None:
    end = time.monotonic() + 60
    while len(list(out.glob("parts/scan-*.parquet"))) < num:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=10)
    return not alive


def test_killed_in_the_middle_it_goes_on_and_leaves_no_process(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(many, out)
    wait_for_parts(out, process, 5)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    assert gone(workers)
    parts = sorted(out.glob("parts/scan-*.parquet"))
    known = sum(pq.read_metadata(part).num_rows for part in parts)
    assert 0 < known < NUM
    (out / "parts" / ".scan-000099.parquet.x.tmp").write_bytes(b"half a part")
    assert scan(str(many), out).touched == NUM - known
    scan(str(many), tmp_path / "fresh")
    for name in ("scan.parquet", "manifest.parquet", "findings.parquet"):
        assert pq.read_table(out / name).equals(pq.read_table(tmp_path / "fresh" / name))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_so_keeps_its_work_and_leaves_no_process(
    many: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start(many, out)
    wait_for_parts(out, process, 3)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert b"the same command goes on" in said
    assert b"Traceback" not in said
    assert gone(workers)
    assert not list(out.rglob("*.tmp"))
    assert 0 < scan(str(many), out).touched < NUM


def test_two_scans_do_not_share_a_directory(many: Path, tmp_path: Path) -> None:
    with (
        Store.open(tmp_path / "out", str(many)),
        pytest.raises(UserError, match="Another scan is at work"),
    ):
        scan(str(many), tmp_path / "out")
    scan(str(many), tmp_path / "out")


@pytest.fixture
def locations(many: Path, tmp_path: Path) -> Path:
    save_locations(open_source(str(many)), tmp_path / "locations")
    return tmp_path / "locations"


def chunks(num: int, size: int) -> Iterator[Chunk]:
    for start in range(0, num, size):
        rows = np.arange(start, min(start + size, num))
        yield Chunk(rows, rows.astype(np.uint64))


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(locations: Path) -> None:
    seen: dict[int, Look] = {}
    with Pool(2, locations, lambda: False) as pool:
        for number, (chunk, looks) in enumerate(pool.run(chunks(200, 8))):
            seen |= dict(zip(chunk.rows.tolist(), looks, strict=True))
            if number in (3, 9):
                next(worker for worker in pool._workers if worker.ready).process.kill()
    assert sorted(seen) == list(range(200))
    assert {look.state for look in seen.values()} == {"ok"}


def test_an_image_that_crashes_the_decoder_is_the_only_one_lost(
    locations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker in which the reading of row 37 ends the process, as a broken decoder would.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'thresher.scan.worker' in sys.orig_argv:\n"
        "    from thresher.sources import read\n"
        "    whole = read.Reader.read\n"
        "    read.Reader.read = lambda s, i: os.abort() if i == 37 else whole(s, i)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    states: dict[int, str] = {}
    with Pool(2, locations, lambda: False) as pool:
        for chunk, looks in pool.run(chunks(120, 16)):
            states |= {i: look.state for i, look in zip(chunk.rows.tolist(), looks, strict=True)}
    assert sorted(states) == list(range(120))
    assert [i for i, state in states.items() if state != "ok"] == [37]
    assert states[37] == CRASHED


def test_workers_that_cannot_start_are_a_sentence(
    locations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'thresher.scan.worker' in sys.orig_argv: os._exit(7)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    children = psutil.Process().children()
    with (
        pytest.raises(UserError, match=r"ended before it began .*--workers"),
        Pool(2, locations, lambda: False) as pool,
    ):
        list(pool.run(chunks(40, 4)))
    assert psutil.Process().children() == children


def test_stopping_ends_the_workers(locations: Path) -> None:
    children = psutil.Process().children()
    asked = iter([False] * 3)
    with pytest.raises(Stopped), Pool(2, locations, lambda: next(asked, True)) as pool:
        list(pool.run(chunks(400, 4)))
    assert psutil.Process().children() == children


def test_a_full_disk_is_a_sentence_and_keeps_what_was_seen(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pq.write_table
    written = []

    def write(table: object, path: Path, **options: object) -> None:
        if len(written) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        whole(table, path, **options)

    monkeypatch.setattr("thresher.scan.explore.CHUNK", 16)
    monkeypatch.setattr("thresher.scan.explore._PART_SECONDS", 0.0)
    monkeypatch.setattr(store_module.pq, "write_table", write)
    with pytest.raises(UserError, match="No space left to write"):
        scan(str(many), tmp_path / "out")
    monkeypatch.undo()
    assert 0 < scan(str(many), tmp_path / "out").touched < NUM


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_right_to_write(many: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(UserError, match="No right"):
        scan(str(many), tmp_path / "locked" / "out")


def test_a_server_that_refuses_all_images_stops_the_scan(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images are not marked as damaged: they may be read tomorrow."""
    monkeypatch.setenv("THRESHER_CACHE_DIR", str(tmp_path / "cache"))
    web = WebServer(tmp_path)
    try:
        rows = "".join(f"{web.url}/gone/{i}.jpg,{i % 2}\n" for i in range(NUM))
        (tmp_path / "t.csv").write_text(f"path,label\n{rows}")
        web.fail("gone/", *[status(403)] * 2 * NUM)
        out = tmp_path / "out"
        assert main(["scan", str(tmp_path / "t.csv"), "--out", str(out), "--workers", "2"]) == 2
    finally:
        web.close()
    said = capfd.readouterr().err
    assert "HTTP 403: access refused" in said
    assert "What was looked at is kept." in said
    assert "worker.py" not in said  # the server may complain of a client that hung up
    assert not (out / "manifest.parquet").exists()


@pytest.mark.parametrize("problem", ["there is no such file", "access refused"])
def test_a_shard_that_cannot_be_had_is_noted_and_the_rest_looked_at(
    tmp_path: Path, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRESHER_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "a").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "a" / f"{shard}.tar", "w") as tar:
            for i in range(4):
                for kind, data in (("jpg", jpeg(4 * shard + i)), ("cls", b"%d" % (i % 2))):
                    info = tarfile.TarInfo(f"{i}.{kind}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                tar.addfile(tarfile.TarInfo(f"{i}.notes"))
    web = WebServer(tmp_path)
    try:
        web.fail("1.tar", *[status(404 if "no such" in problem else 403)] * 99)
        result = scan(f"{web.url}/a/{{0..1}}.tar", tmp_path / "out", workers=1)
    finally:
        web.close()
    assert result.findings.num_data == 4
    (note,) = result.findings.notes
    assert "1.tar" in note
    assert problem in note
