"""An S3 server for tests, and one for SQS: moto, on loopback, on a free port, as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import requests

from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTS", "AWS_SECRET_ACCESS_KEY": "S3CRET-of-the-tests"}


class S3Server:
    """One server; its contents are lost when it stops."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: dict[str, Any] = {}  # making one takes longer than most requests

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-p", str(self.port)],
                stdout=log,
                stderr=log,
                env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            )
        wait_until(self._is_ready, self._log.read_text)

    def stop(self) -> None:
        assert self._process is not None
        while self._clients:
            self._clients.popitem()[1].close()
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait(PATIENCE)

    def client(self, service: str = "s3") -> Any:
        """Return boto3's client, which shares no code with the product."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name="us-east-1",
                aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            )
        return self._clients[service]

    def ask_for_keys(self) -> None:
        """Accept only known access keys from now on."""
        self._reset(b"0")

    def accept_every_key(self) -> None:
        self._reset(b"inf")

    def forget_all(self) -> None:
        self.accept_every_key()
        assert requests.post(f"{self.url}/moto-api/reset", timeout=PATIENCE).ok

    def _reset(self, actions: bytes) -> None:
        assert requests.post(f"{self.url}/moto-api/reset-auth", data=actions, timeout=PATIENCE).ok

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            return requests.get(f"{self.url}/moto-api/data.json", timeout=PATIENCE).ok
        except requests.ConnectionError:
            return False


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Yield a server that runs within the block."""
    with tempfile.TemporaryDirectory(prefix="s3-of-the-tests-") as folder:
        server = S3Server(Path(folder) / "log")
        server.start()
        try:
            yield server
        finally:
            server.stop()
