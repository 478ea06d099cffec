"""An S3 server of the tests' own: moto, on loopback, on a free port, as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import requests

from tests.support.ports import free_port

STARTS_WITHIN = 60.0  # seconds
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTS", "AWS_SECRET_ACCESS_KEY": "S3CRET-of-the-tests"}


class S3Server:
    """One server; what it holds is gone when it stops."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-p", str(self.port)],
                stdout=log,
                stderr=log,
                env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            )
        end = time.monotonic() + STARTS_WITHIN
        while not self._is_ready():
            if time.monotonic() > end or self._process.poll() is not None:
                raise AssertionError(self._log.read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait(30)

    def client(self, service: str = "s3") -> Any:
        """boto3's client: another hand than the one that is tested."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def ask_for_keys(self) -> None:
        """From now on only keys that the server knows are let in."""
        self._reset(b"0")

    def forget_all(self) -> None:
        self._reset(b"inf")
        assert requests.post(f"{self.url}/moto-api/reset", timeout=30).ok

    def _reset(self, actions: bytes) -> None:
        assert requests.post(f"{self.url}/moto-api/reset-auth", data=actions, timeout=30).ok

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/moto-api/data.json", timeout=5).ok
        except requests.ConnectionError:
            return False


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server that runs within the block."""
    with tempfile.TemporaryDirectory(prefix="s3-of-the-tests-") as folder:
        server = S3Server(Path(folder) / "log")
        server.start()
        try:
            yield server
        finally:
            server.stop()
