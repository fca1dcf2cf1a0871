"""Shards that cannot be used: named and refused, or left out and counted if the user allows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from thresher.errors import UserError
from thresher.sources.names import natural_key
from thresher.sources.places import name_of, shown
from thresher.sources.remote.errors import Missing
from thresher.sources.request import Request, enumerate_some, first_line

AGAIN = "Download or write it again"
ALLOW = "take the rest with --allow-damaged"


class DamagedShard(UserError):  # noqa: N818 - it is what the shard is
    """One shard is bad; others may be good. The message says what is wrong, without advice."""


class Damage:
    """The shards of one data set that cannot be used, or only in part."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.shards: dict[str, str] = {}

    def note(self, file: str, problem: str, advice: str = AGAIN) -> None:
        """Remember what is wrong with a shard, a sentence without its full stop.

        Raises:
            UserError: the user does not allow damage.
        """
        if not self._request.allow_damaged:
            raise UserError(f"{problem}. {advice}, or {ALLOW}.")
        self.shards[shown(file)] = f"{problem}."

    @contextlib.contextmanager
    def tolerate(self, file: str, advice: str = AGAIN) -> Iterator[None]:
        """Note what makes a shard unusable in the body, which is then left early.

        Args:
            file: path or URL of the shard.
            advice: what to do about one that is there and cannot be used.

        Raises:
            UserError: the user does not allow damage.
        """
        try:
            yield
        except DamagedShard as error:
            self.note(file, str(error).rstrip("."), advice)
        except (FileNotFoundError, Missing) as error:
            problem = f"There is no file {shown(file)}"
            if isinstance(error, Missing):
                problem += f" ({error})"
            self.note(file, problem, "Put it there, name those that exist")
        except PermissionError as error:
            closed = error.filename if isinstance(error.filename, str) else file
            problem = f"There is no right to read {shown(closed)}"
            self.note(file, problem, "Change its rights, run as its owner")
        except OSError as error:
            self.note(file, f"{shown(file)} cannot be read: {error.strerror or error}", advice)
        except pa.ArrowException as error:
            self.note(file, f"{shown(file)} cannot be read: {first_line(error)}", advice)

    def require_some_good(self, num: int) -> None:
        """Raises: UserError: all ``num`` shards are unusable; the first says why."""
        if num and len(self.shards) >= num:
            first = next(iter(self.shards.values()))
            raise UserError(
                f"{first} No other part of {self._request.data} can be used either."
                if num > 1
                else f"{first} {AGAIN}."
            )


def left_out(options: Mapping[str, Any]) -> str | None:
    """A line on what is missing of a data set for its damage; None if nothing is.

    Args:
        options: of its manifest.
    """
    shards: dict[str, str] = options.get("damaged_shards", {})
    if not shards:
        return None
    places = sorted(shards, key=natural_key)  # servers answer in any order
    names = enumerate_some([name_of(place) for place in places])
    if len(shards) == 1:
        return f"1 damaged file is left out, wholly or in part: {names}. {shards[places[0]]}"
    return (
        f"{len(shards):,} damaged files are left out, wholly or in part: {names}. The first: "
        f"{shards[places[0]]}"
    )
