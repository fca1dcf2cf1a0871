"""A learner that begins again is as one that was just made, in the memory of the old one."""

from __future__ import annotations

import pytest
import torch

from thresher.bench.work import Work, on_made_images
from thresher.config import TrainConfig
from thresher.dist.runtime import Runtime
from thresher.methods import all_methods
from thresher.train.learner import Learner


def made(optimizer: str) -> Work:
    config = TrainConfig(
        method="ce", model="small_cnn", image_size=16, batch_size=8, epochs=1,
        precision="fp32", optimizer=optimizer,
    )  # fmt: skip
    runtime = Runtime("cpu", "fp32", alone=True)
    return on_made_images(config, all_methods()["ce"].Options(), runtime, 3, steps=1)


def train(learner: Learner, steps: int) -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        images = torch.randn(8, 3, 16, 16, generator=random)
        learner.module(images).square().sum().backward()
        learner.prepare(0.01)
        learner.step()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam", "nadam", "lamb"])
def test_a_learner_that_begins_again_is_as_good_as_new(optimizer: str) -> None:
    work = made(optimizer)
    used, new = work.make_learner(0, 0), work.make_learner(0, 1)
    places = [tensor.data_ptr() for tensor in used.module.state_dict().values()]
    train(used, 4)
    used.begin_again(work.make_learner(0, 1))
    assert places == [tensor.data_ptr() for tensor in used.module.state_dict().values()]
    train(used, 3)
    train(new, 3)
    for state, other in ((used.module, new.module), (used.ema, new.ema)):
        for key, value in state.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key
    work.feed.close()


def test_a_teacher_s_counters_are_its_student_s() -> None:
    """Also after both came back from a checkpoint, or began again."""
    work = made("sgd")
    learner, other = work.make_learner(0, 0), work.make_learner(0, 1)
    train(learner, 3)
    other.load_state_dict(learner.state_dict())
    train(other, 2)

    def counts(network: torch.nn.Module) -> set[int]:
        state = network.state_dict()
        return {int(state[name]) for name in state if name.endswith("num_batches_tracked")}

    assert (counts(learner.module), counts(learner.ema)) == ({3}, {3})
    assert (counts(other.module), counts(other.ema)) == ({5}, {5})
    other.begin_again(work.make_learner(0, 1))
    assert (counts(other.module), counts(other.ema)) == ({0}, {0})
    work.feed.close()


def test_other_rounds_start_elsewhere() -> None:
    """Else the test above would pass if nothing was taken over."""
    work = made("sgd")
    one, other = work.make_learner(0, 0), work.make_learner(0, 1)
    weights = next(iter(one.module.parameters())), next(iter(other.module.parameters()))
    assert not torch.equal(*weights)
    work.feed.close()


def test_a_recorded_step_finds_its_optimizer_s_memory_again() -> None:
    work = made("sgd")
    learner = work.make_learner(0, 0)
    train(learner, 2)
    states = learner.optimizer.state.values()
    places = [state["momentum_buffer"].data_ptr() for state in states]
    learner.begin_again(work.make_learner(0, 1))
    states = learner.optimizer.state.values()
    assert places == [state["momentum_buffer"].data_ptr() for state in states]
    assert all(not state["momentum_buffer"].any() for state in states)
    work.feed.close()
