"""Addresses of artifacts on the network: `https://host/folder` and `hf://user/name`. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from zoo.core.shown import shown

_MOST_CHARACTERS = 1000
# No user or password, which would end up in messages, and no query, to which no file name can be appended.
_HTTPS = r"https://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%!$&'()*+,;=:@-]+)*"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REVISION = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}"
_SHA256 = r"[0-9a-fA-F]{64}"
_GRAMMAR = re.compile(
    rf"(?:(?P<https>{_HTTPS})|hf://(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>{_REVISION}))?)"
    rf"/?(?:#sha256=(?P<sha256>{_SHA256}))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Address:
    """Where an artifact is on the network.

    Attributes:
        url: Address of its folder without a slash at the end, or None if it is in a repository.
        repository: Repository of the Hugging Face Hub, `user/name`, or None.
        revision: Branch, tag or commit of the repository. None for its main branch.
        sha256: SHA-256 that its `manifest.json` must have, in lower case, or None for any.
    """

    url: str | None = None
    repository: str | None = None
    revision: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        """The address without the hash."""
        at = f"@{self.revision}" if self.revision else ""
        return self.url or f"hf://{self.repository}{at}"

    @property
    def is_pinned(self) -> bool:
        """Whether it can only ever lead to the same files."""
        return self.sha256 is not None or _COMMIT.fullmatch(self.revision or "") is not None

    @property
    def key(self) -> str:
        """Name of its folder in the cache: readable, and one for each address."""
        last = re.sub(r"[^A-Za-z0-9_-]", "_", str(self).partition("@")[0].rpartition("/")[2])
        return f"{last[:40]}-{hashlib.sha256(str(self).encode()).hexdigest()[:16]}"

    def pinned(self, revision: str | None = None, sha256: str | None = None) -> Address:
        """Returns the address of one revision, and of one manifest.

        Raises:
            ValueError: If one is malformed, another one is in the address already, or there are no revisions.
        """
        if revision is not None and self.repository is None:
            raise ValueError(f"Got revision={shown(revision)} for {self}; only hf:// addresses have one. Drop it.")
        for name, old, new, grammar in (
            ("revision", self.revision, revision, _REVISION),
            ("sha256", self.sha256, sha256, _SHA256),
        ):
            if new is None:
                continue
            if not isinstance(new, str) or not re.fullmatch(grammar, new):
                raise ValueError(f"`{name}` is {shown(new)}; expected {_EXPECTED[name]}.")
            if old is not None and old != (new.lower() if name == "sha256" else new):
                raise ValueError(f"The address has {name} {old}, but {name}={new!r} was passed. Give one of them.")
        sha256 = self.sha256 if sha256 is None else sha256.lower()
        return replace(self, revision=revision or self.revision, sha256=sha256)


_EXPECTED = {
    "revision": "a branch, tag or commit, such as 'main'",
    "sha256": "the SHA-256 of a manifest.json, 64 hexadecimal digits",
}


def is_address(value: Any) -> TypeGuard[str]:
    """Whether a value is meant as an address, well-formed or not: text with `://`."""
    return isinstance(value, str) and "://" in value


def parse_address(text: str) -> Address:
    """Parses an address.

    Args:
        text: `https://host/folder`, or `hf://user/name` with `@revision` if wanted. `#sha256=` and the SHA-256 of
            `manifest.json` can follow.

    Raises:
        ValueError: For anything else. The message describes valid addresses.

    Example:
        >>> from zoo.hub.remote.addresses import parse_address
        >>> parse_address("hf://user/name@v1")
        Address(url=None, repository='user/name', revision='v1', sha256=None)
    """
    found = _GRAMMAR.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if found is None:
        raise ValueError(
            f"{shown(text)} is not an address of an artifact. Expected https://host/folder, the folder that has "
            "manifest.json, or hf://user/name or hf://user/name@revision; #sha256= and the SHA-256 of manifest.json "
            "can follow. Other protocols are not used, because anyone on the way can change what they bring."
        )
    sha256 = found["sha256"]
    return Address(found["https"], found["repository"], found["revision"], sha256.lower() if sha256 else None)
