"""L14 of the hostile cases: a server that lies in every way. Nothing is kept of what is not the published file."""

from __future__ import annotations

import http.server
import json
import logging
import threading

import pooch
import pytest

from zoo.core.untrusted import ArtifactError
from zoo.hub.locating import local, read_files
from zoo.hub.manifest import digest

from . import lying_server as lies

WEIGHTS, MANIFEST = "/iris/weights.safetensors", "/iris/manifest.json"


def leftovers(cache):
    """What is in the cache but locks."""
    return [path.name for path in cache.glob("*") if not path.name.endswith(".lock")] if cache.exists() else []


def refused(server, says):
    with pytest.raises(ArtifactError, match=says) as error:
        local(f"{server.url}/iris")
    assert len(str(error.value)) < 2000
    assert str(error.value).isprintable()


def test_an_artifact_is_fetched_once(server, cache):
    address = f"{server.url}/iris"
    folder, _, files = read_files(address)
    assert folder.parent == cache
    assert files == {
        path.name: path.read_bytes() for path in (server.folder / "iris").iterdir() if path.name != "manifest.json"
    }
    assert local(address) == folder
    assert server.asked[WEIGHTS] == 1
    assert server.asked[MANIFEST] == 2
    assert leftovers(cache) == [folder.name]


def test_pooch_prints_nothing_of_our_files_and_goes_on_printing_of_others(server, cache):
    logger, records = pooch.get_logger(), []
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    try:
        local(f"{server.url}/iris")
        assert records == []
        logger.info("a file of others")
        assert len(records) == 1
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (lies.too_long, "weights.safetensors has more than the .* bytes that were expected"),
        (lies.endless, "weights.safetensors has more than the .* bytes that were expected"),
        (lies.slow, "weights.safetensors sent .* bytes in 1 seconds, which is too slow"),
        pytest.param(
            *(lies.slow_headers, "weights.safetensors has not answered in 1.5 seconds, which is too slow"),
            marks=pytest.mark.slow,
        ),
        (lies.html, r"weights.safetensors \(it is an HTML page\) has 70 bytes; .* were expected"),
        (lies.answers(404), "weights.safetensors answers with 404 'Not Found'; check the address"),
        (lies.answers(403), "weights.safetensors answers with 403 'Forbidden'"),
        (lies.answers(204), "weights.safetensors answers with 204"),
        (lies.redirected("http://127.0.0.1:9/x"), "leads to an address without https, which is not followed"),
        (lies.redirected("ftp://127.0.0.1/x"), "leads to an address without https, which is not followed"),
        (lies.redirected("file:///etc/passwd"), "leads to an address without https, which is not followed"),
        (lies.redirected(WEIGHTS), "is redirected more than 5 times"),
    ],
)
def test_what_another_attempt_would_not_change_is_refused_at_once(server, cache, waits, lie, says):
    server.lies[WEIGHTS] = lie
    refused(server, says)
    assert waits == []
    assert leftovers(cache) == []


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (lies.cut, "weights.safetensors broke off after"),
        (lies.cut_without_a_length, "weights.safetensors has .* bytes; .* were expected"),
        (lies.too_short, "weights.safetensors has .* bytes; .* were expected"),
        (lies.silent, "Read timed out"),
        (lies.changed, "weights.safetensors is not the file that was published: SHA256 hash .* expected"),
        (lies.answers(500), "500 Server Error"),
        (lies.answers(429), "429 Client Error"),
    ],
)
def test_what_may_be_an_accident_is_tried_three_times(server, cache, waits, lie, says):
    server.lies[WEIGHTS] = lie
    refused(server, says)
    assert server.asked[WEIGHTS] == 3
    assert waits == [1, 2]
    assert leftovers(cache) == []


