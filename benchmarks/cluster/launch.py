"""One command under torchrun in every host at once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .hosts import Network

MASTER_PORT = 29500


@dataclass(frozen=True)
class Finished:
    """What torchrun came to in one host.

    Attributes:
        code: exit code.
        stdout: what its processes printed.
        stderr: their errors, and torchrun's.
        sent_bytes: what left the host by its network while it ran.
    """

    code: int
    stdout: str
    stderr: str
    sent_bytes: int


@contextmanager
def torchrun_started(
    net: Network,
    words: Sequence[str | Path],
    folder: Path,
    *,
    per_host: int = 1,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[list[subprocess.Popen[str]]]:
    """``torchrun … WORDS`` running in each host, host 0 first; killed at the end if still there.

    Args:
        net: the hosts.
        words: a module with its arguments: ``-m thresher train …``, or a script.
        folder: ``0.out``, ``0.err`` and so on are written here.
        per_host: processes in each host.
        options: more for torchrun, such as ``--max-restarts 3``.
        env: in place of this process's environment.
    """
    processes = []
    try:
        for rank, host in enumerate(net.hosts):
            command = [
                sys.executable, "-m", "torch.distributed.run",
                "--nnodes", str(len(net.hosts)), "--node-rank", str(rank),
                "--nproc-per-node", str(per_host),
                "--master-addr", net.hosts[0].address, "--master-port", str(MASTER_PORT),
                # The hosts share this machine's name, so the name says nothing of the address.
                "--local-addr", host.address, *options, *words,
            ]  # fmt: skip
            with (folder / f"{rank}.out").open("w") as out, (folder / f"{rank}.err").open("w") as e:
                processes.append(host.popen(command, env, stdout=out, stderr=e))
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def torchrun(
    net: Network,
    words: Sequence[str | Path],
    *,
    per_host: int = 1,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    seconds: float = 600,
) -> list[Finished]:
    """Run to the end in every host; see :func:`torchrun_started`.

    Raises:
        subprocess.TimeoutExpired: not done within ``seconds``.
    """
    before = [host.sent_bytes() for host in net.hosts]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ends = time.monotonic() + seconds
        with torchrun_started(
            net, words, folder, per_host=per_host, options=options, env=env
        ) as processes:
            codes = [process.wait(max(0.0, ends - time.monotonic())) for process in processes]
        return [
            Finished(
                code,
                (folder / f"{rank}.out").read_text(),
                (folder / f"{rank}.err").read_text(),
                host.sent_bytes() - before[rank],
            )
            for rank, (host, code) in enumerate(zip(net.hosts, codes, strict=True))
        ]
