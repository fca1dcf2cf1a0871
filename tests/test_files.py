"""Files written aside: what a killed process leaves is removed, what a living one writes is not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from thresher import files
from thresher.files import write_atomically

WRITER = """
import sys, time
from pathlib import Path
from thresher.files import write_atomically
with write_atomically(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("half", flush=True)
    sys.stdin.read()
    temporary.write_text("whole")
"""


def start(path: Path) -> subprocess.Popen[bytes]:
    """A process in the middle of writing; it goes on when its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    return process


def left(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob(".*"))


def write(path: Path) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text("new")


@pytest.mark.parametrize("name", ["labels.csv", "other.csv"])
def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path, name: str) -> None:
    process = start(tmp_path / "labels.csv")
    assert len(left(tmp_path)) == 1
    process.kill()
    process.communicate()
    (tmp_path / ".mine.tmp").write_text("not ours")
    (tmp_path / ".mine.thresher.tmp").write_text("not ours")
    write(tmp_path / name)
    assert left(tmp_path) == [".mine.thresher.tmp", ".mine.tmp"]
    assert (tmp_path / name).read_text() == "new"


def test_two_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    process = start(tmp_path / "labels.csv")
    write(tmp_path / "labels.csv")
    assert len(left(tmp_path)) == 1
    process.communicate(b"")
    assert process.returncode == 0
    assert (tmp_path / "labels.csv").read_text() == "whole"
    assert left(tmp_path) == []


def test_a_file_that_a_library_put_in_the_place_of_ours_stays_too(tmp_path: Path) -> None:
    """As safetensors does: the lock is then on a file that nobody sees any more."""
    with write_atomically(tmp_path / "a.csv") as temporary:
        (tmp_path / "own").write_text("whole")
        (tmp_path / "own").replace(temporary)
        code = WRITER.replace("sys.stdin.read()", "")
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "b.csv")], check=True)
    assert (tmp_path / "a.csv").read_text() == "whole"


def test_of_another_machine_only_what_is_old_goes(tmp_path: Path) -> None:
    young, old = (
        tmp_path / f".a.csv.0123abcd-1-23-{name}.thresher.tmp" for name in ("youngone", "oldstuff")
    )
    for file in (young, old):
        file.write_text("half")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    write(tmp_path / "a.csv")
    assert left(tmp_path) == [young.name]


def test_one_that_is_taken_for_a_leftover_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = files.fcntl.flock
    taken: list[str] = []

    def slow(handle: int, how: int) -> None:
        if not taken:
            taken.extend(left(tmp_path))
            (tmp_path / taken[0]).unlink()  # as another process would
        lock(handle, how)

    monkeypatch.setattr(files.fcntl, "flock", slow)
    write(tmp_path / "a.csv")
    assert len(taken) == 1
    assert (tmp_path / "a.csv").read_text() == "new"


def test_many_processes_sweep_and_write_at_once(tmp_path: Path) -> None:
    """Each looks for leftovers anew, which in one process only the first would do."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(40):
                files._swept.clear()
                write(tmp_path / f"{number % 2}.csv")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert left(tmp_path) == []
