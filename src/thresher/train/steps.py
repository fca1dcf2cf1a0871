"""Training steps: computed one operation after the other, or recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from thresher.config import ResolvedConfig
from thresher.dist.group import Pending
from thresher.dist.runtime import Runtime
from thresher.ledger.ledger import Ledger
from thresher.loader.feed import Feed
from thresher.loader.transfer import Sent
from thresher.methods.base import Method, with_mode
from thresher.train.capture import Captured
from thresher.train.meter import Meter
from thresher.train.optimizer import can_be_recorded
from thresher.train.recorder import CudaRecorder
from thresher.train.team import Team
from thresher.train.together import Together
from thresher.types import Progress

Look = Callable[[], list[float] | None]
"""Called once the loss is known, to the flags that this rank raises; see ``train/flags.py``."""


class Steps:
    """Turns what arrives on the device into changed weights and an updated ledger.

    Args:
        method: what decides.
        feed: makes batches of what arrived.
        ledger: of this rank's samples.
        meter: sums up the epoch.
        team: the networks.
        captured: records whole steps; None to compute each anew.
    """

    def __init__(
        self,
        method: Method,
        feed: Feed,
        ledger: Ledger,
        meter: Meter,
        team: Team,
        captured: Captured | None = None,
    ) -> None:
        self._method = method
        self._feed = feed
        self._ledger = ledger
        self._meter = meter
        self._team = team
        self._captured = captured

    def compute(
        self, sent: Sent, progress: Progress, lr: float, look: Look | None
    ) -> Pending | None:
        """Compute a part of a step. A recorded step changes the weights, too.

        Args:
            sent: what arrived.
            progress: the moment.
            lr: learning rate of the step.
            look: for a step's last part; None for those before.

        Returns:
            The sum of all ranks' flags, if they raised any.
        """
        progress = with_mode(self._method, progress)
        if self._captured is None or look is None:
            return self._compute(sent, progress, look)
        self._captured.make(sent, progress, lr, self._team, self._whole)
        raised = look()
        return None if raised is None else Pending(torch.tensor(raised), None)

    def apply(self, lr: float) -> None:
        """Change the weights after a step's last part, if that is not done yet."""
        if self._captured is None:
            self._team.step(lr)

    def _whole(self, sent: Sent, progress: Progress) -> None:
        """Count and remember it in the end alone, since one that failed is made another way."""
        batch, positions = self._feed.batch(sent)
        rows = self._ledger.rows(positions)
        result = self._method.step(self._team.networks, batch, rows, progress)
        self._team.backward(result, flags=None)
        self._team.apply()
        self._meter.add(result, batch.valid)
        self._ledger.update(positions, result.records)

    def _compute(self, sent: Sent, progress: Progress, look: Look | None) -> Pending | None:
        batch, positions = self._feed.batch(sent)
        rows = self._ledger.rows(positions)
        told = None
        with self._team.part(look is not None):
            result = self._method.step(self._team.networks, batch, rows, progress)
            self._meter.add(result, batch.valid)
            if look is None:
                self._team.add_part(result)
            else:
                told = self._team.backward(result, look())
        self._ledger.update(positions, result.records)
        return told


def capture_for(
    config: ResolvedConfig,
    runtime: Runtime,
    together: Together,
    networks: int,
    say: Callable[[str], None],
) -> Captured | None:
    """What records steps; None, with the reason said, where that cannot be done.

    Args:
        config: of the run.
        runtime: device and peers.
        together: lets networks run at once.
        networks: that the method trains.
        say: takes one line for the user.
    """
    if runtime.device.type != "cuda" or not config.capture:
        return None
    reason = None
    if runtime.world_size > 1:
        reason = "several processes exchange gradients within them"
    elif config.accumulate > 1:
        reason = f"--accumulate {config.accumulate} makes them of several parts"
    elif not can_be_recorded(config.optimizer):
        reason = f"the optimizer '{config.optimizer}' may ask the host in each (sgd, adamw do not)"
    if reason is not None:
        say(f"Steps are not recorded as a CUDA graph: {reason}.")
        return None
    recorder = CudaRecorder(runtime.device)
    return Captured(recorder, runtime.device, together if networks > 1 else None, networks, say)
