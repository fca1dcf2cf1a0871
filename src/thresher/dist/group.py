"""Sums and exchanges between some of the ranks; with one rank they do nothing.

One code path for 1 and N processes: callers never ask how many there are.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from thresher.dist.store import HashStore
from thresher.errors import UserError


class Pending:
    """A sum on its way.

    Args:
        values: holds the sum when ``work`` is done.
        work: None if there was nothing to do.
    """

    def __init__(self, values: Tensor, work: dist.Work | None) -> None:
        self._values = values
        self._work = work

    @property
    def is_done(self) -> bool:
        """Whether ``wait`` would return at once."""
        return self._work is None or self._work.is_completed()

    def wait(self) -> Tensor:
        """The sum; on a GPU the stream waits, not the host."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._values


class Group:
    """Ranks that work on different samples with the same networks.

    Args:
        rank, size: this process's place among them.
        handle: torch's process group, None for all ranks or for a process on its own.
    """

    def __init__(self, rank: int, size: int, handle: dist.ProcessGroup | None = None) -> None:
        self.rank = rank
        self.size = size
        self.handle = handle

    def start_sum(self, values: Tensor) -> Pending:
        """Begin to sum up over the ranks; ``values`` must not be touched until it is done."""
        if self.size == 1:
            return Pending(values, None)
        return Pending(values, dist.all_reduce(values, group=self.handle, async_op=True))

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks, the same result on each; ``values`` stay as they are."""
        return self.start_sum(values.clone()).wait() if self.size > 1 else values


@contextlib.contextmanager
def pretended_pair() -> Iterator[Group]:
    """A group of this process alone that claims to be two, on the CPU.

    All is done that a rank does by itself in an exchange, and nothing is sent or waited for. Its
    sums are those of one rank.

    Raises:
        UserError: this machine starts no group, such as without a network interface to use.
    """
    try:
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    except RuntimeError as error:
        raise UserError(f"Processes could not find one another here: {error}") from None
    try:
        yield Group(0, 2, dist.group.WORLD)
    finally:
        gc.collect()  # gloo's threads must not hold a tensor of what is gone
        dist.destroy_process_group()


class Twin:
    """The rank that holds the other network and sees the same samples (placement apart).

    Args:
        peer: its global rank.
        mine: index of the network that this rank holds, 0 or 1.
        dtype: in which predictions travel; both sides round to it, so that both hold the same.
    """

    def __init__(self, peer: int, mine: int, dtype: torch.dtype) -> None:
        self.peer = peer
        self.mine = mine
        self._dtype = dtype

    def both(self, own: Tensor) -> list[Tensor]:
        """The predictions of network 0 and network 1; gradients flow into this rank's own."""
        rounded = own.to(self._dtype)
        outgoing = rounded.detach().contiguous()
        incoming = torch.empty_like(outgoing)
        exchange = [
            dist.P2POp(dist.isend, outgoing, self.peer),
            dist.P2POp(dist.irecv, incoming, self.peer),
        ]
        for work in dist.batch_isend_irecv(exchange):
            work.wait()
        pair = [rounded.to(own.dtype), incoming.to(own.dtype)]
        return pair if self.mine == 0 else pair[::-1]
