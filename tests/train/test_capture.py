"""Recorded steps do what computed steps do; on the CPU with a tape in the place of CUDA graphs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.tape import TapeRecorder
from thresher.bench.work import Work, on_made_images
from thresher.config import TrainConfig
from thresher.dist.runtime import Runtime
from thresher.methods import all_methods
from thresher.train import capture, learner, loop, optimizer, steps
from thresher.train.capture import TRIALS, WARM_UP, WAYS, Captured
from thresher.train.loop import Listener, Loop
from thresher.train.meter import EpochMetrics
from thresher.train.team import Team
from thresher.train.together import Together

CPU = torch.device("cpu")
NAMES = sorted(all_methods())
EPOCHS, STEPS = 5, 4


@dataclasses.dataclass
class Outcome:
    weights: list[dict[str, Tensor]]
    ledger: dict[str, Tensor]
    epochs: list[EpochMetrics]
    notes: list[str]


def made(method: str, **more: Any) -> Work:
    config = TrainConfig(
        method=method, model="small_cnn", image_size=16, batch_size=8, epochs=EPOCHS,
        precision="fp32", optimizer="sgd", **more,
    )  # fmt: skip
    runtime = Runtime("cpu", "fp32", alone=True)
    return on_made_images(config, all_methods()[method].Options(), runtime, 3, steps=STEPS)


def train(work: Work, folder: Path) -> Outcome:
    epochs: list[EpochMetrics] = []
    notes: list[str] = []
    ledger = work.make_ledger()
    run = Loop(
        work.config, work.runtime, work.method, work.feed, ledger, work.make_learner, None,
        folder / "checkpoints", {},
        Listener(lambda _: None, lambda *_: None, epochs.append, notes.append),
    )  # fmt: skip
    (folder / "checkpoints").mkdir(parents=True)
    run.run(resume=False)
    work.feed.close()
    weights = [
        {**one.module.state_dict(), **{f"ema.{k}": v for k, v in one.ema.state_dict().items()}}
        for one in run.team.learners.values()
    ]
    return Outcome(weights, dict(ledger.columns), epochs, notes)


def agree(recorded: Outcome, computed: Outcome) -> None:
    for one, other in zip(computed.weights, recorded.weights, strict=True):
        for key, values in one.items():
            torch.testing.assert_close(other[key], values, atol=2e-4, rtol=1e-3, msg=key)
    for key, column in computed.ledger.items():
        if not key.endswith("class"):
            torch.testing.assert_close(
                recorded.ledger[key].float(), column.float(), atol=5e-3, rtol=1e-2, msg=key
            )
    for before, after in zip(computed.epochs, recorded.epochs, strict=True):
        assert after.loss == pytest.approx(before.loss, rel=1e-3)
        assert (after.images, after.lr) == (before.images, before.lr)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[TapeRecorder]:
    """Let the loop record by tape, with optimizers and threads as they are on a GPU."""
    tape = TapeRecorder()

    def capture_for(config: Any, runtime: Any, together: Together, networks: int, say: Any) -> Any:
        return Captured(tape, CPU, None, networks, say) if config.capture else None

    def fused(module: Any, config: Any, device: Any) -> Any:
        return optimizer.make_optimizer(module, config, torch.device("cuda"))

    monkeypatch.setattr(loop, "capture_for", capture_for)
    monkeypatch.setattr(learner, "make_optimizer", fused)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tape
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_steps_equal_computed_ones(
    name: str, recorder: TapeRecorder, tmp_path: Path
) -> None:
    computed = train(made(name, capture=False), tmp_path / "computed")
    assert recorder.recorded == []
    recorded = train(made(name), tmp_path / "recorded")
    modes = {"ce": 1, "mct": 2}[name]
    assert len(recorder.recorded) == modes, "once for each way to make a step"
    assert len(recorder.replayed) == EPOCHS * STEPS - modes * WARM_UP
    assert recorded.notes == []
    agree(recorded, computed)


def test_recordings_serve_all_rounds(recorder: TapeRecorder, tmp_path: Path) -> None:
    """Fresh networks begin in the old ones' memory, and their optimizers forget."""
    computed = train(of_three_rounds(capture=False), tmp_path / "computed")
    recorded = train(of_three_rounds(), tmp_path / "recorded")
    assert len(recorder.recorded) == 2, "once for each way to make a step"
    assert len(recorder.replayed) == 6 * STEPS - 2 * WARM_UP
    agree(recorded, computed)


