"""Servers for the hooks, on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests.adapters

from tests.support.hook_servers import CERT, Site


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


@pytest.fixture
def secure_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An HTTPS site at `localhost` whose certificate is trusted."""
    monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", str(CERT))
    with Site(tls=True) as made:
        yield made
