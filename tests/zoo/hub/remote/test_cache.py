"""L15 of the hostile cases: offline, read-only or full cache, several processes at once, a process that is killed."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from zoo.core.untrusted import ArtifactError
from zoo.hub.locating import local, read_files
from zoo.hub.manifest import describe_files
from zoo.hub.remote.cache import alone, cache_folder

from . import lying_server as lies

WEIGHTS, MANIFEST = "/iris/weights.safetensors", "/iris/manifest.json"
FETCH = "import sys; from zoo.hub.locating import local; print(local(sys.argv[1]))"


def is_whole(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    return manifest["files"] == describe_files(folder)


def fetch_in_a_process(address):
    return subprocess.Popen([sys.executable, "-c", FETCH, address], stdout=subprocess.PIPE, text=True)


def change_on_the_server(server):
    """Publishes another version, in which the card is longer."""
    folder = server.folder / "iris"
    with (folder / "README.md").open("a") as card:
        card.write("\nAnother version.\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": describe_files(folder)}))


def test_a_new_version_takes_the_place_of_the_old_one(server, cache):
    folder = local(f"{server.url}/iris")
    change_on_the_server(server)
    assert local(f"{server.url}/iris") == folder
    assert (folder / "README.md").read_text().endswith("Another version.\n")
    assert is_whole(folder)


@pytest.mark.parametrize("path", [WEIGHTS, MANIFEST])
def test_the_old_version_stays_when_the_new_one_does_not_come(server, cache, path):
    folder = local(f"{server.url}/iris")
    change_on_the_server(server)
    server.lies[path] = lies.cut
    with pytest.warns(UserWarning, match=r"cannot be reached \(.* broke off after .*\). The copy in the cache is used"):
        assert local(f"{server.url}/iris") == folder
    assert is_whole(folder)


def test_without_a_network_the_copy_is_used_with_a_warning(server, cache):
    folder = local(f"{server.url}/iris")
    server.shutdown()
    server.server_close()
    with pytest.warns(UserWarning, match="cannot be reached .* The copy in the cache is used"):
        assert local(f"{server.url}/iris") == folder


def test_without_a_network_and_a_copy_the_message_names_the_variable(server, cache):
    server.shutdown()
    server.server_close()
    with pytest.raises(ArtifactError, match=r"cannot be reached, and it is not in the cache .* set TFP_BNN_CACHE to"):
        local(f"{server.url}/iris")
    assert not cache.exists()


def test_bundled_models_need_no_network_and_no_cache(monkeypatch):
    monkeypatch.setenv("TFP_BNN_CACHE", "/dev/null/cache")
    monkeypatch.setattr("zoo.hub.locating.fetched", lambda address: pytest.fail("the network was asked"))
    assert "weights.safetensors" in read_files("mlp_flipout.iris")[2]


def test_a_copy_that_was_damaged_is_fetched_again(server, cache):
    folder = local(f"{server.url}/iris")
    (folder / "weights.safetensors").write_bytes(b"")
    assert local(f"{server.url}/iris") == folder
    assert is_whole(folder)
    assert server.asked[WEIGHTS] == 2


def test_a_cache_that_cannot_be_written_is_named_with_the_variable(server, monkeypatch):
    monkeypatch.setenv("TFP_BNN_CACHE", "/dev/null/cache")
    with pytest.raises(ArtifactError, match=r"The cache '/dev/null/cache' cannot be written: .* set TFP_BNN_CACHE to"):
        local(f"{server.url}/iris")
    assert set(server.asked) == {MANIFEST}


def test_a_copy_in_a_cache_that_is_read_only_is_used(server, cache, monkeypatch):
    folder = local(f"{server.url}/iris")

    def read_only(target):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(target))

    monkeypatch.setattr("zoo.hub.remote.fetching.alone", read_only)
    assert local(f"{server.url}/iris") == folder


def test_a_full_cache_is_named_with_the_variable_and_nothing_stays(server, cache):
    """A limit on the size of files stands for the full disk: the third file does not fit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        with pytest.raises(ArtifactError, match=r"The cache .* cannot be written: File too large. Make room"):
            local(f"{server.url}/iris")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] == []
    assert is_whole(local(f"{server.url}/iris"))


def test_of_eight_threads_one_downloads(server, cache):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(local, [f"{server.url}/iris"] * 8))
    assert len(set(folders)) == 1
    assert is_whole(folders[0])
    assert server.asked[WEIGHTS] == 1


@pytest.mark.slow
def test_of_two_processes_one_downloads(server, cache):
    both_asked = threading.Barrier(2, timeout=60)

    def together(handler, data):
        both_asked.wait()
        lies.send(handler, data)

    server.lies[MANIFEST] = together
    processes = [fetch_in_a_process(f"{server.url}/iris") for _ in range(2)]
    folders = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (folder,) = folders
    assert is_whole(cache / folder)
    assert server.asked[WEIGHTS] == 1


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_no_part_and_holds_nobody_up(server, cache):
    reached = threading.Event()

    def hang(handler, data):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:10])
        reached.set()
        time.sleep(5)

    server.lies[WEIGHTS] = hang
    process = fetch_in_a_process(f"{server.url}/iris")
    try:
        assert reached.wait(60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert [path for path in cache.iterdir() if not path.name.startswith(".")] == []
    assert len(list(cache.glob("*.unfinished"))) == 1
    del server.lies[WEIGHTS]
    folder = local(f"{server.url}/iris")
    assert is_whole(folder)
    assert list(cache.glob("*.unfinished")) == []


def test_who_waits_too_long_for_another_process_is_told(tmp_path):
    with alone(tmp_path / "artifact"), pytest.raises(ValueError, match=r"Another process has been writing .* TFP_BNN"):
        with alone(tmp_path / "artifact", most_seconds=0.05):
            pass


def test_the_folder_is_that_of_the_platform_unless_one_is_set(monkeypatch, tmp_path):
    monkeypatch.setenv("TFP_BNN_CACHE", "~/cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("TFP_BNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tfp_bnn"
