from __future__ import annotations

import numpy as np
import pytest

from thresher.loader import planned as module
from thresher.loader.draws import uniforms
from thresher.loader.planned import filled, planned

PLAN = np.array([[3, 1, 4, 0], [-1, 2, -1, -1], [5, -1, 6, -1], [-1, -1, -1, -1]])


def test_empty_places_repeat_a_steps_samples_in_turn() -> None:
    assert filled(PLAN).tolist() == [[3, 1, 4, 0], [2, 2, 2, 2], [5, 5, 6, 6], [0, 0, 0, 0]]
    assert PLAN[1, 0] == -1


@pytest.mark.parametrize("stretch", [1, 8, 12, 10_000])
def test_every_step_is_the_same_however_many_are_worked_out_at_once(
    stretch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STRETCH", stretch)
    ids, labels = np.arange(7) * 10, np.arange(7) % 3
    steps = list(planned(PLAN, ids, labels, lambda own: uniforms(1, 2, own, 0, 5)))
    assert len(steps) == len(PLAN)
    for places, step in zip(PLAN, steps, strict=True):
        assert step.valid.tolist() == (places >= 0).tolist()
        assert step.positions.tolist() == filled(places[None])[0].tolist()
        assert step.ids.tolist() == (step.positions * 10).tolist()
        assert step.labels.tolist() == (step.positions % 3).tolist()
        assert step.draws is not None
        np.testing.assert_array_equal(step.draws, uniforms(1, 2, step.ids, 0, 5))
        step.valid[:] = False  # as a step does whose images cannot be read
    assert PLAN[0, 0] == 3


def test_an_epoch_without_steps_has_none() -> None:
    assert list(planned(PLAN[:0], np.arange(7), np.arange(7), None)) == []
