"""What went wrong on the way to a remote file: once, for this file, or for all of them."""

from __future__ import annotations

import asyncio
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

from thresher.errors import UserError
from thresher.sources.places import origin, protocol, shown
from thresher.sources.read_error import ReadError

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_WRONG = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"}
_WRONG |= {"InvalidSecurity", "AuthFailure", "UnrecognizedClientException"}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError"}
_STALE_LOGIN = {"UnauthorizedSSOTokenError", "SSOTokenLoadError", "CredentialRetrievalError"}
_SPOILT = {"FlexibleChecksumError", "ChecksumError"}  # the server's checksum is of something else
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524}


class RemoteError(ReadError):
    """A remote file cannot be read now. The message is the reason, fit for a sample's state."""


class Missing(RemoteError):  # noqa: N818
    """There is no such file."""


class Passing(RemoteError):  # noqa: N818
    """It may succeed if tried again: a server error, a timeout, a connection cut short.

    Args:
        message: the reason.
        wait: seconds that the server asks to leave before the next try.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Refused(RemoteError):  # noqa: N818
    """The server answers, but not with this file."""


class NoAccess(UserError):  # noqa: N818 - it is what the user has
    """Nothing at all can be read until the user does something."""


def status_error(status: int, url: str, retry_after: str | None = None) -> Exception:
    """The error that an HTTP status other than success means.

    Args:
        status: of the answer.
        url: what was asked for.
        retry_after: what the server said of when to try again: seconds, or a date.
    """
    if status in (404, 410):
        return Missing(f"HTTP {status}: there is no such file")
    if status == 401:
        return NoAccess(
            f"{origin(url)} asks for a login (HTTP 401). Put it into the URL "
            "(https://user:password@host/...), or download the data first."
        )
    wait = _seconds(retry_after)
    if wait is not None and status in {403, *_PASSING_STATUS}:  # some are refused for their number
        return Passing(f"HTTP {status}: the server asks to wait {wait:.0f} s", wait)
    if status == 403:
        return Refused("HTTP 403: access refused; a signed URL may have expired")
    if status in _PASSING_STATUS:
        return Passing(f"HTTP {status}")
    return Refused(f"HTTP {status}")


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header says, in seconds from now; None if it says nothing."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def translate(error: Exception, url: str) -> Exception:
    """Sort an exception of the libraries in between into the classes above."""
    if isinstance(error, (RemoteError, UserError, ReadError)):
        return error
    code, status = _response(error)
    names = {type(link).__name__ for link in _chain(error)}
    what = origin(url)
    if code in _EXPIRED or names & _STALE_LOGIN:
        return NoAccess(
            f"The credentials for {what} have expired. Renew them (for AWS: 'aws sso login', or "
            "new AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN) and start again."
        )
    if code in _WRONG:
        return NoAccess(
            f"The credentials for {what} are wrong ({code}). Check AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or the profile named by AWS_PROFILE."
        )
    if names & _NO_CREDENTIALS:
        return NoAccess(
            f"There are no credentials for {what}. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for public data, FSSPEC_S3_ANON=true."
        )
    if code in ("NoSuchBucket",):
        return NoAccess(f"There is no bucket for {what}. Check the name and the endpoint.")
    if isinstance(error, FileNotFoundError) or code in ("NoSuchKey", "404"):
        return Missing("there is no such file")
    if isinstance(error, PermissionError) or status == 403:
        return Refused("access denied: these credentials may not read it")
    if status in _PASSING_STATUS or code in ("SlowDown", "InternalError", "ServiceUnavailable"):
        return Passing(f"HTTP {status}" if status else str(code))
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)) or names & {
        *("FSTimeoutError", "ReadTimeoutError", "ConnectTimeoutError", "ServerTimeoutError")
    }:
        return Passing("no answer in time")
    if names & _SPOILT:
        return Passing("what came is not what the server sent")
    if isinstance(error, (ConnectionError, EOFError)) or any(map(_is_of_the_network, names)):
        return Passing(f"connection failed ({_line(error)})")
    if isinstance(error, OSError):
        return Refused(_line(error))
    return error


def missing_package(url: str, error: ImportError) -> UserError:
    """What to install where fsspec knows the protocol but its package is absent."""
    detail = str(error).rstrip(".")
    if protocol(url) in ("http", "https", "s3", "s3a"):
        advice = "Install them: pip install 'thresher[remote]'."
    else:
        advice = "Install the fsspec package for it."
    return UserError(f"Reading {shown(url)} needs packages that are absent ({detail}). {advice}")


def _is_of_the_network(name: str) -> bool:
    return bool(
        re.fullmatch(
            r"Client\w*Error|ServerDisconnectedError|IncompleteRead\w*|EndpointConnectionError"
            r"|ConnectionClosedError|HTTPClientError|ResponseParserError|ResponseStreamingError",
            name,
        )
    ) and name not in ("ClientError", "ClientResponseError")


def _chain(error: BaseException | None) -> list[BaseException]:
    """The exception and its causes, a few at most."""
    links: list[BaseException] = []
    while error is not None and len(links) < 6:
        links.append(error)
        error = error.__cause__ or error.__context__
    return links


def _response(error: BaseException) -> tuple[str | None, int | None]:
    """Error code and HTTP status of an S3 answer, if there was one."""
    for link in _chain(error):
        response: Any = getattr(link, "response", None)
        if isinstance(response, dict) and "Error" in response:
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return str(response["Error"].get("Code")), status
    return None, None


def _line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return re.sub(r"\?\S+", "", text)[:160]  # no signatures in states and messages