@pytest.mark.parametrize(
    "lie",
    [
        lies.cut,
        # Its seconds are waited for.
        pytest.param(lies.silent, marks=pytest.mark.slow),
        lies.changed,
        lies.answers(500),
        lies.answers(503),
        lies.answers(429),
    ],
)
@pytest.mark.parametrize("path", [WEIGHTS, MANIFEST])
def test_an_accident_that_passes_is_survived(server, cache, lie, path):
    # A manifest that no hash vouches for is taken as it comes.
    if (lie, path) == (lies.changed, MANIFEST):
        return
    server.lies[path] = lies.at_first(lie, times=2)
    read_files(f"{server.url}/iris")
    assert server.asked[path] == 3


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (lies.html, r"is not a manifest \(it is an HTML page\)"),
        (lies.endless, "has more than the at most 1048576 bytes that were expected"),
        (lies.changed, "is not the JSON that was expected"),
        (lies.answers(404), "check the address"),
        (lambda handler, data: lies.send(handler, b""), r"is not a manifest \(it is empty\)"),
        (lambda handler, data: lies.send(handler, b"[" * 100_000), "is nested too deeply"),
        (lambda handler, data: lies.send(handler, b"[]"), "holds list; a mapping was expected"),
        (lambda handler, data: lies.send(handler, b'{"schema": 2, "files": {}}'), "Update tfp_bnn"),
        (lambda handler, data: lies.send(handler, b'{"schema": 1}'), "'files' is missing"),
    ],
)
def test_a_manifest_that_is_none_is_refused_before_any_file_is_asked_for(server, cache, lie, says):
    server.lies[MANIFEST] = lie
    refused(server, says)
    assert set(server.asked) == {MANIFEST}
    assert leftovers(cache) == []


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"weights.safetensors": 2**30}, "has 1073741824 bytes; 0 to 100663296 were expected"),
        ({f"file_{k}": 64 * 2**20 for k in range(3)}, "lists 201326592 bytes in all; at most 134217728"),
        ({f"file_{k}": 1 for k in range(1000)}, "at most 32 items"),
        ({"../../etc/passwd": 1}, "should match pattern"),
        ({"a/b": 1}, "should match pattern"),
        ({"manifest.json\n": 1}, "should match pattern"),
    ],
)
def test_a_manifest_that_lists_too_much_is_refused_before_any_file_is_asked_for(server, cache, files, says):
    entries = {name: {"bytes": size, "sha256": "0" * 64} for name, size in files.items()}
    (server.folder / "iris" / "manifest.json").write_text(json.dumps({"schema": 1, "files": entries}))
    refused(server, says)
    assert set(server.asked) == {MANIFEST}
    assert leftovers(cache) == []


def test_http_is_not_spoken_after_a_chain_of_redirects_either(server, cache):
    asked = []

    class Plain(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

    with http.server.HTTPServer(("127.0.0.1", 0), Plain) as plain:
        threading.Thread(target=plain.serve_forever, args=(0.01,), daemon=True).start()
        server.lies[WEIGHTS] = lies.redirected(f"{server.url}/second")
        server.lies["/second"] = lies.redirected(f"http://127.0.0.1:{plain.server_port}/third")
        refused(server, "without https")
        plain.shutdown()
    assert server.asked["/second"] == 1
    assert asked == []


def test_https_redirects_are_followed_and_keep_no_secret_for_other_hosts(server, cache, tmp_path):
    from zoo.hub.remote.downloading import download, https_session

    elsewhere = server.url.replace("127.0.0.1", "localhost")
    server.lies["/here"] = lies.redirected(f"{server.url}{WEIGHTS}")
    server.lies["/there"] = lies.redirected(f"{elsewhere}{WEIGHTS}")
    true = (server.folder / WEIGHTS.lstrip("/")).read_bytes()
    kept = {}
    for path in ("/here", "/there"):
        with https_session({"Authorization": "Bearer secret"}) as session:
            download(session, server.url + path, tmp_path / path[1:], len(true), digest(true))
        kept[path] = server.headers[WEIGHTS].get("Authorization")
        assert server.headers[path]["Authorization"] == "Bearer secret"
    assert (tmp_path / "there").read_bytes() == true
    assert kept == {"/here": "Bearer secret", "/there": None}


def test_a_server_without_a_certificate_that_is_believed_is_refused(server, cache, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    refused(server, "the certificate of .* is not accepted")
    assert server.asked == {}


def test_the_hash_of_an_address_is_that_of_the_manifest(server, cache):
    published = digest((server.folder / "iris" / "manifest.json").read_bytes())
    with pytest.raises(ArtifactError, match=f"has the SHA-256 {published}; {'0' * 64} was expected"):
        local(f"{server.url}/iris#sha256={'0' * 64}")
    assert set(server.asked) == {MANIFEST}
    assert leftovers(cache) == []
    folder = local(f"{server.url}/iris#sha256={published}")
    # Nobody is asked again for what cannot change.
    server.asked.clear()
    assert local(f"{server.url}/iris#sha256={published.upper()}") == folder
    assert server.asked == {}
