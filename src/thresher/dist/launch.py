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

_GRACE_SECONDS = "60"
"""For saving after a signal, before a process is killed; PyTorch's own variable overrides it."""


def launch(words: Sequence[str], processes: int, max_restarts: int) -> int:
    """Run ``thresher WORDS`` in several processes and wait for them.

    Args:
        words: the command line.
        processes: how many, on this machine.
        max_restarts: how often all are started again when one fails.

    Returns:
        The exit code of the process that failed first, 0 if none did.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # The agent sets 1 otherwise, with a warning; each rank works out its share of the cores itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _GRACE_SECONDS)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=0.2,
        local_addr="127.0.0.1",
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-m", "thresher", *words)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code < 0:  # it had no time to say anything, and perhaps the others had none either
            why = ", as when the machine's memory runs out" if -code == signal.SIGKILL else ""
            print(
                f"thresher: rank {rank} was ended by {signal.Signals(-code).name}{why}. Everything"
                " saved so far is whole; go on with --resume.",
                file=sys.stderr,
            )
        return 128 - code if code < 0 else code
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    return 0
