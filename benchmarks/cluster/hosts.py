"""Several hosts on one machine: network namespaces joined by a link of a given rate and round trip.

Where the kernel has netem, the namespaces hang on a bridge by veth pairs, shaped by tbf and netem.
Where it has not, ``relay.py`` carries the packets. Needs root and Debian's iproute2.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from . import relay

_PREFIX = "hosts"
_NAMES = Path("/run/netns")


@dataclass(frozen=True)
class Host:
    """One network namespace with its own ``eth0``.

    Attributes:
        address: its IPv4 address.
        namespace: its name for ``ip netns exec``.
    """

    address: str
    namespace: str

    def popen(
        self, words: Sequence[str | Path], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command in this host; Gloo and NCCL are told which interface to use."""
        variables = {
            **(os.environ if env is None else env),
            "GLOO_SOCKET_IFNAME": "eth0",
            "NCCL_SOCKET_IFNAME": "eth0",
            "TP_SOCKET_IFNAME": "eth0",
        }
        # ip replaces itself by the command, so signals to the process reach it.
        command = ["ip", "netns", "exec", self.namespace, *map(str, words)]
        return subprocess.Popen(command, env=variables, text=True, **options)

    def sent_bytes(self) -> int:
        """Left this host by ``eth0`` so far, with headers."""
        return self._counter("tx_bytes")

    def received_bytes(self) -> int:
        """Arrived in this host by ``eth0`` so far, with headers."""
        return self._counter("rx_bytes")

    def _counter(self, name: str) -> int:
        # ``ip netns exec`` mounts the namespace's own /sys.
        path = f"/sys/class/net/eth0/statistics/{name}"
        return int(_out("ip", "netns", "exec", self.namespace, "cat", path))


@dataclass(frozen=True)
class Network:
    """Hosts that see each other.

    Attributes:
        hosts: at least two.
        mbit: rate of each host, each way.
        delay_ms: added to each packet one way; 0 if this machine cannot.
        by: what shapes the traffic.
        relay: the process that carries the packets, if one does.
    """

    hosts: tuple[Host, ...]
    mbit: float
    delay_ms: float
    by: Literal["netem", "relay", "tbf"]
    relay: int | None = None


def why_not() -> str | None:
    """A sentence if such hosts cannot be made here."""
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if missing:
        return f"needs {' and '.join(missing)} (Debian: iproute2)"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    probe = f"{_PREFIX}-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode != 0:
        return f"cannot make network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return None


@contextmanager
def network(num_hosts: int, mbit: float = 1000.0, round_trip_ms: float = 1.0) -> Iterator[Network]:
    """Hosts joined by links of ``mbit`` each way; all of it is gone afterwards.

    Processes still running in a host are killed at the end.
    """
    _remove_leftovers()
    names = [f"{_PREFIX}-{os.getpid()}-{index}" for index in range(num_hosts)]
    switch = f"{_PREFIX}-{os.getpid()}-switch"
    members = tuple(Host(f"10.77.0.{index + 1}", name) for index, name in enumerate(names))
    with ExitStack() as stack:
        for name in [*names, switch]:
            _out("ip", "netns", "add", name)
            stack.callback(_remove, name)
            _out("ip", "-n", name, "link", "set", "lo", "up")
        carrier = None
        if _has_netem(switch):
            _join_by_bridge(switch, names, mbit, round_trip_ms / 2)
            by: Literal["netem", "relay", "tbf"] = "netem"
        elif Path("/dev/net/tun").exists():
            carrier = _join_by_relay(stack, names, mbit, round_trip_ms / 2)
            by = "relay"
        else:
            _join_by_bridge(switch, names, mbit, None)
            by = "tbf"
        for host in members:
            _out("ip", "-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _out("ip", "-n", host.namespace, "link", "set", "eth0", "up")
            # As most hosts have it, whatever this machine's own choice is (bbr sends by its clock).
            route = ["10.77.0.0/24", "dev", "eth0", "src", host.address, "congctl", "cubic"]
            _out("ip", "-n", host.namespace, "route", "replace", *route)
        yield Network(members, mbit, 0.0 if by == "tbf" else round_trip_ms / 2, by, carrier)


def _join_by_relay(stack: ExitStack, names: list[str], mbit: float, delay_ms: float) -> int:
    """The number of the process that carries the packets."""
    words = [sys.executable, relay.__file__, "--mbit", str(mbit), "--delay-ms", str(delay_ms)]
    process = subprocess.Popen(
        [*words, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stack.callback(process.wait)
    stdin, stdout = _pipes(process)
    stack.callback(stdout.close)
    stack.callback(stdin.close)  # first: this ends it
    if stdout.readline().strip() != "ready":
        raise RuntimeError("The relay between the hosts did not start; its message is above.")
    for name in names:
        _out("ip", "-n", name, "link", "set", "eth0", "mtu", str(relay.MTU))
    return process.pid


def _join_by_bridge(switch: str, names: list[str], mbit: float, delay_ms: float | None) -> None:
    """Each host's sending side is delayed and limited, the bridge's port to it limited as well."""
    _out("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
    _out("ip", "-n", switch, "link", "set", "bridge", "up")
    limit = ["tbf", "rate", f"{mbit}mbit", "burst", "256kb", "limit", "4mb"]
    for index, name in enumerate(names):
        port = f"port{index}"
        _out(
            "ip", "link", "add", port, "netns", switch, "type", "veth",
            "peer", "name", "eth0", "netns", name,
        )  # fmt: skip
        _out("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
        _out("tc", "-n", switch, "qdisc", "add", "dev", port, "root", *limit)
        device = ["tc", "-n", name, "qdisc", "add", "dev", "eth0"]
        if delay_ms is None:
            _out(*device, "root", *limit)
        else:
            delay = ["netem", "delay", f"{delay_ms}ms", "limit", "10000"]
            _out(*device, "root", "handle", "1:", *delay)
            _out(*device, "parent", "1:1", "handle", "10:", *limit)


def _has_netem(namespace: str) -> bool:
    words = ["tc", "-n", namespace, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(words, capture_output=True).returncode == 0


def _remove(namespace: str) -> None:
    for number in _out("ip", "netns", "pids", namespace).split():
        subprocess.run(["kill", "-KILL", number], capture_output=True)
    _out("ip", "netns", "del", namespace)


def _remove_leftovers() -> None:
    """Of a process that was killed before it could tidy up."""
    for path in _NAMES.glob(f"{_PREFIX}-*") if _NAMES.is_dir() else ():
        found = re.fullmatch(rf"{_PREFIX}-(\d+)-\w+", path.name)
        if found and not Path("/proc", found[1]).exists():
            _remove(path.name)


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _out(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
