"""Downloads from a server on this machine: whole, cut, wrong, refused, by several at once."""

import hashlib
import http.server
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from globopt_jax import datasets
from globopt_jax.datasets import cifar, idx, svhn
from globopt_jax.datasets.download import Remote
from tests.datasets import packages


class Server(http.server.ThreadingHTTPServer):
    """A server of files whose connections can be cut."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []  # for each of the next answers the number of bytes after which it ends
        self.ranges = True  # whether the server honours Range
        self.shifted = 0  # by how many bytes it misunderstands Range
        self.length = True  # whether it says how long an answer is
        self.asked: list[tuple[str, int]] = []  # path, and the first byte that was asked for
        self.pause = 0.0  # seconds between two halves of an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/sets"

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the bytes of a file."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):
        name, server = self.path.rpartition("/")[2], self.server
        begin = int(re.findall(r"\d+", self.headers["Range"])[0]) if "Range" in self.headers else 0
        server.asked.append((self.path, begin))
        if name not in server.files:
            self.send_error(404)
            return
        body = server.files[name]
        if begin and server.ranges and begin >= len(body):
            self.send_error(416)
            return
        if begin and server.ranges:
            self.send_response(206)
            first = begin + server.shifted
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            body = body[first:]
        else:
            self.send_response(200)
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: server.cuts.pop(0)] if server.cuts else body
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        time.sleep(server.pause)
        self.wfile.write(body[len(body) // 2 :])

    def log_message(self, format, *args):
        """Say nothing."""


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache folder, moved."""
    monkeypatch.setenv("GLOBOPT_JAX_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def remote(name: str, content: bytes) -> Remote:
    return Remote(name, hashlib.md5(content).hexdigest(), len(content))


@pytest.fixture
def official(server, monkeypatch):
    """Small official files, by their names; the server has them."""
    files = {f"{name}.gz": packages.packed(raw) for name, raw in packages.MNIST.items()}
    files["cifar-10-binary.tar.gz"] = packages.packed(packages.ARCHIVE)
    files["train_32x32.mat"] = packages.SVHN
    for split, start in (("train", "train"), ("test", "t10k")):
        names = (f"{start}-images-idx3-ubyte.gz", f"{start}-labels-idx1-ubyte.gz")
        monkeypatch.setitem(idx.MNIST_FILES, split, tuple(remote(name, files[name]) for name in names))
    monkeypatch.setattr(cifar, "ARCHIVE", remote("cifar-10-binary.tar.gz", files["cifar-10-binary.tar.gz"]))
    monkeypatch.setitem(svhn.FILES, "train", remote("train_32x32.mat", packages.SVHN))
    server.files |= files
    return files


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def visible(folder):
    """The files that a reader would take."""
    return sorted(path.name for path in folder.glob("[!.]*"))


@pytest.mark.usefixtures("official")
def test_files_are_downloaded_once(server, cache, capfd):
    for _ in range(2):
        data = datasets.load("mnist", mirror=server.url)
        np.testing.assert_array_equal(data.X, packages.IMAGES.reshape(6, 784) / 255)
    assert server.asked == [(f"/sets/{IMAGES}", 0), (f"/sets/{LABELS}", 0)]
    assert visible(cache / "mnist") == [IMAGES, LABELS]
    assert datasets.load("mnist", mirror=f"{server.url}/", split="test").X.shape == (2, 784)
    assert datasets.load("cifar-10", mirror=server.url).X.shape == (15, 3072)
    assert datasets.load("svhn", mirror=server.url).X.shape == (6, 3072)
    assert datasets.khk19("svhn").X.shape == (6, 144)
    assert capfd.readouterr() == ("", "")  # no terminal, no progress


def test_files_that_the_user_put_there_are_taken(cache, server):
    (cache / "cifar-10-batches-bin").mkdir(parents=True)
    (cache / "cifar-10-batches-bin" / "data_batch_3.bin").write_bytes(packages.CIFAR["data_batch_3.bin"])
    assert datasets.load("cifar-10", mirror=server.url).X.shape == (3, 3072)
    assert server.asked == []


@pytest.mark.parametrize("length", [True, False], ids=["length", "no length"])
def test_a_cut_connection_continues(server, cache, official, length):
    server.cuts, server.length = [1000, 700, 1], length
    data = datasets.load("mnist", mirror=server.url)
    np.testing.assert_array_equal(data.X, packages.IMAGES.reshape(6, 784) / 255)
    assert [begin for _, begin in server.asked] == [0, 1000, 1700, 1701, 0]
    assert (cache / "mnist" / IMAGES).read_bytes() == official[IMAGES]


@pytest.mark.usefixtures("official")
def test_a_server_without_ranges_starts_again(server, cache):
    server.cuts, server.ranges = [1000], False
    assert datasets.load("mnist", mirror=server.url).X.shape == (6, 784)
    assert [begin for _, begin in server.asked] == [0, 1000, 0]
    assert visible(cache / "mnist") == [IMAGES, LABELS]


@pytest.mark.usefixtures("official")
def test_a_connection_that_brings_nothing_new_ends_the_download(server, cache):
    server.cuts = [1000, 500, 0]
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("mnist", mirror=server.url)
    addresses = f"mirror names another server. The addresses: {server.url}/{IMAGES} and {server.url}/{LABELS}"
    for part in ("after 1,500 of", str(cache / "mnist"), addresses):
        assert part in str(error.value)
    assert visible(cache / "mnist") == []
    server.asked.clear()
    assert datasets.load("mnist", mirror=server.url).X.shape == (6, 784)  # the next call continues
    assert [begin for _, begin in server.asked] == [1500, 0]


@pytest.mark.usefixtures("official")
def test_a_server_that_always_cuts_and_has_no_ranges_is_given_up(server, cache):
    server.cuts, server.ranges = [1000] * 9, False
    with pytest.raises(FileNotFoundError, match="after 1,000 of"):
        datasets.load("mnist", mirror=server.url)
    assert len(server.asked) == 2
    assert visible(cache / "mnist") == []


def test_other_bytes_are_refused(server, cache, official):
    """Of the same size, longer, shorter, and a page of the network's login."""
    right = official[IMAGES]
    for length in (True, False):
        server.length = length
        for wrong in (bytes(len(right)), right + b"\0", right[:-1] + b"\1", b"<!DOCTYPE html>"):
            server.files[IMAGES] = wrong
            with pytest.raises((ValueError, FileNotFoundError)) as error:
                datasets.load("mnist", mirror=server.url)
            assert f"{server.url}/{IMAGES}" in str(error.value)
            if length:
                assert re.search("Expected: the official .* MD5 sum .* Nothing was kept", str(error.value))
            if wrong == right + b"\0":
                assert f"a file of {'' if length else 'more than '}" in str(error.value)
            assert visible(cache / "mnist") == []
            for path in (cache / "mnist").glob(".*.part"):  # a file that ended early might have gone on
                assert not length
                path.unlink()
    server.files[IMAGES] = right
    assert datasets.load("mnist", mirror=server.url).X.shape == (6, 784)


@pytest.mark.usefixtures("official")
def test_a_server_that_answers_another_range(server, cache):
    server.cuts, server.shifted = [1000], 5
    with pytest.raises(FileNotFoundError, match="other bytes than those asked for"):
        datasets.load("mnist", mirror=server.url)
    assert visible(cache / "mnist") == []
    assert datasets.load("mnist", mirror=server.url).X.shape == (6, 784)


def test_a_partial_file_of_another_file(server, cache, official):
    """Longer than the file, or as long with other bytes: refused once, and then forgotten."""
    (cache / "mnist").mkdir(parents=True)
    partial = cache / "mnist" / f".{IMAGES}.part"
    partial.write_bytes(bytes(len(official[IMAGES]) + 1))
    assert datasets.load("mnist", mirror=server.url).X.shape == (6, 784)
    (cache / "mnist" / IMAGES).unlink()
    partial.write_bytes(bytes(len(official[IMAGES]) - 10))
    with pytest.raises(ValueError, match="a file of that size with another sum. Nothing was kept"):
        datasets.load("mnist", mirror=server.url)
    assert datasets.load("mnist", mirror=server.url).X.shape == (6, 784)


def test_what_a_server_does_not_have(server, cache, official):
    del official[LABELS], server.files[LABELS]
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("mnist", mirror=server.url)
    assert "HTTP status 404" in str(error.value)
    assert f"Expected: {LABELS} in the folder {cache / 'mnist'}" in str(error.value)  # the images are there by now
    assert visible(cache / "mnist") == [IMAGES]


@pytest.mark.usefixtures("official")
def test_offline(cache, monkeypatch):
    """Nobody answers: names, addresses, and the folder to put the files into."""
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_address[1]}"
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("mnist", mirror=url)
    for part in (IMAGES, LABELS, str(cache / "mnist"), f"{url}/{IMAGES}", f"{url}/{LABELS}", "Connection refused"):
        assert part in str(error.value)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"needs pooch.*globopt_jax\[app\]"):
        datasets.load("mnist", mirror=url)


