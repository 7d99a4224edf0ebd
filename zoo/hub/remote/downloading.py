"""Downloads of which everything is bounded: by `pooch`, with limits that it does not have.

Only https is spoken, also after redirects. A file has the size that is expected, comes within a time, and is there
whole or not at all.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

import pooch
import requests
import urllib3

from zoo.core.shown import shown
from zoo.hub.manifest import diagnosis

ATTEMPTS = 3
"""Of a download that fails on the way. `pooch` waits one second before the second and two before the third."""
SECONDS_OF_SILENCE = 20.0
"""Until a server that sends nothing is given up."""
MOST_SECONDS = 300.0
"""For one file, however steadily a server sends."""

_MOST_REDIRECTS = 5
_CHUNK = 2**16
# Answers that may be others in a second: too slow, too early, too many requests.
_TEMPORARY = (408, 425, 429)
_HINTS = {
    401: "; the server asks for a login",
    403: "; the server does not allow it, or asks for a login",
    404: "; check the address",
}

# `pooch` prints a line for every file, but not for ours, in whatever thread.
_OURS = ContextVar("_OURS", default=False)
pooch.get_logger().addFilter(lambda _: not _OURS.get())


class UnreachableError(Exception):
    """Raised if a server cannot be reached, or fails, at every attempt."""


class RefusedError(Exception):
    """Raised for an answer that another attempt would not change."""


@contextlib.contextmanager
def https_session(headers: Mapping[str, str] | None = None) -> Iterator[requests.Session]:
    """Yields a session that cannot speak http, not even after a redirect.

    Args:
        headers: Headers of every request. `Authorization` does not go along to other hosts.
    """
    with requests.Session() as session:
        del session.adapters["http://"]
        session.max_redirects = _MOST_REDIRECTS
        session.headers.update({**(headers or {}), "Accept-Encoding": "identity"})
        yield session


def download(session: requests.Session, url: str, path: Path, num_bytes: int, sha256: str | None = None) -> None:
    """Downloads a file, whole or not at all.

    Args:
        session: Session from `https_session`.
        url: Address of the file, which ends in its name.
        path: File to write, in a folder that exists.
        num_bytes: Its size; without a hash, its largest size.
        sha256: Its SHA-256, or None if it is not known.

    Raises:
        UnreachableError: If the server cannot be reached, fails, or breaks off, at each of the attempts.
        RefusedError: If the answer is not the file that was expected, is too large or too slow, or leads to http.
        OSError: If the file cannot be written.
    """

    def stream(url: str, name: str, _: object) -> None:
        with open(name, "wb") as file:
            _in_time(url, lambda: _stream(session, url, file, num_bytes, sha256 is not None))

    keeper = pooch.Pooch(
        path=path.parent,
        base_url=url.removesuffix(path.name),
        registry={path.name: None if sha256 is None else f"sha256:{sha256.lower()}"},
        retry_if_failed=ATTEMPTS - 1,
    )
    quiet = _OURS.set(True)
    try:
        keeper.fetch(path.name, downloader=stream)
    except requests.RequestException as error:
        raise UnreachableError(shown(str(error), 400)) from error
    except ValueError as error:
        # Of pooch: the size is right, the hash is not.
        raise RefusedError(f"{url} is not the file that was published: {error}") from error
    finally:
        _OURS.reset(quiet)


def _stream(session: requests.Session, url: str, file: BinaryIO, num_bytes: int, is_exact: bool) -> None:
    """Writes the answer of a server to a file. Errors of `requests` are worth another attempt."""
    end, first, total = time.monotonic() + MOST_SECONDS, b"", 0
    try:
        with session.get(url, stream=True, timeout=SECONDS_OF_SILENCE) as answer:
            _check_status(url, answer)
            # Whatever has come, at once: to wait for a whole chunk could take any time.
            while chunk := answer.raw.read1(_CHUNK):
                first, total = first or chunk, total + len(chunk)
                if total > num_bytes:
                    expected = f"{num_bytes} bytes" if is_exact else f"at most {num_bytes} bytes"
                    raise RefusedError(f"{url}{diagnosis(first)} has more than the {expected} that were expected")
                if time.monotonic() > end:
                    raise RefusedError(f"{url} sent {total} bytes in {MOST_SECONDS:g} seconds, which is too slow")
                file.write(chunk)
    except requests.exceptions.InvalidSchema as error:
        raise RefusedError(f"{url} leads to an address without https, which is not followed: {error}") from error
    except requests.TooManyRedirects as error:
        raise RefusedError(f"{url} is redirected more than {_MOST_REDIRECTS} times") from error
    except requests.exceptions.SSLError as error:
        raise RefusedError(f"the certificate of {url} is not accepted: {shown(str(error), 400)}") from error
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(f"{url} broke off after {total} bytes: {error}") from error
    if is_exact and total < num_bytes:
        found = diagnosis(first) if first else ""
        what = f"{url}{found} has {total} bytes; {num_bytes} were expected"
        raise RefusedError(what) if found else requests.ConnectionError(what)


def _in_time(url: str, work: Callable[[], None]) -> None:
    """Runs a function in a thread that is left alone when its time is over.

    The time between two bytes is all that a socket limits, and the headers of an answer can be slow too.
    """
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            work()
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    seconds = MOST_SECONDS + SECONDS_OF_SILENCE
    if not wait([outcome], seconds).done:
        raise RefusedError(f"{url} has not answered in {seconds:g} seconds, which is too slow")
    outcome.result()


def _check_status(url: str, answer: requests.Response) -> None:
    status = answer.status_code
    if 500 <= status < 600 or status in _TEMPORARY:
        answer.raise_for_status()
    if status != requests.codes.ok:
        raise RefusedError(f"{url} answers with {status} {shown(answer.reason, 80)}{_HINTS.get(status, '')}")
