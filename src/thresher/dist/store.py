"""The values that ranks leave for one another: torch's key-value stores.

``torch.distributed`` offers these names only where it was built in, so its type stubs do not.
"""

from __future__ import annotations

from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore

__all__ = ["HashStore", "PrefixStore", "Store", "TCPStore"]
