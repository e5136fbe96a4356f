"""Measures work in processes of their own, so that the memory of one doesn't count for another."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def peak_mib() -> float:
    """The largest memory that this process has had resident (Linux); getrusage would count its parent's before exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(prepare: Callable[[], Callable[[], int]]) -> dict[str, float]:
    """Do some work, which tells how many rows it did, in this process: what it took.

    Args:
        prepare: gives the work; its memory counts, its time doesn't.
    """
    before, work = peak_mib(), prepare()
    processor, start = time.process_time(), time.perf_counter()
    rows = work()
    return {
        "rows": rows,
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
        "peak_mib": peak_mib(),
        "peak_mib_before": before,
    }


def measured(script: str, *arguments: str) -> dict[str, Any]:
    """What a script says in its last line, as JSON, in a fresh process; a failure there is one here."""
    ran = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(ran.stderr)
    return json.loads(ran.stdout.splitlines()[-1])
