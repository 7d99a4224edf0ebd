"""Addresses of artifacts: what is one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.hub.remote.addresses import Address, is_address, parse_address

SHA256 = "ab" * 32


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://example.org/zoo/iris", Address(url="https://example.org/zoo/iris")),
        ("https://example.org:8443/iris/", Address(url="https://example.org:8443/iris")),
        ("https://[::1]:8443/iris", Address(url="https://[::1]:8443/iris")),
        ("https://example.org", Address(url="https://example.org")),
        (f"https://a.b/c#sha256={SHA256.upper()}", Address(url="https://a.b/c", sha256=SHA256)),
        ("hf://user/name", Address(repository="user/name")),
        ("hf://user/name@refs/pr/1", Address(repository="user/name", revision="refs/pr/1")),
        (f"hf://user/name@v1#sha256={SHA256}", Address(repository="user/name", revision="v1", sha256=SHA256)),
    ],
)
def test_an_address_is_a_folder_or_a_repository_perhaps_with_a_hash(text, address):
    assert is_address(text)
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "http://example.org/iris",
        "ftp://example.org/iris",
        "file:///etc",
        "HTTPS://example.org/iris",
        "https://user:password@example.org/iris",
        "https://example.org/iris?token=1",
        "https://example.org/a b",
        "https://example.org/a\n",
        "https://example.org/\x1b[31m",
        "https://ex\u0430mple.org/iris",
        "https:///iris",
        "https://example.org/iris#sha256=ab",
        "https://example.org/iris#md5=" + "ab" * 16,
        "https://example.org/" + "a" * 10_000,
        "hf://name",
        "hf://datasets/user/name",
        "hf://../name",
        "hf://user/name@",
        "hf://user/name@-x",
        "://",
    ],
)
def test_anything_else_with_a_protocol_is_refused_in_few_words(text):
    assert is_address(text)
    with pytest.raises(ValueError, match=r"is not an address of an artifact\. Expected https://host/folder") as error:
        parse_address(text)
    assert len(str(error.value)) < 700
    assert str(error.value).isprintable()


@pytest.mark.parametrize("value", ["lenet5_flipout.digits", "a/folder", "C:\\folder", Path("a/b"), None, 3])
def test_names_and_folders_are_no_addresses(value):
    assert not is_address(value)


def test_each_address_has_a_folder_of_its_own_in_the_cache_whatever_its_hash():
    addresses = [
        *("https://a.org/iris", "https://b.org/iris", "https://a.org/IRIS", "https://a.org/..", "https://a.org"),
        *("hf://user/iris", "hf://user/iris@v1", "hf://user/iris@v2"),
    ]
    keys = [parse_address(address).key for address in addresses]
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert Path(key).name == key
        assert not key.startswith(".")
    assert parse_address(f"https://a.org/iris#sha256={SHA256}").key == keys[0]


def test_a_hash_or_a_commit_pins_an_address():
    assert not parse_address("hf://user/name@main").is_pinned
    assert parse_address(f"hf://user/name@{'0a' * 20}").is_pinned
    assert parse_address("hf://user/name").pinned(sha256=SHA256.upper()).sha256 == SHA256
    assert parse_address("hf://user/name").pinned("v1") == parse_address("hf://user/name@v1").pinned("v1")


@pytest.mark.parametrize(
    ("text", "changes", "says"),
    [
        ("https://a.org/iris", {"revision": "main"}, "only hf:// addresses have one"),
        ("hf://user/name@v1", {"revision": "v2"}, "has revision v1, but revision='v2' was passed"),
        ("hf://user/name", {"revision": "../x"}, "expected a branch, tag or commit"),
        ("hf://user/name", {"revision": 1}, "expected a branch, tag or commit"),
        ("hf://user/name", {"sha256": "ab"}, "64 hexadecimal digits"),
        (f"hf://user/name#sha256={SHA256}", {"sha256": "cd" * 32}, "Give one of them"),
    ],
)
def test_contradictions_are_refused(text, changes, says):
    with pytest.raises(ValueError, match=says):
        parse_address(text).pinned(**changes)
