"""`submitter doctor` checks which keys are set, and whether the providers accept them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from sandbox.server import Sandbox
from submitter import accounts
from submitter.cli import main
from tests.support.hook_servers import dripping
from tests.support.ports import free_port
from tests.support.scripted_provider import Scripted

NAMES = ("KLING", "MODELLIX", "APPYPIE")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as started:
        yield started


@pytest.fixture(autouse=True)
def keys_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys of other providers."""
    for name in list(os.environ):
        if name.startswith(NAMES):
            monkeypatch.delenv(name)


@pytest.fixture
def environment(sandbox: Sandbox) -> dict[str, str]:
    """An environment with the sandbox's keys and addresses."""
    return {name: value for name, value in sandbox.env().items() if name.startswith(NAMES)}


def run(environment: dict[str, str], *words: str) -> Result:
    result = CliRunner().invoke(main, ["doctor", *words], env=environment)
    assert isinstance(result.exception, SystemExit | None), result.exception
    for name, value in environment.items():
        assert not name.endswith("_KEY") or value not in result.output
    return result


def found(environment: dict[str, str], *words: str) -> dict[str, tuple[str, str]]:
    documents = json.loads(run(environment, "--json", *words).stdout)
    return {one["check"]: (one["verdict"], one["said"]) for one in documents}


def test_every_provider_accepts_its_keys(environment: dict[str, str]) -> None:
    result = run(environment)
    assert result.exit_code == 0
    findings = found(environment)
    assert findings.keys() == {"kling", "modellix", "appypie", "clock"}
    assert {verdict for verdict, _ in findings.values()} == {"ok"}
    assert "accepts the keys" in findings["kling"][1]


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("KLING_SECRET_KEY", "kling"),
        ("MODELLIX_API_KEY", "modellix"),
        ("APPYPIE_SUBSCRIPTION_KEY", "appypie"),
    ],
)
def test_wrong_keys_are_reported(environment: dict[str, str], name: str, check: str) -> None:
    wrong = {**environment, name: "a-key-that-nobody-knows-0123456789"}
    wrong.pop("KLING_API_KEY", None)
    result = run(wrong)
    assert result.exit_code == 1
    verdict, said = found(wrong)[check]
    assert verdict == "failed"
    assert name in said  # the advice to the user


def test_accounts_are_found_by_their_keys(environment: dict[str, str]) -> None:
    more = {
        **environment,
        "KLING_SHOP2_ACCESS_KEY": "half-of-a-pair",
        "MODELLIX_B_API_KEY": environment["MODELLIX_API_KEY"],
    }
    findings = found(more)
    assert findings["kling:shop2"][0] == "failed"
    assert "KLING_SHOP2_SECRET_KEY: not set" in findings["kling:shop2"][1]
    assert findings["modellix:b"][0] == "ok"
    only = found(more, "--provider", "modellix", "--account", "b")
    assert only.keys() == {"modellix:b", "clock"}
    assert found(more, "--provider", "modellix").keys() == {"modellix", "modellix:b", "clock"}
    assert found(more, "--account", "shop2").keys() == {"kling:shop2"}
    assert "KLING_SHOP3_API_KEY: not set" in found(more, "--account", "shop3")["kling:shop3"][1]


def test_no_keys_at_all_is_a_failure() -> None:
    assert (
        accounts.accounts_with_keys({"KLING_API_KEY": " ", "KLING_BASE_URL": "https://x.example"})
        == []
    )
    result = run({})
    assert result.exit_code == 1
    assert "no provider has a key" in result.output


def test_an_unreachable_provider_is_reported() -> None:
    gone = {"KLING_API_KEY": "x" * 32, "KLING_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    findings = found(gone)
    assert (findings["kling"][0], findings["clock"][0]) == ("failed", "warning")
    assert "was never reached" in findings["kling"][1]


def test_a_failing_provider_says_nothing_about_the_keys(server: Scripted) -> None:
    server.will(server.say({"code": 1302, "message": "too fast"}, 429, Retry_After="3600"))
    findings = found({"KLING_API_KEY": "x" * 32, "KLING_BASE_URL": server.url})
    assert findings["kling"][0] == "warning"
    assert "could not be checked" in findings["kling"][1]


def test_a_wrong_clock_is_reported() -> None:
    old = b"HTTP/1.1 200 OK\r\nDate: Fri, 12 Dec 2025 06:10:51 GMT\r\nContent-Length: 0\r\n\r\n"
    with dripping(old, pause=0) as port:
        wrong = {"KLING_API_KEY": "x" * 32, "KLING_BASE_URL": f"http://127.0.0.1:{port}"}
        findings = found(wrong)
    assert findings["clock"][0] == "failed"


def test_no_task_is_created(server: Scripted) -> None:
    server.will(server.say({"code": 0, "message": "SUCCEED", "data": []}))
    run({"KLING_API_KEY": "x" * 32, "KLING_BASE_URL": server.url})
    assert {asked.method for asked in server.asked} == {"GET"}


def test_an_unknown_account_is_a_usage_error(environment: dict[str, str]) -> None:
    assert run(environment, "--account", "Shop 2").exit_code == 2
    assert run(environment, "--provider", "piapi").exit_code == 2
