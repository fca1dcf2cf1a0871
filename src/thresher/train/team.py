"""The networks of one round on this rank: from what a method decided to changed weights.

Each network steps down its mean loss over the global weight. That weight is summed over the ranks
while backward runs, so the loss is scaled by what the weight will be about, and the gradients are
put right before the step. The ranks' flags travel with the weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor

from thresher.config import ResolvedConfig
from thresher.dist.group import Pending
from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.train.flags import NUM_FLAGS
from thresher.train.learner import Learner
from thresher.train.together import Together
from thresher.types import Network, Networks, StepResult


class Team:
    """A method's networks with all that trains them.

    Args:
        learners: that this rank holds, by the network's index.
        num_networks: of the method, held here or not.
        config: batch size, parts of a batch, compression.
        runtime: this process's place among its peers.
        together: runs networks at once where that is worth it.
    """

    def __init__(
        self,
        learners: Mapping[int, Learner],
        num_networks: int,
        config: ResolvedConfig,
        runtime: Runtime,
        together: Together,
    ) -> None:
        self.learners = learners
        self._runtime = runtime
        self._together = together
        self._parts = config.accumulate
        self._nominal = config.batch_size
        modules = {index: learner.module for index, learner in learners.items()}
        num_riders = num_networks + (NUM_FLAGS if runtime.flags_can_ride else 0)
        self._exchange = runtime.exchange(modules, config.compress_gradients, num_riders)
        self._weights: Tensor | None = None
        self._sums: Tensor | None = None
        self._steps = 0
        members = tuple(self._member(index) for index in range(num_networks))
        self.networks = Networks(members, self._for_each)
        together.allow(learner.module for learner in learners.values())

    def part(self, last: bool) -> AbstractContextManager[None]:
        """Inside, one part of a batch is computed; only the last one exchanges gradients."""
        return contextlib.nullcontext() if last else self._exchange.keep_to_myself()

    def add_part(self, result: StepResult) -> None:
        """Add the gradients of a part that is not the last."""
        self._together.backward(self._losses(result))

    def backward(self, result: StepResult, flags: list[float] | None) -> Pending | None:
        """Add the gradients of the last part, and exchange them.

        Args:
            result: of the part.
            flags: that this rank raises, if it is asked.

        Returns:
            The sum of all ranks' flags, if they were asked.
        """
        if self._weight_is_known:
            told = None if flags is None else self._runtime.start_flags(flags)
            # Backward starts from this factor, which costs less than to divide the losses by it.
            weights = [result.weight_sums[index] for index in self.learners]
            factors = [weight.clamp(min=1.0).reciprocal_() for weight in weights]
            self._together.backward([result.loss_sums[i] for i in self.learners], factors)
            return told
        losses = self._losses(result)
        assert self._weights is not None
        riders = self._weights
        told = None
        if self._runtime.flags_can_ride:
            assert flags is not None, "where flags ride, every step asks"
            riders = torch.cat([riders, torch.tensor(flags)])
        elif flags is not None:
            told = self._runtime.start_flags(flags)
        if self._exchange.is_joint:
            riders = self._exchange.backward(losses, riders)
        else:
            self._together.backward(losses)
        self._sums, flag_sums = riders.tensor_split([len(self._weights)])
        self._weights = None
        return Pending(flag_sums, None) if self._runtime.flags_can_ride else told

    def _losses(self, result: StepResult) -> list[Tensor]:
        """Those of this rank's networks, scaled; counts the weights, which others add to."""
        # Gradients are averaged over the ranks, and the mean is over all of them.
        scale = self._runtime.group.size / self._nominal
        weights = torch.stack(result.weight_sums)
        self._weights = weights if self._weights is None else self._weights + weights
        return [result.loss_sums[index] * scale for index in self.learners]

    def step(self, lr: float) -> None:
        """Change the weights, once all parts of a batch went backward."""
        self.prepare(lr)
        self.apply()

    def prepare(self, lr: float) -> None:
        """The host's part of a step."""
        for learner in self.learners.values():
            learner.prepare(lr)

    def apply(self) -> None:
        """The device's part of a step."""
        totals, self._sums = self._sums, None
        self._steps += 1

        def apply(index: int) -> None:
            learner = self.learners[index]
            if not self._weight_is_known:
                assert totals is not None, "after backward"
                gradients = learner.gradients
                torch._foreach_mul_(gradients, self._nominal / totals[index].clamp(min=1.0))
            learner.step()

        self._together.map(apply, self.learners)

    def forget(self) -> None:
        """Drop what a step that was not finished left behind."""
        self._weights = self._sums = None
        for learner in self.learners.values():
            learner.optimizer.zero_grad(set_to_none=True)

    @property
    def exchange_wait_seconds(self) -> float:
        """Estimate of all that was waited for other ranks' gradients, from some of the steps."""
        return self._steps * self._exchange.exposed_seconds

    def predict(self, teacher: bool) -> Callable[[Tensor], list[Tensor]]:
        """Images to every network's logits float32[B, C] in eval mode."""
        predictors = {i: learner.predictor(teacher=teacher) for i, learner in self.learners.items()}

        def predict(images: Tensor) -> list[Tensor]:
            own = [predictor(images) for predictor in predictors.values()]
            return own if self._runtime.twin is None else self._runtime.twin.both(own[0])

        return predict

    def has_finite_weights(self) -> bool:
        """Whether all weights of this rank's networks are finite."""
        return all(
            bool(torch.isfinite(weight).all())
            for learner in self.learners.values()
            for weight in learner.module.parameters()
        )

    @property
    def _weight_is_known(self) -> bool:
        """Before backward: one rank that computes a batch in one part knows its whole weight."""
        return self._runtime.group.size == 1 and self._parts == 1

    def _member(self, index: int) -> Network:
        if index not in self.learners:
            return Network(student=_absent, teacher=_absent)
        return Network(partial(self._student, index), self.learners[index].teacher)

    def _student(self, index: int, images: Tensor) -> Tensor:
        with self._runtime.autocast():
            logits = self._exchange.forward(index, images)
        return logits.float()

    def _for_each(
        self, function: Callable[[Network], Tensor], networks: Sequence[Network]
    ) -> list[Tensor]:
        twin = self._runtime.twin
        if twin is None:
            return self._together.map(function, networks)
        return twin.both(function(networks[twin.mine]))


def _absent(_: Tensor) -> Tensor:
    raise UserError(
        "This method asks its networks one by one, so both must be on every process. Choose"
        " --placement together."
    )
