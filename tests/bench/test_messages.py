"""A message's price, where there is none; ``test_profile.py`` measures one for real."""

from __future__ import annotations

import subprocess

import pytest

from thresher.bench import messages


def test_a_machine_that_starts_no_process_has_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no processes left")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert messages.processor_seconds() is None
