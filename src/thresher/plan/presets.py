"""Links by name. Nominal rates and rough latencies: measure your own network where it matters."""

from __future__ import annotations

from thresher.plan.link import Level, Link

GIGABIT = 1e9 / 8
TCP_SHARE = 1448 / 1538
"""Payload in an Ethernet frame: 1,500 bytes less IP and TCP headers with timestamps (52 bytes),
on 1,538 bytes of wire (frame, preamble and gap; IEEE 802.3)."""

LINKS = {
    link.name: link
    for link in (
        Link(
            "ethernet-1g",
            (
                Level("node", 2e-5, 2e9, shared=True),
                Level("across", 5e-5, 1 * GIGABIT * TCP_SHARE),
            ),
            source="Rate: 1 Gbit/s less TCP/IP framing. Latencies (20 us within a node over TCP,"
            " 50 us across) and 2 GB/s within a node are assumptions.",
        ),
        Link(
            "ethernet-25g",
            (
                Level("node", 2e-5, 5e9, shared=True),
                Level("across", 2e-5, 25 * GIGABIT * TCP_SHARE),
            ),
            source="Rate: 25 Gbit/s less TCP/IP framing. Latencies (20 us) and 5 GB/s within a node"
            " are assumptions.",
        ),
        Link(
            "infiniband-hdr",
            (
                Level("node", 2e-6, 10e9, shared=True),
                Level("across", 2e-6, 200 * GIGABIT),
            ),
            source="Rate: HDR 4x, 200 Gbit/s of data (InfiniBand Trade Association). Latency (2 us)"
            " and 10 GB/s within a node are assumptions.",
        ),
        Link(
            "nvlink+hdr",
            (
                Level("nvlink", 5e-6, 300e9),
                Level("across", 5e-6, 8 * 200 * GIGABIT),
            ),
            source="NVIDIA A100: 600 GB/s of NVLink per GPU, half in each direction; DGX A100:"
            " eight HDR adapters of 200 Gbit/s per node (NVIDIA, data sheets). Latency (5 us"
            " per message) is an assumption.",
        ),
        Link(
            "sunway-taihulight",
            (
                Level("supernode", 1e-6, 12e9, size=256),
                Level("across", 1e-6, 12e9, oversubscription=4.0),
            ),
            source="Dongarra, Report on the Sunway TaihuLight system, UT-EECS-16-742, 2016, as"
            " remembered: MPI at 12 GB/s and about 1 us, supernodes of 256 nodes, a quarter of the"
            " bandwidth between them.",
        ),
        Link(
            "loopback",
            (Level("machine", 3e-5, 2e9, shared=True),),
            source="An assumption for processes of one machine over TCP: 30 us, 2 GB/s together.",
        ),
    )
}
