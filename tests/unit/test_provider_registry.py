"""Adapters of other packages: valid ones are used, and the others are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.config import plugins
from receiver.providers import PROVIDERS, Provider
from receiver.providers.registry import Registry, members_of
from submitter import providers as submitter_providers
from submitter.errors import ConfigurationError, InputError
from tests.support.plugin_packages import site_packages, unpack, wheel

ADAPTER = """
from receiver.errors import NotJson
from receiver.providers.base import DAY, Provider

class Adapter(Provider):
    name = "acme"
    has_callbacks = False
    shares_ids = True
    statuses = {}
    results_kept_for = DAY

    def parse(self, callback):
        raise NotJson("never")

class Failing(Adapter):
    def __init__(self):
        raise RuntimeError("no licence")

class Incomplete:
    name = "acme"
"""


def registry() -> Registry[Provider]:
    built_in = {"kling": PROVIDERS["kling"]}
    return Registry(plugins.PROVIDERS, built_in, members_of(Provider), make=lambda one: one())


def problem(folder: Path, entry_point: str, target: str) -> str:
    """Return the problem that is reported about one entry point."""
    with site_packages(folder / "site") as site:
        unpack(wheel(folder, "acme", plugins.PROVIDERS, {entry_point: target}, ADAPTER), site)
        found = registry()
        assert list(found) == ["kling"]
        (line,) = found.problems
        return line


def test_an_adapter_of_a_package_is_used_like_a_built_in_one(tmp_path: Path) -> None:
    with site_packages(tmp_path / "site") as site:
        unpack(wheel(tmp_path, "acme", plugins.PROVIDERS, {"acme": "acme:Adapter"}, ADAPTER), site)
        found = registry()
        assert (list(found), len(found), found.problems) == (["kling", "acme"], 2, [])
        assert "acme" in found
        assert found["acme"] is found["acme"]
        assert found["acme"].verification is None


@pytest.mark.parametrize(
    ("entry_point", "target", "expected"),
    [
        ("kling", "acme:Adapter", '"kling" is built in, and cannot be replaced by acme 1.0'),
        ("doctor", "acme:Adapter", '"doctor" is built in, and cannot be replaced by acme 1.0'),
        ("Acme", "acme:Adapter", '"Acme" of the package acme 1.0 has a name that cannot be used'),
        ("other", "acme:Adapter", "calls itself 'acme'; give its entry point the same name"),
        ("acme", "acme:Incomplete", "lacks clock, has_callbacks, parse, results_kept_for"),
        ("acme", "acme:Failing", "cannot be created: RuntimeError: no licence"),
        ("acme", "acme:Missing", "cannot be loaded: AttributeError"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_reported(
    tmp_path: Path, entry_point: str, target: str, expected: str
) -> None:
    line = problem(tmp_path, entry_point, target)
    assert line.startswith("callback_receiver.providers: ")
    assert expected in line


def test_the_submitter_requires_an_adapter_of_the_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from submitter.providers.kling import Kling\nclass Acme(Kling): name = 'acme'"
    group = submitter_providers.ENTRY_POINTS
    with site_packages(tmp_path / "site") as site:
        unpack(wheel(tmp_path, "acme-out", group, {"acme": "acme_out:Acme"}, source), site)
        built_in = {"kling": submitter_providers.PROVIDERS["kling"]}
        members = members_of(submitter_providers.Provider) - {"base_url"}
        found = Registry(group, built_in, members, make=submitter_providers._received)  # noqa: SLF001
        monkeypatch.setattr(submitter_providers, "PROVIDERS", found)
        with pytest.raises(ConfigurationError, match="the receiver has no provider 'acme'"):
            submitter_providers.open_provider("acme")


def test_an_unknown_provider_is_an_input_error() -> None:
    with pytest.raises(InputError, match="'acme' is not known; use kling or modellix or appypie"):
        submitter_providers.open_provider("acme")
