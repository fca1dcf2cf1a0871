"""What the link between two hosts really gives, by plain sockets.

python benchmarks/cluster/measure.py --mbit 1000 --round-trip-ms 1
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

if __package__:
    from .hosts import Network, network
else:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from cluster.hosts import Network, network

_SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 9000)) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        for _ in range(int(sys.argv[2])):
            connection.sendall(connection.recv(1))
        left = int(sys.argv[3])
        while left:
            left -= len(connection.recv(min(left, 1 << 20)))
        connection.sendall(b"!")
"""
_CLIENT = """
import json, socket, sys, time
connection = socket.create_connection((sys.argv[1], 9000))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
trips = []
with connection:
    for _ in range(int(sys.argv[2])):
        start = time.perf_counter()
        connection.sendall(b"?")
        connection.recv(1)
        trips.append(time.perf_counter() - start)
    start = time.perf_counter()
    connection.sendall(bytes(int(sys.argv[3])))
    connection.recv(1)
    print(json.dumps([trips, time.perf_counter() - start]))
"""


@dataclass(frozen=True)
class Measured:
    """Between the first two hosts.

    Attributes:
        mbit: payload of one TCP connection, one way.
        round_trip_ms: median of one byte and its answer.
        round_trip_ms_worst: the slowest of them.
    """

    mbit: float
    round_trip_ms: float
    round_trip_ms_worst: float


def measure(net: Network, num_bytes: int = 100_000_000, trips: int = 100) -> Measured:
    """Send ``num_bytes`` from the second host to the first, after ``trips`` single bytes."""
    first, second = net.hosts[:2]
    words = [first.address, str(trips), str(num_bytes)]
    server = first.popen([sys.executable, "-c", _SERVER, *words], stdout=subprocess.PIPE)
    with server:
        assert server.stdout is not None
        server.stdout.readline()
        client = second.popen([sys.executable, "-c", _CLIENT, *words], stdout=subprocess.PIPE)
        times, seconds = json.loads(client.communicate(timeout=120)[0])
    return Measured(num_bytes * 8 / seconds / 1e6, statistics.median(times) * 1e3, max(times) * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mbit", type=float, default=1000)
    parser.add_argument("--round-trip-ms", type=float, default=1)
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    with network(2, options.mbit, options.round_trip_ms) as net:
        found = measure(net, options.megabytes * 1_000_000)
        print(json.dumps({"by": net.by, **asdict(found)}))


if __name__ == "__main__":
    main()
