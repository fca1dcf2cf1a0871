"""swCaffe on Sunway TaihuLight as published: the check of the planner on 1,024 nodes.

Fang, Li, Fu et al., *swCaffe: a parallel framework for accelerating deep learning applications on
Sunway TaihuLight*, CLUSTER 2018, arXiv 1903.06934. Each figure says where it is from:

* [abstract]: in the published abstract.
* [body]: in the paper's tables and text as remembered; the text was not at hand to read again. The
  image rates were checked against the abstract's ratios where it has one.
* [computed]: follows from the network's definition.
* [assumed]: not public; ``benchmarks/plan_check.py`` shows how much it matters.

None was chosen to bring the prediction nearer to the published speed-up.
"""

from __future__ import annotations

from dataclasses import dataclass

from thresher.plan.line import Line
from thresher.plan.link import Link
from thresher.plan.presets import LINKS
from thresher.plan.profile import Profile

NODES = 1024
MEGABYTE = 2.0**20
IMAGE_BYTES = 256 * 256 * 3.0
"""A raw ImageNet record of Caffe, one byte per channel [assumed]."""
STORAGE = 288e9
"""Bytes per second of TaihuLight's file system (Dongarra 2016, UT-EECS-16-742)."""


@dataclass(frozen=True)
class Published:
    """A speed-up to compare with.

    Attributes:
        profile: one node.
        batch_per_node: images; the one of the best published speed-up.
        speedup: on 1,024 nodes over one.
        source: of the speed-up.
    """

    profile: Profile
    batch_per_node: int
    speedup: float
    source: str


def machine() -> Link:
    """TaihuLight's network."""
    return LINKS["sunway-taihulight"]


def _node(
    network: str,
    parameters: int,
    megabytes: float,
    rate: float,
    batch: int,
    ready: tuple[tuple[float, float], ...],
    source: str,
) -> Profile:
    seconds = 1 / rate
    return Profile(
        hardware="SW26010, one node of Sunway TaihuLight",
        network=network,
        method="ce",
        networks=1,
        parameters=parameters,
        gradient_bytes=megabytes * MEGABYTE,
        batch=batch,
        cores=4,
        decodes_beside=True,
        # The backward of a convolution is two of the forward's products [assumed]; swCaffe
        # exchanges after the whole backward, so the split does not enter its prediction.
        forward=Line(0.0, seconds / 3),
        backward=Line(0.0, seconds * 2 / 3),
        update=Line(),
        augment=Line(),
        ledger=Line(),
        ready=ready,
        # Images are stored decoded; a node's memory is not what limits reading [assumed].
        decode_rate=1e6,
        cached_rate=1e6,
        image_bytes=IMAGE_BYTES,
        weight_bytes=2 * megabytes * MEGABYTE,
        optimizer_bytes=megabytes * MEGABYTE,
        activation_bytes=0.0,
        ledger_bytes=0.0,
        cache_bytes=0.0,
        source=source,
    )


ALEXNET = _node(
    "alexnet", 60_965_224, 232.6, 94.17, 256, ((0.05, 0.961), (1.0, 1.0)),
    "Parameters [computed]: 232.6 MiB of float32, the paper's 232.6 MB. 94.17 images/s per node"
    " [body; 94.17 / 79.25 is the abstract's 119 % of a K40m, 94.17 / 12.01 its 7.84x of a CPU].",
)  # fmt: skip
RESNET50 = _node(
    "resnet50", 25_610_152, 97.7, 5.56, 64, ((1.0, 1.0),),
    "Parameters [computed]: 97.7 MiB with batch norm's statistics, the paper's 97.7 MB. 5.56"
    " images/s per node [body; the abstract has no ratio to check it by].",
)  # fmt: skip

CASES = (
    Published(RESNET50, 64, 715.45, "abstract"),
    Published(ALEXNET, 256, 928.15, "abstract"),
)
"""The pairs of network and speed-up as the published abstract orders them."""

PROFILES = {"swcaffe-alexnet": ALEXNET, "swcaffe-resnet50": RESNET50}
"""Published profiles by name."""
