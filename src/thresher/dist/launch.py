"""Starting several ranks on this machine: torchrun's own agent, without its traceback."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from thresher.dist.errors import PEERS_LOST
from thresher.dist.launchers import MAX_RESTARTS, RESTART_COUNT

_GRACE_SECONDS = "60"
"""For saving after a signal, before a process is killed; PyTorch's own variable overrides it."""
_ONE_LOOK_SECONDS = 1
_USER_ERROR = 2
"""What a process ends with after a mistake of the user's; another try would make it again."""


def launch(words: Sequence[str], processes: int, max_restarts: int) -> int:
    """Run ``thresher WORDS`` in several processes and wait for them.

    Args:
        words: the command line.
        processes: how many, on this machine.
        max_restarts: how often all are started again when one fails, unless by a user's mistake.

    Returns:
        The exit code of the process that failed first, 0 if none did.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # The agent sets 1 otherwise, with a warning; each rank works out its share of the cores itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _GRACE_SECONDS)
    signals = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # started with nohup
        signals.remove("SIGHUP")
    try:
        # The agent would start again after any failure: each try gets one that does not.
        for count in range(max_restarts + 1):
            os.environ[RESTART_COUNT], os.environ[MAX_RESTARTS] = str(count), str(max_restarts)
            failed = _try(words, processes, ",".join(signals))
            if failed is None:
                return 0
            if _USER_ERROR in (failure.exitcode for failure in failed.failures.values()):
                return _USER_ERROR
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    assert failed is not None
    return _explain(failed)


def _try(words: Sequence[str], processes: int, signals: str) -> ChildFailedError | None:
    """Run them once; what failed first, None if nothing did.

    Raises:
        SignalException: this process was asked to stop.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        local_addr="127.0.0.1",
        signals_to_handle=signals,
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-m", "thresher", *words)
    except ChildFailedError as error:
        return error
    return None


def _cause(error: ChildFailedError) -> tuple[int, int]:
    """The rank that failed first and its exit code.

    Who lost a peer failed because of it. If both are seen in the same look at them, which has one
    second for both, the agent would name the lower rank.
    """
    first, failure = error.get_first_failure()
    if failure.exitcode == PEERS_LOST:
        for rank, other in error.failures.items():
            by_the_agent = other.exitcode == -signal.SIGTERM
            is_later = other.timestamp > failure.timestamp + _ONE_LOOK_SECONDS
            if other.exitcode != PEERS_LOST and not by_the_agent and not is_later:
                return rank, other.exitcode
    return first, failure.exitcode


def _explain(error: ChildFailedError) -> int:
    """Its exit code, and a sentence for a process that had no time to say one."""
    rank, code = _cause(error)
    if code >= 0:
        return code
    why = ", as when the machine's memory runs out" if -code == signal.SIGKILL else ""
    print(  # perhaps the others had no time either
        f"thresher: rank {rank} was ended by {signal.Signals(-code).name}{why}. Everything saved so"
        " far is whole; go on with --resume.",
        file=sys.stderr,
    )
    return 128 - code