@pytest.mark.usefixtures("official")
def test_several_at_once_download_once(server, cache):
    server.pause = 0.1
    found: list[datasets.Dataset] = []
    threads = [
        threading.Thread(target=lambda: found.append(datasets.load("mnist", mirror=server.url))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [data.X.shape for data in found] == [(6, 784)] * 4
    assert sorted(server.asked) == [(f"/sets/{IMAGES}", 0), (f"/sets/{LABELS}", 0)]
    assert visible(cache / "mnist") == [IMAGES, LABELS]


def test_a_killed_download_leaves_nothing_that_looks_whole(server, cache, official):
    """Another process is killed in the middle; this one continues its file."""
    content = np.random.default_rng(0).bytes(1 << 20)
    server.files["big"], server.pause = content, 60.0
    code = (
        "import hashlib, pathlib, sys\n"
        "from globopt_jax.datasets.download import Remote, download\n"
        "url, md5, size, folder = sys.argv[1:]\n"
        "download(url, Remote('big', md5, int(size)), pathlib.Path(folder))\n"
    )
    from globopt_jax.datasets.download import download

    big = remote("big", content)
    command = [sys.executable, "-c", code, f"{server.url}/big", big.md5, str(big.size), str(cache)]
    child = subprocess.Popen(command, env=os.environ)
    partial, deadline = cache / ".big.part", time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 1 << 18) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert visible(cache) in ([], [name for name in visible(cache) if name.startswith("tmp")])
    assert not (cache / "big").exists()
    server.pause = 0.0
    assert download(f"{server.url}/big", big, cache).read_bytes() == content
    assert server.asked[-1][1] > 1 << 18


@pytest.mark.usefixtures("official")
def test_a_terminal_shows_progress(server, cache, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    assert datasets.load("mnist", mirror=server.url).X.shape == (6, 784)
    assert IMAGES in shown.getvalue()
    assert capsys.readouterr().out == ""
