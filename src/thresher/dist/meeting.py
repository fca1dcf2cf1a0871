"""How ranks find one another, also after a launcher has started them again.

A launcher's store may outlive the processes and keep what earlier ones wrote. So the first rank
calls with a fresh token, the others answer with a fresh number of their own, and only a call whose
confirmation holds that number counts; all else happens below the token.
"""

from __future__ import annotations

import datetime
import json
import os
import time
import uuid

import torch.distributed as dist

from thresher.dist.store import PrefixStore, Store, TCPStore
from thresher.errors import UserError

_POLL_SECONDS = 0.1


def meet(host: str, port: int, rank: int, world_size: int, timeout: float) -> Store:
    """Wait for all ranks; returns a store that only they use.

    Args:
        host, port: where the launcher says the first rank (or the launcher itself) listens.
        rank, world_size: this process's place.
        timeout: seconds to wait.

    Raises:
        UserError: the port is taken, the place cannot be reached, or ranks are missing.
    """
    launcher_listens = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    patience = datetime.timedelta(seconds=timeout)
    try:
        store = TCPStore(
            host,
            port,
            is_master=rank == 0 and not launcher_listens,
            wait_for_workers=False,
            timeout=patience,
        )
        token = (
            _call(store, world_size, timeout)
            if rank == 0
            else _answer(store, rank, time.monotonic() + timeout)
        )
    except (RuntimeError, dist.DistError) as error:
        raise _no_meeting(error, host, port, timeout) from None
    return PrefixStore(token, store)


def _call(store: Store, world_size: int, timeout: float) -> str:
    token = uuid.uuid4().hex
    store.set("call", token)
    keys = [f"answer/{token}/{rank}" for rank in range(1, world_size)]
    give_up = time.monotonic() + timeout
    while not store.check(keys):
        if time.monotonic() > give_up:
            missing = [str(r) for r, key in enumerate(keys, start=1) if not store.check([key])]
            names = ", ".join(missing[:8]) + (" and others" if len(missing) > 8 else "")
            raise UserError(
                f"{len(missing)} of {world_size} processes did not come within {timeout:g} s: rank"
                f" {names}. See that every one was started and that it reaches this machine"
                " (--peer-timeout changes the wait)."
            )
        time.sleep(_POLL_SECONDS)
    numbers = [store.get(key).decode() for key in keys]
    store.set(f"confirmation/{token}", json.dumps(numbers))
    return token


def _answer(store: Store, rank: int, give_up: float) -> str:
    number = uuid.uuid4().hex
    while True:
        token: str = store.get("call").decode()
        store.set(f"answer/{token}/{rank}", number)
        confirmation = f"confirmation/{token}"
        if store.check([confirmation]) and number in json.loads(store.get(confirmation)):
            return token
        if time.monotonic() > give_up:
            raise RuntimeError("the first rank does not answer")
        time.sleep(_POLL_SECONDS)


def _no_meeting(error: Exception, host: str, port: int, timeout: float) -> UserError:
    if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
        return UserError(
            f"The port {port} that the processes should meet at is taken. Choose another with the"
            " environment variable MASTER_PORT (torchrun: --master-port)."
        )
    return UserError(
        f"The processes did not meet at {host}:{port} within {timeout:g} s"
        f" ({str(error).splitlines()[0][:160]}). See that the first one was started and that this"
        " address can be reached from all machines (--peer-timeout changes the wait)."
    )
