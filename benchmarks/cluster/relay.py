"""A network in user space: carries packets between TUN devices at a rate and with a delay.

For kernels without netem. Run as a script, as root, it makes one device ``eth0`` in each named
network namespace, prints ``ready`` and carries packets until its standard input closes:

    python relay.py --mbit 1000 --delay-ms 0.5 NAMESPACE...

The packets are large (some 60 kB), so that a gigabit is about two thousand of them a second. Each
is charged what the Ethernet frames of 1500 bytes that would have carried it take on the wire.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import heapq
import os
import select
import struct
import sys
import time
from pathlib import Path

MTU = 60_000
_FRAME_PAYLOAD, _FRAME_HEADERS, _WIRE_OVERHEAD = 1448, 52, 38
_SENDER_BACKLOG = 0.004
"""Seconds of traffic taken from a sender in advance; its kernel queues the rest."""
_PORT_BUFFER = 0.032
"""Seconds of traffic that wait for a busy receiver (4 MB at 1 Gbit/s); more is dropped."""


class Relay:
    """Packets on their way between hosts; host i has the address that ends in i + 1."""

    def __init__(self, devices: list[int], mbit: float, delay: float) -> None:
        self._devices = devices
        self._seconds_per_byte = 8 / (mbit * 1e6)
        self._delay = delay
        self._sender_free = [0.0] * len(devices)
        self._receiver_free = [0.0] * len(devices)
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def run(self, stop: int) -> None:
        """Carry packets until the file ``stop`` has something to read or ends."""
        while True:
            now = time.monotonic()
            listening = [stop]
            wake = self._waiting[0][0] if self._waiting else now + 60
            for host, device in enumerate(self._devices):
                room_at = self._sender_free[host] - _SENDER_BACKLOG
                if room_at <= now:
                    listening.append(device)
                else:
                    wake = min(wake, room_at)
            ready, _, _ = select.select(listening, [], [], max(0.0, wake - now))
            if stop in ready:
                return
            for device in ready:
                self._take(self._devices.index(device))
            now = time.monotonic()
            while self._waiting and self._waiting[0][0] <= now:
                _, _, receiver, packet = heapq.heappop(self._waiting)
                os.write(self._devices[receiver], packet)

    def _take(self, sender: int) -> None:
        """Read one packet and work out when it will have arrived."""
        packet = os.read(self._devices[sender], 65_535)
        receiver = packet[19] - 1  # last byte of an IPv4 destination
        if packet[0] >> 4 != 4 or not 0 <= receiver < len(self._devices):
            return
        now = time.monotonic()
        seconds = _bytes_on_wire(len(packet)) * self._seconds_per_byte
        sent = max(now, self._sender_free[sender]) + seconds
        self._sender_free[sender] = sent
        arrived = max(sent + self._delay, self._receiver_free[receiver] + seconds)
        if arrived - sent - self._delay > _PORT_BUFFER:
            return
        self._receiver_free[receiver] = arrived
        self._count += 1
        heapq.heappush(self._waiting, (arrived, self._count, receiver, packet))


def _bytes_on_wire(size: int) -> int:
    """Of one large packet, had it been sent in frames of 1500 bytes."""
    frames = max(1, -(-(size - _FRAME_HEADERS) // _FRAME_PAYLOAD))
    return size + (frames - 1) * _FRAME_HEADERS + frames * _WIRE_OVERHEAD


def _open_device(namespace: str) -> int:
    """Make ``eth0`` in the namespace; it vanishes when the returned file is closed."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open() as file:
        clone_newnet = 0x40000000
        if libc.setns(file.fileno(), clone_newnet) != 0:  # os.setns is newer than Python 3.11
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    tunsetiff, iff_tun, iff_no_pi = 0x400454CA, 0x0001, 0x1000
    fcntl.ioctl(device, tunsetiff, struct.pack("16sH22x", b"eth0", iff_tun | iff_no_pi))
    return device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("namespaces", nargs="+")
    parser.add_argument("--mbit", type=float, required=True)
    parser.add_argument("--delay-ms", type=float, required=True, help="one way")
    options = parser.parse_args()
    devices = [_open_device(name) for name in options.namespaces]
    # The hosts' processes share the cores with this one; without precedence they would delay it.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    print("ready", flush=True)
    Relay(devices, options.mbit, options.delay_ms / 1e3).run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
