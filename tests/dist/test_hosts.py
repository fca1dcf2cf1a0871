"""The hosts of the network tests and benchmarks are as far apart as they claim."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.cluster import hosts
from benchmarks.cluster.measure import measure

pytestmark = pytest.mark.skipif(hosts.why_not() is not None, reason=hosts.why_not() or "")


def namespaces() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_the_link_has_the_rate_and_the_round_trip_and_counts_bytes() -> None:
    with hosts.network(2, mbit=200, round_trip_ms=4) as net:
        found = measure(net, 10_000_000)
        assert 120 < found.mbit < 205
        if net.delay_ms:
            assert 4 < found.round_trip_ms < 8
        assert 10_000_000 < net.hosts[1].sent_bytes() < 12_000_000
        assert 10_000_000 < net.hosts[0].received_bytes() < 12_000_000
        assert net.hosts[0].sent_bytes() < 1_000_000


def test_nothing_stays_behind_even_of_processes_that_hang() -> None:
    with hosts.network(2) as net:
        hanging = net.hosts[1].popen([sys.executable, "-c", "import time; time.sleep(600)"])
        names = [host.namespace for host in net.hosts]
        assert all(name in namespaces() for name in names)
    assert hanging.wait(10) == -9
    assert not any(name in namespaces() for name in names)
