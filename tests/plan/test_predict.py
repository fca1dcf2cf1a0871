"""Predictions: limits, hand-worked steps, order, and the published figures."""

from __future__ import annotations

import dataclasses

import pytest

from thresher.errors import UserError
from thresher.plan.advice import advice
from thresher.plan.link import Level, Link
from thresher.plan.predict import Job, predict, slowest
from thresher.plan.presets import LINKS
from thresher.plan.profile import Profile
from thresher.plan.published import CASES, NODES, STORAGE, machine

FREE = Link("free", (Level("across", 0.0, float("inf")),))
# 100 MB go there and back in a ring of two in 1 s.
SLOW = Link("slow", (Level("across", 0.0, 100e6),))


def weak(**options: object) -> Job:
    return Job(**{"images": 1000, "batch_per_process": 10, **options})  # type: ignore[arg-type]


def test_one_process_is_its_profile(profile: Profile) -> None:
    found = predict(profile, SLOW, weak(epochs=3), 1)
    # 0.1 forward, 0.2 backward, 0.05 update, 0.01 augmentation, 0.01 ledger.
    assert found.step == pytest.approx(0.37)
    assert found.efficiency == pytest.approx(1.0)
    assert found.speedup == pytest.approx(1.0)
    assert found.exchange == found.exposed == 0.0
    assert found.epoch == pytest.approx(100 * 0.37)
    assert found.run == pytest.approx(300 * 0.37)
    assert found.bottleneck == "step"


def test_exchange_without_overlap_adds_up(profile: Profile) -> None:
    # Two networks of 100 MB, 1 s each; the sum of weights takes no measurable time.
    found = predict(profile, SLOW, weak(overlap=False), 2)
    assert found.exchange == pytest.approx(2.0)
    assert found.step == pytest.approx(0.37 + 2.0, rel=1e-6)
    assert found.bottleneck == "exchange"


def test_overlap_hides_what_the_backward_leaves_time_for(profile: Profile) -> None:
    # Backwards of 0.1 s each; halves of 0.5 s are ready at 0.05, 0.1, 0.15, 0.2: the link is busy
    # from 0.05 to 2.05, the backward ends at 0.2.
    found = predict(profile, SLOW, weak(bucket_bytes=50e6), 2)
    assert found.exposed == pytest.approx(1.85, rel=1e-6)


def test_free_wires_scale_perfectly(profile: Profile) -> None:
    for nodes in (1, 2, 64, 4096):
        found = predict(profile, FREE, weak(), nodes)
        assert found.efficiency == pytest.approx(1.0)
        assert found.speedup == pytest.approx(nodes)


def test_apart_halves_work_and_traffic(profile: Profile) -> None:
    together = predict(profile, SLOW, weak(overlap=False), 4)
    apart = predict(profile, SLOW, weak(overlap=False, placement="apart"), 4)
    # The same images per second of compute: twice the images, half the networks; update once.
    assert apart.batch == together.batch
    assert apart.batch_per_process == 2 * together.batch_per_process
    assert apart.compute == pytest.approx(0.1 + 0.2 + 0.025 + 0.02 + 0.01)
    # One network over 2 nodes in place of two networks over 4: 1 s in place of 2 * 1.5 s.
    assert together.exchange == pytest.approx(3.0)
    assert apart.exchange == pytest.approx(1.0)
    assert apart.step < together.step
    # Every image is read twice.
    assert apart.storage_rate / apart.images_per_second == pytest.approx(2e5)


def test_strong_scaling_loses_what_does_not_shrink(profile: Profile) -> None:
    job = Job(images=10_000, batch=1000)
    found = [predict(profile, FREE, job, nodes) for nodes in (1, 10, 1000)]
    assert [one.batch_per_process for one in found] == [1000, 100, 1]
    # One process: 31 s + 0.06 s; a thousand: 0.031 + 0.06.
    assert found[0].step == pytest.approx(31.06)
    assert found[2].speedup == pytest.approx(31.06 / 0.091)
    efficiencies = [one.efficiency for one in found]
    assert efficiencies == sorted(efficiencies, reverse=True)


def test_decode_and_storage_can_hold_up(profile: Profile) -> None:
    slow_decoder = dataclasses.replace(profile, decode_rate=10.0)
    found = predict(slow_decoder, FREE, weak(), 4)
    assert found.step == pytest.approx(1.0)
    assert found.bottleneck == "decode"
    # More cores, or images from memory, mend it.
    assert predict(slow_decoder, FREE, weak(decode_cores=4), 4).bottleneck == "step"
    assert predict(slow_decoder, FREE, weak(cached=True), 4).bottleneck == "step"
    # 40 images of 100 kB per step at 1 MB/s.
    found = predict(profile, FREE, weak(storage=1e6), 4)
    assert found.step == pytest.approx(4.0)
    assert found.bottleneck == "storage"
    assert found.storage_rate == pytest.approx(1e6)


