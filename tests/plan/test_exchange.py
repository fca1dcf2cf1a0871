"""What an exchange takes from the cores it shares with the step, worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest

from thresher.plan.collectives import messages
from thresher.plan.exchange import Exchange, Ranks, exchange, flags_every
from thresher.plan.link import Level, Link
from thresher.plan.predict import Job, predict, slowest
from thresher.plan.profile import Profile
from thresher.train.flags import Flags

FREE = Link("free", (Level("across", 0.0, float("inf")),))
# Like FREE; a byte that a process sends takes 1 ns of its core.
BUSY = dataclasses.replace(FREE, host_seconds_per_byte=1e-9)
CROWDED = Ranks(1, 4, slower=2.0)


@pytest.fixture
def cpu(profile: Profile) -> Profile:
    """One network of 100 MB on one core; a message takes 1 ms of it, or 2 where it is crowded."""
    return dataclasses.replace(
        profile, networks=1, decodes_beside=False, message_seconds=1e-3,
        crowded_message_seconds=2e-3, ready=((1.0, 1.0),),
    )  # fmt: skip


def of(profile: Profile, link: Link, ranks: Ranks, **change: object) -> Exchange:
    options: dict[str, object] = {
        "networks": 1, "backward": 0.2, "algorithm": "auto", "bucket_bytes": None,
        "overlap": True, **change,
    }  # fmt: skip
    return exchange(profile, link, ranks, **options)  # type: ignore[arg-type]


def test_messages_that_follow_one_another() -> None:
    flat = Link("flat", (Level("across", 3.0, 10.0),))
    found = {name: messages(flat, 4, 1, name) for name in ("ring", "halving-doubling", "doubling")}
    assert found == {"ring": 6, "halving-doubling": 4, "doubling": 2}
    assert messages(flat, 1) == 0


def test_every_sum_wakes_the_ranks_up(cpu: Profile) -> None:
    # A ring of 4 has 6 messages: 6 ms for the gradients, which come at the backward's end, with all
    # else that is summed up.
    found = of(cpu, FREE, Ranks(1, 4))
    assert (found.whole, found.exposed) == (pytest.approx(0.006), pytest.approx(0.006))
    assert found.work == pytest.approx(0.0)


def test_flags_of_more_ranks_than_share_gradients_travel_apart(cpu: Profile) -> None:
    # A ring of 8 has 14 messages, at every second step; before those 6, and hidden.
    found = of(cpu, FREE, Ranks(1, 4), everyone=Ranks(1, 8))
    assert found.whole == pytest.approx(0.006 + 0.007)
    assert found.exposed == pytest.approx(0.006)
    assert found.work == pytest.approx(0.007)
    # Also where each rank has gradients of its own: two ranks, each with a network.
    found = of(cpu, FREE, Ranks(1, 1), everyone=Ranks(1, 2))
    assert found.whole == pytest.approx(0.002)
    # An accelerator's host sends them beside the step.
    beside = dataclasses.replace(cpu, decodes_beside=True)
    ring = {"algorithm": "ring"}
    assert of(beside, FREE, Ranks(1, 4), everyone=Ranks(1, 8), **ring).work == 0.0


def test_crowded_ranks_take_turns_on_their_work(cpu: Profile) -> None:
    # Two ranks to a core: 6 messages of 2 ms, and as long again until the other had its turn.
    found = of(cpu, FREE, CROWDED)
    assert found.exposed == pytest.approx(0.024)
    assert found.work == pytest.approx(0.0)
    # A profile that lacks the crowded figure takes the other; one that lacks both, none.
    half = dataclasses.replace(cpu, crowded_message_seconds=0.0)
    assert of(half, FREE, CROWDED).exposed == pytest.approx(0.012)
    none = dataclasses.replace(half, message_seconds=0.0)
    assert of(none, FREE, CROWDED) == Exchange(0.0, 0.0, 0.0, 0.0)


def test_every_bucket_wakes_the_ranks_up(cpu: Profile) -> None:
    # Halves of the gradients come at a half and at the end of a backward of 0.2 s.
    halves = dataclasses.replace(cpu, ready=((0.5, 0.5), (1.0, 1.0)))
    found = of(halves, FREE, Ranks(1, 4))
    assert found.whole == pytest.approx(0.012)
    assert found.exposed == pytest.approx(0.006)
    assert found.work == pytest.approx(0.006)


def test_bytes_and_messages_are_both_work(cpu: Profile) -> None:
    # 2 * 3/4 * 100 MB at 1 ns are 0.15 s, and 6 messages.
    found = of(cpu, BUSY, Ranks(1, 4))
    assert found.exposed == pytest.approx(0.156)
    # Of what the backward hides the work stays.
    halves = dataclasses.replace(cpu, ready=((0.5, 0.5), (1.0, 1.0)))
    found = of(halves, BUSY, Ranks(1, 4))
    assert found.exposed == pytest.approx(0.006 + 0.075)
    assert found.work == pytest.approx(0.006 + 0.075)


def test_a_wire_that_is_slower_than_the_work_sets_the_time(cpu: Profile) -> None:
    slow = Link("slow", (Level("across", 5e-3, float("inf")),))
    halves = dataclasses.replace(cpu, ready=((0.5, 0.5), (1.0, 1.0)))
    found = of(halves, slow, Ranks(1, 4))
    assert found.exposed == pytest.approx(6 * 5e-3)
    # What is hidden, a half, still takes its work of 6 of 12 ms.
    assert found.work == pytest.approx(0.006)


def test_processors_use_gloo_s_ring_and_accelerators_the_fastest(cpu: Profile) -> None:
    latency = Link("latency", (Level("across", 1e-3, float("inf")),))
    quick = dataclasses.replace(cpu, message_seconds=0.0, crowded_message_seconds=0.0)
    # 64 ranks: 126 messages of a ring, 6 of recursive doubling.
    assert of(quick, latency, Ranks(64, 1)).exposed == pytest.approx(0.126)
    beside = dataclasses.replace(quick, decodes_beside=True)
    assert of(beside, latency, Ranks(64, 1)).exposed == pytest.approx(0.006)
    # Who names one gets it.
    named = of(quick, latency, Ranks(64, 1), algorithm="doubling")
    assert named.exposed == pytest.approx(0.006)


def test_a_crowded_step_as_a_whole(cpu: Profile) -> None:
    # 0.1 + 0.2 of the network, 0.05 + 0.01 + 0.01 around it, twice for two processes on one core;
    # a ring of 2: 2 messages of 2 ms, twice, and 10 images served at 10,000 a second, twice.
    job = Job(
        images=1000, batch_per_process=10, processes_per_node=2, cores_per_node=1, cached=True
    )
    found = predict(cpu, FREE, job, 1)
    assert found.compute == pytest.approx(2 * 0.37)
    assert found.exposed == pytest.approx(0.008)
    assert found.step == pytest.approx(2 * 0.37 + 0.008 + 2 * 0.001)


def test_flags_as_often_as_the_training_asks() -> None:
    class Many:
        world_size = 0
        flags_can_ride = False

    for processes in (1, 4, 7, 8, 64, 119, 120, 4096):
        runtime = Many()
        runtime.world_size = processes
        flags = Flags(runtime, None)  # type: ignore[arg-type]
        asked = [step for step in range(100) if flags.asks(step)]
        assert asked[1] == flags_every(processes)


def test_twins_meet_several_times_a_step(cpu: Profile) -> None:
    two = dataclasses.replace(cpu, networks=2, peer_messages=3.0)
    job = Job(
        images=1000, batch_per_process=10, processes_per_node=2, placement="apart", variation=0.1
    )
    found = predict(two, FREE, job, 1)
    # Three messages of 1 ms that nothing hides. The flags' two are hidden, but are work.
    assert found.exposed == pytest.approx(0.003)
    assert found.compute == pytest.approx(0.1 + 0.2 + 0.025 + 0.02 + 0.01 + 0.002)
    # Four pieces between meetings: each varies half as much as the step.
    assert found.straggling == pytest.approx(4 * slowest(2) * 0.1 * found.compute / 2)
