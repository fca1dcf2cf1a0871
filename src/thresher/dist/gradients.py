"""Gradients averaged over the ranks while backward still runs.

All networks of a rank are members of one ``DistributedDataParallel``, so that their gradients
travel as one stream of buckets. What else the ranks add up in a step rides in the first of them,
running statistics among it: on crowded cores a message of four numbers costs as much as one of a
hundred thousand.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from thresher.config import Compression
from thresher.dist.buckets import bucket_megabytes
from thresher.dist.group import Group
from thresher.dist.idle import graph_changed, unfinished

# Running statistics ride with the gradients. PyTorch renamed the option after 2.11.
_NO_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


class _Members(nn.Module):
    """Several networks as one module, with one more parameter.

    Its gradient is what rides with theirs. No optimizer and no checkpoint knows of it.
    """

    def __init__(self, networks: Mapping[int, nn.Module], num_riders: int) -> None:
        super().__init__()
        self.members = nn.ModuleDict({str(index): net for index, net in networks.items()})
        # The last member, so that PyTorch counts the parameters before it as if there were none.
        first = next(self.members.parameters())
        seats = [nn.Parameter(first.new_zeros(num_riders, dtype=torch.float32))]
        self.riders = nn.ParameterList(seats if num_riders else [])

    def forward(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        return network(images)


class Exchange:
    """The way from a network's loss to gradients that are the mean over the group's ranks.

    Args:
        networks: that this rank holds, by index.
        group: ranks that hold the same ones.
        compression: ``bf16`` halves what travels, at the cost of rounding each rank's gradients.
        num_riders: numbers that are summed up over the ranks in each step, besides.
        idle: names of each network's parameters that never get a gradient; they do not travel.
        starts_early: whether those of small networks, too, begin to travel before backward ends.
    """

    def __init__(
        self,
        networks: Mapping[int, nn.Module],
        group: Group,
        compression: Compression,
        num_riders: int,
        idle: Collection[str] = (),
        starts_early: bool = False,
    ) -> None:
        self._networks = networks
        self._group = group
        self._ddp: DistributedDataParallel | None = None
        if group.size == 1:
            return
        self._statistics = running_statistics(list(networks.values()))
        num_riders += sum(buffer.numel() for buffer in self._statistics)
        # Sums must not be rounded to bf16, so there they travel by themselves.
        members = _Members(networks, 0 if compression == "bf16" else num_riders)
        self._riders = members.riders
        named = members.members.named_parameters("members")
        trained = {name: p for name, p in named if p.requires_grad}
        unused = {f"members.{index}.{name}" for index in networks for name in idle}
        self._travelling = {name: p for name, p in trained.items() if name not in unused}
        self._staying = {name: p for name, p in trained.items() if name in unused}
        self._is_checked = False
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
            members, unused
        )
        first = next(members.parameters())
        self._ddp = DistributedDataParallel(
            members,
            device_ids=[first.device] if first.is_cuda else None,
            process_group=group.handle,
            bucket_cap_mb=bucket_megabytes(self._travelling.values(), starts_early=starts_early),
            gradient_as_bucket_view=True,
            **_NO_BUFFERS,
        )
        if compression == "bf16":
            self._ddp.register_comm_hook(group.handle, bf16_compress_hook)
        self._fix_buckets(self._ddp, first.new_zeros(num_riders, dtype=torch.float32))

    def forward(self, index: int, images: Tensor) -> Tensor:
        """What a network says of images, with gradients.

        Its backward pass raises a ``UserError`` if it leaves out a part that travels.
        """
        if self._ddp is None:
            return self._networks[index](images)  # type: ignore[no-any-return]
        out: Tensor = self._ddp(self._networks[index], images)
        if out.requires_grad:
            out.register_hook(self._check_at_the_end)  # type: ignore[no-untyped-call]
        return out

    def keep_to_myself(self) -> AbstractContextManager[None]:
        """Inside, forward and backward add to the gradients without an exchange."""
        return contextlib.nullcontext() if self._ddp is None else self._ddp.no_sync()

    def backward(self, losses: Sequence[Tensor], riders: Tensor) -> Tensor:
        """Add the gradients of losses, averaged over several ranks, and sum up a few numbers.

        Running statistics become the ranks' mean. Only where ``is_joint``.

        Args:
            losses: of all networks, since their gradients travel together.
            riders: float32[num_riders] on the networks' device.

        Returns:
            The riders' sum over the group's ranks.
        """
        total = self._backward(losses, flatten([riders, *self._statistics]))
        sums, statistics = total.tensor_split([len(riders)])
        if self._statistics:
            unflatten_into(statistics / self._group.size, self._statistics)
        return sums

    def _backward(self, losses: Sequence[Tensor], riders: Tensor) -> Tensor:
        if not self._riders:
            pending = self._group.start_sum(riders)
            torch.autograd.backward(losses)
            return pending.wait()
        (seats,) = self._riders
        # What is given instead of computed is there first, so it takes the first bucket.
        torch.autograd.backward([seats, *losses], [riders, *[None] * len(losses)])
        assert seats.grad is not None
        total: Tensor = seats.grad * self._group.size  # PyTorch takes means
        seats.grad = None
        return total

    @property
    def exposed_seconds(self) -> float:
        """Of a mean step, how long gradients still travelled when backward had computed them all.

        PyTorch measures it in the first ten steps and in every hundredth from there on.
        """
        if self._ddp is None:
            return 0.0
        measured = self._ddp._get_ddp_logging_data()  # type: ignore[no-untyped-call]
        whole = float(measured.get("avg_backward_comm_time", 0))
        hidden = float(measured.get("avg_backward_compute_comm_overlap_time", 0))
        return max(0.0, whole - hidden) / 1e9

    @property
    def is_joint(self) -> bool:
        """Whether all losses must go backward together, since their gradients travel together."""
        return self._ddp is not None

    def _fix_buckets(self, ddp: DistributedDataParallel, riders: Tensor) -> None:
        """Have the buckets be in the first step what they are in all others.

        PyTorch puts all into one, and forms the buckets by the order in which the gradients of the
        first step came. With three ranks or more a sum's rounding depends on its place in a bucket,
        so a run that goes on from a checkpoint would part from one that was never stopped.
        """

        def one_of_each(_: Tensor) -> Tensor:
            # Those of the last layers come first, as in a real step.
            return torch.stack([p.sum().float() for p in self._travelling.values()]).sum()

        self._backward([ddp(one_of_each, torch.empty(0))], riders)
        for parameter in self._travelling.values():
            parameter.grad = None

    def _check_at_the_end(self, _: Tensor) -> None:
        """At a backward pass's first operation: have it checked once all gradients are there."""
        if not self._is_checked:
            self._is_checked = True
            # Queued from within the queue, so that PyTorch's own end of the exchange comes first.
            queue = Variable._execution_engine.queue_callback
            queue(lambda: queue(self._check))

    def _check(self) -> None:
        """Ranks whose gradients do not meet would wait for one another, or part unseen."""
        self._is_checked = False
        assert self._ddp is not None
        try:
            self._ddp.reducer._check_reducer_finalized()
        except RuntimeError as error:
            missing = unfinished(error, list(self._travelling))
            if missing is None:
                raise
            raise graph_changed(_plain(missing)) from None
        found = [name for name, p in self._staying.items() if p.grad is not None]
        if found:
            raise graph_changed(_plain(found))


def _plain(names: Iterable[str]) -> list[str]:
    """A network's own names of its parameters."""
    return list(dict.fromkeys(name.split(".", 2)[2] for name in names))


def running_statistics(networks: Sequence[nn.Module]) -> list[Tensor]:
    """Float buffers that forward passes change, such as those of batch normalisation."""
    return [
        buffer for network in networks for buffer in network.buffers() if buffer.is_floating_point()
    ]


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One float32 vector of all values."""
    return torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])


def unflatten_into(vector: Tensor, tensors: Sequence[Tensor]) -> None:
    """The way back."""
    parts = torch.split(vector, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