def test_decoding_on_the_step_s_cores_adds_up(profile: Profile) -> None:
    same_cores = dataclasses.replace(profile, decodes_beside=False)
    found = predict(same_cores, FREE, weak(), 1)
    assert found.step == pytest.approx(0.37 + 0.01)


def test_processes_share_a_node_s_cores(profile: Profile) -> None:
    found = predict(profile, FREE, weak(processes_per_node=4, cores_per_node=2), 1)
    assert found.compute == pytest.approx(2 * 0.37)
    assert found.efficiency == pytest.approx(0.5)


def test_taking_turns_takes_longer_than_one_after_the_other(profile: Profile) -> None:
    # 5 images take 1.4 times as long, 15 take 1.2 times: 10 images take 1.3 times.
    measured = dataclasses.replace(profile, turns=((5.0, 1.4), (15.0, 1.2)))
    crowded = weak(processes_per_node=4, cores_per_node=2)
    assert predict(measured, FREE, crowded, 1).compute == pytest.approx(2 * 1.3 * 0.37)
    # Not where each has a core, and beyond what was measured as at its ends.
    free = weak(processes_per_node=4, cores_per_node=4)
    assert predict(measured, FREE, free, 1).compute == pytest.approx(0.37)
    assert measured.taking_turns(1) == pytest.approx(1.4)
    assert measured.taking_turns(100) == pytest.approx(1.2)
    assert profile.taking_turns(10) == 1


def test_a_neighbour_with_a_core_of_its_own_slows_a_step_too(profile: Profile) -> None:
    measured = dataclasses.replace(profile, beside=((5.0, 1.3), (15.0, 1.1)), turns=((5.0, 1.5),))
    free = weak(processes_per_node=2, cores_per_node=2)
    assert predict(measured, FREE, free, 1).compute == pytest.approx(1.2 * 0.37)
    assert predict(measured, FREE, weak(), 4).compute == pytest.approx(0.37), "one to a node"
    crowded = weak(processes_per_node=4, cores_per_node=2)
    assert predict(measured, FREE, crowded, 1).compute == pytest.approx(2 * 1.2 * 1.5 * 0.37)


def test_handling_gradients_is_work_before_a_byte_travels(profile: Profile) -> None:
    # 40 ms of a step of two networks, 1.5 times as long beside a neighbour.
    measured = dataclasses.replace(profile, exchange_seconds=0.040, beside=((10.0, 1.5),))
    assert predict(measured, FREE, weak(), 1).compute == pytest.approx(0.37), "nobody to send to"
    assert predict(measured, FREE, weak(), 2).compute == pytest.approx(0.41)
    near = weak(processes_per_node=2, cores_per_node=2)
    assert predict(measured, FREE, near, 1).compute == pytest.approx(1.5 * 0.41)
    # Apart, half of it for the one network of each process, which serves twice the images; of two
    # processes each is alone with its network.
    apart = weak(placement="apart")
    without = dataclasses.replace(measured, exchange_seconds=0.0)
    for nodes, handling in ((2, 0.0), (4, 0.020)):
        longer = predict(measured, FREE, apart, nodes).compute
        assert longer - predict(without, FREE, apart, nodes).compute == pytest.approx(handling)


def test_an_exchange_takes_its_work_from_the_step_s_cores(profile: Profile) -> None:
    # 2 networks of 100 MB, each byte sent once by each of two: 1 ns a byte is 0.2 s of work.
    busy = dataclasses.replace(SLOW, host_seconds_per_byte=1e-9)
    cpu = dataclasses.replace(profile, decodes_beside=False)
    job = weak(overlap=False)
    # Nothing is hidden, so the wire's time holds the work; hidden, the step gets longer by it.
    assert predict(cpu, busy, job, 2).compute == pytest.approx(0.37, rel=1e-6)
    free = dataclasses.replace(busy, levels=(Level("across", 0.0, 1e12),))
    hidden = predict(cpu, free, weak(bucket_bytes=10e6), 2)
    # The last bucket, half of a network, is sent at the end: 0.05 of 0.2 s are not hidden.
    assert hidden.exposed == pytest.approx(0.05, rel=1e-3)
    assert hidden.compute == pytest.approx(0.37 + 0.15, rel=1e-3)
    # An accelerator's step is not disturbed.
    assert predict(profile, busy, job, 2).compute == pytest.approx(0.37)


