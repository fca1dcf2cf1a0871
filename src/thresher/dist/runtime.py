"""One code path for 1 and N processes: devices, precision, sums over ranks.

This room alone knows Fabric and torch.distributed. Fabric knows torchrun, Slurm, LSF and MPI.
"""

from __future__ import annotations

import datetime
import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import Tensor, nn

from thresher.config import Compression, Placement, Precision
from thresher.dist.agree import RanksDifferError, first_difference, join_errors
from thresher.dist.batchnorm import share_statistics
from thresher.dist.cores import binding, first_here_but_0, is_crowded, ranks_here, share_of_cores
from thresher.dist.environment import Surroundings, surroundings
from thresher.dist.errors import PeersLostError, name_lost_peers
from thresher.dist.gradients import Exchange
from thresher.dist.group import Group, Pending, Twin
from thresher.dist.idle import find_idle
from thresher.dist.launchers import has_launcher
from thresher.dist.memory import keep_memory
from thresher.dist.start import check_accelerator, join, make_fabric, set_timeout
from thresher.dist.store import HashStore, Store, TCPStore, within
from thresher.dist.watch import Watch
from thresher.errors import UserError

# Fabric announces its precision and ranks; Thresher prints its own configuration.
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

T = TypeVar("T")


class Runtime:
    """This process's place among its peers.

    Args:
        accelerator: cpu, cuda, mps or auto.
        precision: of autocast.
        placement: whether each rank holds both networks of a dual method, or half of them each.
        peer_timeout: seconds to wait for a rank that is missing or stalls.
        alone: take no notice of a launcher; for commands that need one process only.

    Attributes:
        group: the ranks that hold the same networks as this one and share out the samples.
        twin: the rank with the other network (placement apart), else None.
        cores: of the processor, for this rank alone.
        local_size: ranks on this machine.

    Raises:
        UserError: the accelerator is not there, or the ranks do not find one another.
    """

    def __init__(
        self,
        accelerator: str,
        precision: Precision,
        *,
        placement: Placement = "together",
        peer_timeout: float = 600.0,
        alone: bool = False,
    ) -> None:
        around = Surroundings(LightningEnvironment(), 1, 1) if alone else surroundings()
        kind = check_accelerator(accelerator, around)
        if kind == "cpu":
            keep_memory()
        self.world_size = around.world_size
        self._peer_timeout = peer_timeout
        self._fabric = make_fabric(kind, precision, around)
        if self.world_size > 1:
            self.rank = around.cluster.global_rank()
            try:
                join(around, kind, peer_timeout)
            except UserError as error:  # the first rank may be the one that is missing
                raise self.report(error) if self.rank == 1 else error from None
        self._fabric.launch()  # which finds the group made already
        self._longest = datetime.timedelta(seconds=4 * peer_timeout + 60)
        if self.world_size > 1:
            # While training the watch names who stalls, a collective's own time-out names nobody;
            # and before, the first rank may take long to open the data.
            set_timeout(self._longest)
        self.rank = self._fabric.global_rank
        self.device = self._fabric.device
        self._watch: Watch | None = None
        self._idle: frozenset[str] = frozenset()
        try:
            with self.name_lost_peers():
                # Before anything that all must do alike.
                self.require_equal({"--placement": placement, "the kind of device": kind})
                self._refuse_shared_gpus()
                self.group, self.twin = self._place(placement, precision)
                self._store = self._open_shared_store()
                mine = binding()
                everyone = self.gather(mine)
                self.cores = share_of_cores(mine, everyone)
                self.local_size = ranks_here(mine, everyone)
                self._is_deputy = self.rank == first_here_but_0(mine, everyone)
                # Of one mind: the ranks' buckets must be the same.
                crowded = any(self.gather(is_crowded(mine, everyone)))
                self._starts_early = kind == "cpu" and not crowded
        except (UserError, PeersLostError):
            self.leave()  # nobody else can: there will be no runtime
            raise
        # Alone PyTorch counts the cores itself, and knows nothing of a container's quota.
        if self.world_size > 1 or self.cores < min(len(mine.cores), torch.get_num_threads()):
            torch.set_num_threads(self.cores)

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and talks to the user."""
        return self.rank == 0

    def held(self, networks: int) -> tuple[int, ...]:
        """Which of a method's networks this rank trains."""
        return tuple(range(networks)) if self.twin is None else (self.twin.mine,)

    def owner(self, network: int) -> int:
        """The first rank that trains a network; it writes it to disk."""
        return 0 if self.twin is None or network == 0 else self.world_size // 2

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in the chosen precision inside this context."""
        context: AbstractContextManager[None] = self._fabric.autocast()
        return context

    def exchange(
        self, networks: Mapping[int, nn.Module], compression: Compression, num_riders: int
    ) -> Exchange:
        """The way to averaged gradients for the networks that this rank holds."""
        return Exchange(
            networks, self.group, compression, num_riders, self._idle, self._starts_early
        )

    def leave_out_idle(self, network: nn.Module, images: Tensor) -> None:
        """Find out which parameters never get a gradient; they take no part in any exchange.

        Args:
            network: of the kind that will be trained; it is used up.
            images: a few.
        """
        if self.group.size > 1:
            with self.autocast():
                self._idle = find_idle(network, images)

    def require_networks(self, networks: int, method: str) -> None:
        """Refuse a placement that a method's networks do not fit.

        Raises:
            UserError: apart, with another number of networks than two.
        """
        if self.twin is not None and networks != 2:
            raise UserError(
                f"--placement apart gives each half of the processes one of two networks, but"
                f" '{method}' trains {networks}. Choose --placement together."
            )

    def share_statistics(self, network: nn.Module) -> nn.Module:
        """Let batch normalisation see the samples of all ranks."""
        return share_statistics(network, self.group, self.device)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the samples of all ranks, the same result on each."""
        self.tick()
        return self.group.sum(values)

    @property
    def flags_can_ride(self) -> bool:
        """Whether gradients travel between all ranks, by way of the hosts, as flags do."""
        return self.world_size > 1 and self.twin is None and self.device.type == "cpu"

    def start_flags(self, values: list[float]) -> Pending:
        """Begin to sum a few small numbers over really all ranks, on the host."""
        flags = torch.tensor(values, dtype=torch.float32)
        if self.world_size == 1:
            return Pending(flags, None)
        return Pending(flags, dist.all_reduce(flags, async_op=True))

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.start_flags([0.0]).wait()

    def broadcast(self, value: T) -> T:
        """The first rank's value, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's value, on every rank, in the order of the ranks."""
        if self.world_size == 1:
            return [value]
        box: list[Any] = [None] * self.world_size
        dist.all_gather_object(box, value)
        return box

    def gather_on_first(self, value: T) -> list[T] | None:
        """Every rank's value in the order of the ranks, on the first; None on the others."""
        if self.world_size == 1:
            return [value]
        box: list[Any] | None = [None] * self.world_size if self.is_first else None
        dist.gather_object(value, box)
        return box

    def report(self, error: UserError) -> UserError:
        """Say which rank had a trouble of its own; what all had alike the first rank says."""
        if not error.told and not self.is_first:
            print(f"thresher: rank {self.rank}: {error}", file=sys.stderr, flush=True)
            error.told = True
        return error

    def settle(self, action: Callable[[], T]) -> T:
        """Do something on every rank; a failure of one is that of all.

        Raises:
            UserError: on every rank, if any raised one; the first rank reports it.
        """
        if self.world_size == 1:
            return action()
        result: list[T] = []
        message = join_errors(self.gather(_attempt(lambda: result.append(action()))))
        if message is not None:
            raise UserError(message, told=not self.is_first)
        return result[0]

    def on_first(self, action: Callable[[], T]) -> T | None:
        """Do something on the first rank alone; a failure is that of all.

        Raises:
            UserError: on every rank; the first one reports it.
        """
        if self.world_size == 1:
            return action()
        result: list[T] = []
        message = _attempt(lambda: result.append(action())) if self.is_first else None
        message = self.broadcast(message)
        if message is not None:
            raise UserError(message, told=not self.is_first)
        return result[0] if result else None

    def first_then_all(self, action: Callable[[], T]) -> T:
        """Do something on the first rank, which may leave a cache, then on the others.

        Raises:
            UserError: on every rank, if any raised one.
        """
        result = self.on_first(action)
        if self.is_first:
            self.settle(lambda: None)
            assert result is not None
            return result
        return self.settle(action)

    def require_equal(self, facts: Mapping[str, Any]) -> None:
        """Refuse ranks that were started differently.

        Raises:
            UserError: naming the rank and the difference.
        """
        difference = first_difference(self.gather(dict(facts)))
        if difference is not None:
            raise RanksDifferError(difference, told=not self.is_first)

    def connect(self) -> Store:
        """A connection of one's own to the store that all ranks share, for another thread."""
        if self.world_size == 1:
            return self._store
        host, port = self._store_place
        return within(
            self._peer_timeout,
            lambda: TCPStore(host, port, is_master=False, timeout=self._patience),
        )

    def watch(self, orphaned: Callable[[], None]) -> None:
        """Begin to look out for ranks that stall; ``tick`` tells that this one does not.

        Args:
            orphaned: called once when the launcher that started this process is gone.
        """
        self.stop_watching()
        if self.world_size > 1:
            self._watch = Watch(
                self.connect,
                self.rank,
                self.world_size,
                self._peer_timeout,
                orphaned=orphaned if has_launcher() else None,
                deputy=self._is_deputy,
            )

    def tick(self, *, alike: bool = True) -> None:
        """Something was done, if ``alike`` equally often by all: this rank does not stall."""
        if self._watch is not None:
            self._watch.tick(alike=alike)

    def name_lost_peers(self) -> AbstractContextManager[None]:
        """Inside, a broken connection is a ``PeersLostError``."""
        return name_lost_peers(self.world_size)

    def stop_watching(self) -> None:
        """Peers that end from now on are not lost."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def close(self) -> None:
        """Part from the peers in order; none leaves before all are done."""
        if self.world_size > 1:
            self.barrier()
            self.stop_watching()
            self.barrier()
        self.leave(in_order=True)

    def leave(self, *, in_order: bool = False) -> None:
        """Part from the peers, whatever they do.

        Args:
            in_order: nothing is under way. On a GPU parting waits for exchanges that may never end,
                so that without order the process just ends.
        """
        self.stop_watching()
        if dist.is_initialized() and (in_order or self.device.type == "cpu"):
            # A thread of gloo's that still holds a tensor when the interpreter ends aborts the
            # process; so does a network that is wrapped for a group which is gone.
            gc.collect()
            dist.destroy_process_group()

    @property
    def _patience(self) -> datetime.timedelta:
        return datetime.timedelta(seconds=self._peer_timeout)

    def _place(self, placement: Placement, precision: Precision) -> tuple[Group, Twin | None]:
        if placement == "together" or self.world_size == 1:
            return Group(self.rank, self.world_size), None
        if self.world_size % 2:
            raise UserError(
                f"--placement apart needs an even number of processes, not {self.world_size}.",
                told=not self.is_first,
            )
        half = self.world_size // 2
        handles = [
            dist.new_group(list(range(start, start + half)), timeout=self._longest)
            for start in (0, half)
        ]
        mine, place = divmod(self.rank, half)
        handle = handles[mine]
        assert isinstance(handle, dist.ProcessGroup), "this rank belongs to its own half"
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        return (
            Group(place, half, handle),
            Twin((self.rank + half) % self.world_size, mine, dtype),
        )

    def _refuse_shared_gpus(self) -> None:
        """NCCL cannot serve two ranks on one GPU, and says so in words of its own."""
        if self.device.type != "cuda" or self.world_size == 1:
            return
        everyone = self.gather(str(torch.cuda.get_device_properties(self.device).uuid))
        if len(set(everyone)) < len(everyone):
            raise UserError(
                f"{self.world_size} processes were started, but they have only"
                f" {len(set(everyone))} GPUs. Start one process for each GPU.",
                told=not self.is_first,
            )

    def _open_shared_store(self) -> Store:
        """Hosted by the first rank: a launcher's own store ends with the launcher."""
        if self.world_size == 1:
            return HashStore()
        host = os.environ["MASTER_ADDR"]
        if self.is_first:
            # Not waiting for the others: they learn of the port only now.
            store = TCPStore(
                host, 0, is_master=True, wait_for_workers=False, timeout=self._patience
            )
            self._store_place = self.broadcast((host, store.port))
            return store
        self._store_place = self.broadcast((host, 0))
        return self.connect()


def _attempt(action: Callable[[], None]) -> str | None:
    """Why it failed, if by a user's mistake."""
    try:
        action()
    except UserError as error:
        return str(error)
    return None