def of_three_rounds(**more: Any) -> Work:
    work = made("mct", **more)
    config = dataclasses.replace(work.config, epochs=6)
    options = all_methods()["mct"].Options(rounds=3)
    work.feed.close()
    return on_made_images(config, options, work.runtime, 3, steps=STEPS)


def test_modes_may_take_turns(
    recorder: TapeRecorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What one recording reads must not be what only the other is told."""
    kind = all_methods()["ce"]
    monkeypatch.setattr(kind, "mode", lambda _, progress: progress.step // 2 % 2)
    computed = train(made("ce", capture=False), tmp_path / "computed")
    recorded = train(made("ce"), tmp_path / "recorded")
    assert len(recorder.recorded) == 2
    assert len(recorder.replayed) == EPOCHS * STEPS - 2 * WARM_UP
    for key, values in computed.weights[0].items():
        torch.testing.assert_close(recorded.weights[0][key], values, atol=2e-4, rtol=1e-3, msg=key)


def test_the_rate_moves_in_recorded_steps(recorder: TapeRecorder, tmp_path: Path) -> None:
    """Else the test above would pass with a rate that stays as it was recorded."""
    work = made("ce")
    config = dataclasses.replace(work.config, lr=0.0)
    still = train(dataclasses.replace(work, config=config), tmp_path / "still")
    moved = train(made("ce"), tmp_path / "moved")
    weight = next(key for key in moved.weights[0] if key.endswith("weight"))
    assert (moved.weights[0][weight] - still.weights[0][weight]).abs().max() > 1e-2


class _TwoWays:
    """Networks in turn and, as if, at once."""

    def __init__(self) -> None:
        self.entered: list[int] = []

    @contextlib.contextmanager
    def on_streams(self, networks: int) -> Iterator[None]:
        self.entered.append(networks)
        yield


def try_all(recorder: TapeRecorder, ways: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop record networks in turn and at once."""

    def capture_for(config: Any, runtime: Any, together: Any, networks: int, say: Any) -> Any:
        return Captured(recorder, CPU, ways, networks, say) if config.capture else None

    monkeypatch.setattr(loop, "capture_for", capture_for)


def with_two_networks(epochs: int, steps: int) -> Work:
    work = made("ce")
    options = all_methods()["ce"].Options(networks=2)
    config = dataclasses.replace(work.config, epochs=epochs)
    return on_made_images(config, options, work.runtime, 3, steps=steps)


@pytest.mark.parametrize("quickest", list(WAYS))
def test_the_quickest_way_is_kept(
    quickest: str, recorder: TapeRecorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ways = _TwoWays()
    try_all(recorder, ways, monkeypatch)
    recorder.claimed = {way: 1.0 if way == quickest else 2.0 for way in WAYS}
    many = WARM_UP + 2 * TRIALS
    outcome = train(with_two_networks(2, many), tmp_path)
    assert ways.entered == [2]
    assert recorder.recorded == list(WAYS)
    assert recorder.replayed[: 2 * TRIALS] == list(WAYS) * TRIALS
    assert recorder.replayed[2 * TRIALS :] == [quickest] * many
    (note,) = outcome.notes
    assert note.startswith(f"The networks run {quickest} on the GPU (a step takes in turn ")
    assert note.count(" ms") == 2
    assert recorder.freed == 1


def test_what_cannot_run_at_once_is_recorded_in_turn(
    recorder: TapeRecorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor does the half of a step that was recorded leave anything behind."""
    apply = Team.apply

    class Refuses(_TwoWays):
        @contextlib.contextmanager
        def on_streams(self, networks: int) -> Iterator[None]:
            self.entered.append(networks)

            def fail(team: Team) -> None:
                raise RuntimeError("out of memory")

            monkeypatch.setattr(Team, "apply", fail)
            try:
                yield
            finally:
                monkeypatch.setattr(Team, "apply", apply)

    ways = Refuses()
    try_all(recorder, ways, monkeypatch)
    computed = train(made("mct", capture=False), tmp_path / "computed")
    outcome = train(made("mct"), tmp_path / "recorded")
    assert ways.entered == [2], "not tried again in the other mode"
    assert len(recorder.recorded) == 2
    assert len(recorder.replayed) == EPOCHS * STEPS - 2 * WARM_UP
    assert outcome.notes == []
    agree(outcome, computed)


def test_a_method_that_waits_is_computed_and_says_so(
    recorder: TapeRecorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind = all_methods()["ce"]
    step = kind.step

    def waits(self: Any, networks: Any, batch: Any, history: Any, progress: Any) -> Any:
        result = step(self, networks, batch, history, progress)
        assert result.loss_sums[0].item() > 0
        return result

    computed = train(made("ce", capture=False), tmp_path / "computed")
    monkeypatch.setattr(kind, "step", waits)
    outcome = train(made("ce"), tmp_path / "waits")
    (note,) = outcome.notes
    assert note.startswith(
        "Steps are not recorded as a CUDA graph, since that failed (operation not"
    )
    assert recorder.replayed == []
    for key, values in computed.weights[0].items():
        torch.testing.assert_close(outcome.weights[0][key], values, atol=2e-4, rtol=1e-3, msg=key)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"optimizer": "lamb"}, "the optimizer 'lamb' may ask the host in each"),
        ({"accumulate": 2}, "--accumulate 2 makes them of several parts"),
        ({"capture": False}, None),
    ],
)
def test_what_cannot_be_recorded_is_said(change: dict[str, Any], reason: str | None) -> None:
    work = made("ce")
    config = dataclasses.replace(work.config, **change)
    notes: list[str] = []

    class OnGpu:
        device = torch.device("cuda")
        world_size = 1

    together: Any = None
    runtime: Any = OnGpu()
    assert steps.capture_for(config, runtime, together, 1, notes.append) is None
    expected = [] if reason is None else [f"Steps are not recorded as a CUDA graph: {reason}"]
    assert [note[: len(start)] for note, start in zip(notes, expected, strict=True)] == expected


def test_which_optimizers_can_be_recorded() -> None:
    found = {name: optimizer.can_be_recorded(name) for name in ("sgd", "adamw", "adam", "lamb")}
    assert found == {"sgd": True, "adamw": True, "adam": True, "lamb": False}


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("ways", [WAYS, *((way,) for way in WAYS)], ids=str)
def test_recorded_steps_equal_computed_ones_on_a_gpu(
    name: str,
    precision: str,
    ways: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(capture, "WAYS", ways)

    def outcome(capture: bool) -> Outcome:
        config = TrainConfig(
            method=name, model="small_cnn", image_size=32, batch_size=64, epochs=EPOCHS,
            precision=precision, optimizer="sgd", capture=capture, accelerator="cuda",
        )  # fmt: skip
        runtime = Runtime("cuda", precision, alone=True)  # type: ignore[arg-type]
        options = all_methods()[name].Options()
        work = on_made_images(config, options, runtime, 10, steps=40)
        return train(work, tmp_path / str(capture))

    computed, recorded = outcome(capture=False), outcome(capture=True)
    assert all(note.startswith("The networks run") for note in recorded.notes)
    for before, after in zip(computed.epochs, recorded.epochs, strict=True):
        assert after.loss == pytest.approx(before.loss, rel=0.05)
        assert (after.images, after.lr) == (before.images, before.lr)


def test_a_checkpoint_brings_no_other_device_s_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved on the CPU, gone on with on a GPU: the optimizer stays the one that can be recorded."""
    work = made("ce")
    saved = work.make_learner(0, 0).state_dict()
    saved["optimizer"]["param_groups"][0]["lr"] = torch.tensor(0.5)

    def fused(module: Any, config: Any, device: Any) -> Any:
        return optimizer.make_optimizer(module, config, torch.device("cuda"))

    monkeypatch.setattr(learner, "make_optimizer", fused)
    other = work.make_learner(0, 0)
    other.load_state_dict(saved)
    work.feed.close()
    assert [group["fused"] for group in other.optimizer.param_groups] == [True, True]
    assert other.optimizer.param_groups[0]["lr"] == 0.5
