"""Measures attempts and creates over HTTPS, and compares them with `requests` and httpx."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests.adapters

from bench import ROOT, hook_latency
from bench.disks import Disk
from bench.load import at
from bench.ours import migrate
from bench.peers import Peers
from bench.processes import CannotMeasure
from bench.progress import say
from bench.sink import CERTIFICATE, sink
from bench.site import Site
from bench.targets import ATTEMPT, POOLED
from bench.worker_rate import Rate, run

CLIENT = ROOT / "bench" / "apps" / "https_client.py"
WORKER = (sys.executable, "-m", "bench.apps.trusting_worker")
KINDS = {
    POOLED: "requests",
    "httpx, one client": "httpx",
    ATTEMPT: "attempt",
    "requests, a new session each": "new",
    "us, a create": "create",
}
SLOTS = (4, 16)
HOOK = """
[[hook]]
name = "{name}"
type = "webhook"
url = "{scheme}://localhost:{port}/"
secrets = ["whsec_b2YtdGhlLWJlbmNoLWFsb25lLW9wZW5zLW5vdGhpbmc="]
allow_private = true
"""


def measure(rounds: int, seconds: float, callbacks: int, peers: Peers, place: Path) -> Any:
    """Measure single requests, one worker with a backlog, and a hook after its callback."""
    folder = place / "https"
    folder.mkdir()
    roots = _roots(folder)
    return {
        "exchanges": _exchanges(rounds, seconds, peers, roots, folder),
        "workers": _workers(rounds, 2 * seconds, 1500, roots, folder),
        "hook": hook_latency.over_https(
            f"sqlite:///{folder}/hooks.db", callbacks, folder / "hooks", WORKER, roots
        ),
    }


def _roots(folder: Path) -> Path:
    """Return a bundle with the usual root certificates and the one of the sink."""
    usual = Path(requests.adapters.DEFAULT_CA_BUNDLE_PATH).read_text("utf-8")
    bundle = folder / "roots.pem"
    bundle.write_text(f"{usual}\n{CERTIFICATE.read_text('utf-8')}", "utf-8")
    return bundle


def _exchanges(
    rounds: int, seconds: float, peers: Peers, roots: Path, folder: Path
) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {
        name: {"name": name, "per_second": [], "cpu_ms": [], "p50_ms": [], "p99_ms": []}
        for name in KINDS
        if "httpx" in peers.places or KINDS[name] != "httpx"
    }
    with sink(tls=True) as shop:
        url = f"https://localhost:{shop.port}/"
        for number in range(rounds):
            for name, row in rows.items():
                python = peers.place("httpx") if KINDS[name] == "httpx" else Path(sys.executable)
                found = _client(python, KINDS[name], url, roots, seconds, folder)
                took = sorted(found["took_s"])
                row["per_second"].append(len(took) / sum(took))
                row["cpu_ms"].append(found["cpu_s"] / len(took) * 1000)
                row["p50_ms"].append(at(took, 0.5) * 1000)
                row["p99_ms"].append(at(took, 0.99) * 1000)
            say(f"requests over HTTPS, round {number + 1}")
    return list(rows.values())


def _client(
    python: Path, kind: str, url: str, roots: Path, seconds: float, folder: Path
) -> dict[str, Any]:
    environment = Site(folder, Disk(), Peers()).environment(PYTHONPATH=ROOT)
    done = subprocess.run(
        [python, CLIENT, kind, url, roots, str(seconds)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60 + seconds,
        check=False,
    )
    if done.returncode:
        raise CannotMeasure(f"{kind}: {done.stderr.strip().splitlines()[-1][:200]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _workers(
    rounds: int, seconds: float, tasks: int, roots: Path, folder: Path
) -> list[dict[str, Any]]:
    """Measure one worker on SQLite, with two hooks for each task."""
    cells = [(scheme, slots) for scheme in ("http", "https") for slots in SLOTS]
    rates: dict[tuple[str, int], Rate] = {}
    for scheme, slots in cells:
        url = f"sqlite:///{folder}/{scheme}-{slots}.db"
        migrate(url)
        rates[scheme, slots] = Rate(f"{scheme.upper()}, {slots} slots", url)
    with sink() as plain, sink(tls=True) as encrypted:
        for number in range(rounds):
            for (scheme, slots), rate in rates.items():
                shop = encrypted if scheme == "https" else plain
                hooks = [
                    HOOK.format(name=name, scheme=scheme, port=shop.port)
                    for name in ("shop", "books")
                ]
                (folder / "hooks.toml").write_text("".join(hooks))
                run(
                    rate,
                    shop,
                    seconds,
                    tasks,
                    folder,
                    WORKER,
                    WORKER_CONCURRENCY=slots,
                    BENCH_ROOTS=roots,
                )
            say(f"deliveries over HTTP and HTTPS, round {number + 1}")
    return [rate.as_json() for rate in rates.values()]
