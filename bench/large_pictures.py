"""Measures the peak memory of one worker for four large pictures that arrive together."""

from __future__ import annotations

import io
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from PIL import Image

from bench.disks import Disk
from bench.ours import migrate
from bench.peers import Peers
from bench.processes import CannotMeasure, process
from bench.progress import say
from bench.site import Site
from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.deliveries import State
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.processes.current_hooks import entries_for
from receiver.stores import Store, open_store
from receiver.tasks import new_task_id
from tests.support.http_server import LoopbackServer
from tests.support.samples import body

SIDE = 8000  # pixels
PICTURES = 4
DONE_WITHIN = 120.0  # seconds
HOOK = """
[[hook]]
name = "pictures"
type = "download"
on = ["succeeded"]
to = "{folder}/pictures"
allow_private = true
"""
# The mode, the format and the options of Pillow's encoder.
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "PNG, RGB": ("RGB", "PNG", {}),
    "PNG, RGBA": ("RGBA", "PNG", {}),
    "PNG, 16 bits": ("I;16", "PNG", {}),
    "JPEG": ("RGB", "JPEG", {}),
    "JPEG, progressive": ("RGB", "JPEG", {"progressive": True}),
    "GIF": ("P", "GIF", {}),
    "WebP": ("RGB", "WEBP", {"method": 0}),
    "TIFF": ("RGB", "TIFF", {"compression": "tiff_adobe_deflate"}),
}


def measure(place: Path, formats: tuple[str, ...] = tuple(FORMATS)) -> list[dict[str, Any]]:
    """Measure a worker with default concurrency that delivers four pictures."""
    return [_one(name, place) for name in formats]


def _one(name: str, place: Path) -> dict[str, Any]:
    mode, form, options = FORMATS[name]
    out = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(out, form, **options)
    folder = Path(tempfile.mkdtemp(dir=place))
    url = f"sqlite:///{folder}/receiver.db"
    migrate(url)
    (folder / "hooks.toml").write_text(HOOK.format(folder=folder))
    environment = Site(folder, Disk(), Peers()).environment(
        DATABASE_URL=url, HOOKS_FILE=folder / "hooks.toml"
    )
    store = open_store(url)
    command = [sys.executable, "-m", "receiver", "worker"]
    try:
        with _serving(out.getvalue()) as port, process(command, folder / "log", environment) as pid:
            _wait_until_seen(store)
            before = _peak_mb(pid)
            _succeed(store, Settings(url, (), hooks_file=folder / "hooks.toml"), port)
            files = _delivered(store)
            peak = _peak_mb(pid)
    finally:
        store.close()
    say(f"four pictures, {name}: {peak:.0f} MB")
    thumbnails = sum(file.thumbnail is not None for file in files)
    return {"format": name, "before_mb": before, "peak_mb": peak, "thumbnails": thumbnails}


def _succeed(store: Store, chosen: Settings, port: int) -> None:
    """Record the success of PICTURES tasks, with one picture each."""
    ingest = Ingest(store, [entry.subscription for entry in entries_for(chosen)])
    for number in range(PICTURES):
        now = now_ms()
        images = [{"index": 0, "url": f"http://127.0.0.1:{port}/{number}"}]
        result = {"images": images, "videos": [], "audios": []}
        raw = body(task_id=f"large-{number}", task_result=result)
        ingest.accept(Callback("kling", new_task_id(now), raw, now))


def _delivered(store: Store) -> list[Any]:
    until = time.monotonic() + DONE_WITHIN
    while len(found := store.lists.deliveries(state=State.DELIVERED)) < PICTURES:
        if time.monotonic() > until:
            raise CannotMeasure(f"{len(found)} of {PICTURES} pictures in {DONE_WITHIN:g} s")
        time.sleep(0.1)
    return [
        file
        for delivery in found
        for file in store.queries.history(delivery.task_id).files.get(delivery.id, ())
    ]


def _wait_until_seen(store: Store) -> None:
    until = time.monotonic() + DONE_WITHIN
    while store.activity.last_seen("worker") is None:
        if time.monotonic() > until:
            raise CannotMeasure("the worker did not start")
        time.sleep(0.1)


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024 / 1e6


@contextmanager
def _serving(content: bytes) -> Iterator[int]:
    """Serve these bytes at every path; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with LoopbackServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
