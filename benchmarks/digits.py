"""Times a set of MNIST's size through fetch and preprocess, beside torchvision: python benchmarks/digits.py.

A local server sends IDX files of 60,000 and 10,000 generated digits. The two stages run as DVC runs them, each in a
process of its own; the peer is a process in which torchvision's class downloads, checks and loads the same files, and
its tensors are written to a file. Times and the peak of the resident memory include Python's start and all imports.
Results go to benchmarks/results/digits.json.
"""

import functools
import gzip
import hashlib
import http.server
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from diffusion_ladder.data.digits.dataset import fetch_embedded, parse_embedded
from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.foundation.runtime import processor_name
from diffusion_ladder.foundation.section import dump_yaml, load_yaml

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "benchmarks/results/digits.json"
COUNTS = {"train": 60_000, "t10k": 10_000}
LARGEST_SHIFT = 4  # of the embedded digits, in pixels
# Before a stage or the peer runs: torchvision's class publishes the local files.
PUBLISH = """
import json, sys
from diffusion_ladder.torchvision_import import repair_torchvision
repair_torchvision()
from torchvision.datasets import MNIST
from diffusion_ladder.data.digits import mnist_family
published = json.load(open("published.json"))
MNIST.mirrors = [published["mirror"]]
MNIST.resources = [(name, md5) for name, md5, _ in published["files"]]
mnist_family.SIZES.update({md5: size for _, md5, size in published["files"]})
"""
STAGE = "import runpy; sys.argv = ['stages/{0}.py', 'mnist']; runpy.run_path('stages/{0}.py', run_name='__main__')\n"
PEER = """
import torch
sets = [MNIST("peer", train=train, download=True) for train in (True, False)]
torch.save([(part.data, part.targets) for part in sets], "peer/tensors.pt")
"""
PEAK = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
PROCESSES = {"fetch": PUBLISH + STAGE.format("fetch"), "preprocess": "import sys\n" + STAGE.format("preprocess")}


def idx(array: numpy.ndarray) -> bytes:
    """A gzipped IDX file of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def generate(folder: Path) -> list[tuple[str, str, int]]:
    """Write the four files: shifted copies of the embedded digits; names, MD5 sums and sizes."""
    fetch_embedded(folder)
    images, labels = (tensor.numpy() for tensor in parse_embedded(folder / "mnist_5k.csv.gz"))
    random = numpy.random.default_rng(0)
    published = []
    for prefix, count in COUNTS.items():
        chosen = random.integers(len(images), size=count)
        shifts = random.integers(-LARGEST_SHIFT, LARGEST_SHIFT + 1, size=(count, 2))
        shifted = numpy.stack(
            [numpy.roll(images[i, 0], shift, (0, 1)) for i, shift in zip(chosen, shifts.tolist(), strict=True)]
        )
        shifted[:, 0, :3] = numpy.arange(count)[:, None] >> (0, 8, 16) & 255  # so that no two images are equal
        shifted[:, 1, 0] = prefix == "train"
        contents = {"images-idx3": shifted, "labels-idx1": labels[chosen].astype(numpy.uint8)}
        for kind, array in contents.items():
            name, data = f"{prefix}-{kind}-ubyte.gz", idx(array)
            (folder / name).write_bytes(data)
            published.append((name, hashlib.md5(data).hexdigest(), len(data)))
    return published


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server of the folder's files."""
    handler = functools.partial(Server, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # torchvision hangs up once
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def measure(code: str, folder: Path) -> dict[str, float]:
    """Run code in a process of its own: seconds, processor seconds and peak memory in MiB."""
    start = time.perf_counter()
    variables = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code + PEAK]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak_memory_mib": round(int(done.stdout.split()[-2]) / 1024, 1),
    }


def main() -> None:
    """Measure in a scratch copy of the project, and write the results."""
    with tempfile.TemporaryDirectory() as scratch:
        project, offered = Path(scratch) / "project", Path(scratch) / "offered"
        offered.mkdir()
        copy = [sys.executable, "-m", "diffusion_ladder.presets", "smoke", "--copy", str(project)]
        subprocess.run(copy, cwd=PROJECT, check=True)
        parameters = load_yaml(project / "params.yaml")
        parameters["datasets"]["mnist"]["source"] = "torchvision"
        (project / "params.yaml").write_text(dump_yaml(parameters))
        published = generate(offered)
        with serving(offered) as mirror:
            (project / "published.json").write_text(json.dumps({"mirror": mirror, "files": published}))
            measured = {name: measure(code, project) for name, code in PROCESSES.items()}
            measured["torchvision"] = measure(PUBLISH + PEER, project)
        card = json.loads((project / "reports/data/mnist.json").read_text())
    results = {
        "machine": processor_name(),
        "cores": os.cpu_count(),
        "images": card["rows_in"],
        "downloaded_bytes": sum(size for _, _, size in published),
        "processes": measured,
    }
    write_json(RESULTS, results)
    for name, numbers in measured.items():
        print(f"{name:12} {numbers['seconds']:6.2f} s, peak {numbers['peak_memory_mib']:6.1f} MiB")


if __name__ == "__main__":
    main()