def test_slowest_of_many() -> None:
    assert slowest(1) == 0.0
    # Exact expectations of order statistics (Harter 1961).
    for count, exact, slack in ((2, 0.5642, 0.03), (10, 1.5388, 0.01), (100, 2.5076, 0.01)):
        assert slowest(count) == pytest.approx(exact, abs=slack)


def test_stragglers_cost(profile: Profile) -> None:
    found = predict(profile, FREE, weak(variation=0.1), 100)
    assert found.step == pytest.approx(0.37 * (1 + 0.1 * slowest(100)))


def test_memory_and_whether_it_fits(profile: Profile) -> None:
    found = predict(profile, FREE, weak(memory=900e6, cached=True), 2)
    # Weights and optimizers, 10 images' activations, 500 samples' ledger rows and pixels.
    assert found.memory == pytest.approx(800e6 + 10e6 + 500 * 100 + 500 * 150e3)
    assert found.fits
    assert predict(profile, FREE, weak(memory=800e6), 2).fits is False
    assert predict(profile, FREE, weak(), 2).fits is None
    apart = predict(profile, FREE, weak(placement="apart"), 2)
    assert apart.memory == pytest.approx(400e6 + 10e6 + 1000 * 100)


@pytest.mark.parametrize("link", LINKS.values(), ids=lambda link: link.name)
def test_efficiency_never_rises_with_the_nodes(profile: Profile, link: Link) -> None:
    found = [predict(profile, link, weak(images=10**9), 2**p) for p in range(12)]
    efficiencies = [one.efficiency for one in found]
    assert efficiencies == sorted(efficiencies, reverse=True)
    assert all(0 < one <= 1 + 1e-9 for one in efficiencies)


def test_refusals(profile: Profile) -> None:
    with pytest.raises(UserError, match="either the batch"):
        Job(images=10)
    with pytest.raises(UserError, match="images is 0"):
        weak(images=0)
    with pytest.raises(UserError, match="variation"):
        weak(variation=1.5)
    with pytest.raises(UserError, match="3 nodes x 1 is 3"):
        predict(profile, FREE, weak(placement="apart"), 3)
    one = dataclasses.replace(profile, networks=1)
    with pytest.raises(UserError, match="of two networks; the profile's, 'mct', has one"):
        predict(one, FREE, weak(placement="apart"), 2)
    with pytest.raises(UserError, match="nothing to do for some of 8 processes"):
        predict(profile, FREE, Job(images=10, batch=4), 8)


def test_advice_names_the_change(profile: Profile) -> None:
    job = weak(memory=1e6)
    text = advice([predict(profile, SLOW, job, nodes) for nodes in (1, 2)], job, profile)
    assert "exchange" in text
    assert "--placement apart" in text
    assert "Up to 1 node it is the networks' own work." in text
    assert "do not fit into 1 MB" in text
    job = weak(storage=1e3)
    assert "thresher pack" in advice([predict(profile, FREE, job, 1)], job, profile)


def test_advice_tells_messages_from_bytes(profile: Profile) -> None:
    far = Link("far", (Level("across", 0.1, float("inf")),))
    job = weak(images=10**6)
    text = advice([predict(profile, far, job, 64)], job, profile)
    assert "more images per process, --placement apart or a link of less latency help" in text
    cpu = dataclasses.replace(profile, decodes_beside=False)
    text = advice([predict(cpu, far, job, 64)], job, cpu)
    assert "fewer processes of more cores each or a link of less latency" in text
    text = advice([predict(profile, SLOW, job, 64)], job, profile)
    assert "--placement apart or a faster link help" in text


def test_advice_notices_a_step_of_more_images_than_there_are(profile: Profile) -> None:
    job = weak(images=1000)
    assert "more than" not in advice([predict(profile, FREE, job, 100)], job, profile)
    text = advice([predict(profile, FREE, job, 128)], job, profile)
    assert "A step on 128 nodes takes 1,280 images, more than the 1,000 there are" in text


def test_published_figures_stay_as_reported() -> None:
    """The comparison of docs/scaling.md, failures and all."""
    ratios = {}
    for case in CASES:
        job = Job(
            images=1_281_167, batch_per_process=case.batch_per_node, overlap=False,
            algorithm="hierarchical", storage=STORAGE,
        )  # fmt: skip
        found = predict(case.profile, machine(), job, NODES)
        ratios[case.profile.network] = found.speedup / case.speedup - 1
    assert ratios["alexnet"] == pytest.approx(0.087, abs=0.002)
    assert ratios["resnet50"] == pytest.approx(0.429, abs=0.002)
