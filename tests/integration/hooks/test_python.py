"""The python hook: the function's event, its exceptions, and errors in its name."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from receiver.deliveries import State
from receiver.delivery.attempt import DeliveryWorker
from receiver.errors import (
    ContentFailure,
    PermanentFailure,
    SettingsError,
    TemporaryFailure,
    TimedOut,
)
from receiver.hooks.python import Python
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from tests.support import hook_servers
from tests.support.attempts import make_attempt
from tests.support.hook_servers import notice
from tests.support.samples import callback, subscription

MODULE = """
import asyncio
value = 7
def fine(event): return f"noted {event['id']}\\nand more"
def changes(event):
    found = f"{len(event['task'])} keys"
    event["task"].clear()
    return found
def cuts(event): return {"url": "https://cdn.example/" + event["id"]}
class Shop:
    @staticmethod
    def on_result(event): return "by a class"
async def later(event): pass
def leaves(event): raise SystemExit("I am done")
def breaks(event):
    secret = "canary-in-a-local-variable"
    return {}["no such key"]
"""


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Change to a working directory with modules of the user."""
    (tmp_path / "shop_of_the_test.py").write_text(MODULE)
    (tmp_path / "broken_shop.py").write_text("import no_such_module")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    yield
    hook_servers.refusals.clear()


def hook(function: str = "fine") -> Python:
    return Python("shop", {"call": f"shop_of_the_test:{function}"})


def test_the_function_receives_the_event_and_its_result_is_stored() -> None:
    assert hook().send(notice()).answer == "noted 0199f1a2:succeeded and more"
    assert hook("Shop.on_result").send(notice()).answer == "by a class"


def test_each_call_receives_a_new_event() -> None:
    told = notice()
    changes = hook("changes")
    whole = f"{len(told.as_json()['task'])} keys"
    assert changes.send(told).answer == whole
    assert changes.send(told).answer == whole


@pytest.mark.parametrize(
    "error",
    [
        TemporaryFailure("come back", retry_after=7),
        PermanentFailure("never"),
        ContentFailure("not this one"),
    ],
)
def test_the_three_failure_types_decide(error: Exception) -> None:
    hook_servers.refusals.append(error)
    with pytest.raises(type(error)) as caught:
        Python("shop", {"call": "tests.support.hook_servers:on_event"}).send(notice())
    assert caught.value is error


def test_a_function_that_exits_ends_only_its_attempt() -> None:
    with pytest.raises(ContentFailure, match="SystemExit: I am done"):
        hook("leaves").send(notice())


def test_any_other_exception_is_stored_with_its_traceback(store: SqliteStore) -> None:
    Ingest(store, [subscription("shop")]).accept(callback())
    (delivery,) = store.outbox.claim("w", 2_000_000_000_000, 2_000_000_001_000, 1)
    make_attempt(DeliveryWorker(store, {"shop": hook("breaks")}), delivery)
    assert store.lists.deliveries()[0].state is State.PENDING
    (attempt,) = store.queries.history("task-1").attempts[delivery.id]
    assert "in breaks" in attempt.answer
    assert "KeyError: 'no such key'" in attempt.answer
    assert "canary-in-a-local-variable" not in attempt.answer.replace(
        'secret = "canary-in-a-local-variable"', ""
    )


@pytest.mark.parametrize(
    ("error", "timed_out"),
    [
        (TimeoutError("no answer"), True),
        (requests.ReadTimeout("no answer"), True),
        (subprocess.TimeoutExpired("shop", 7), True),
        (TimedOut("no answer"), True),
        (requests.ConnectionError("refused"), False),
        (TemporaryFailure("no answer"), False),
    ],
)
def test_a_timeout_of_the_function_is_recognised(
    store: SqliteStore, error: Exception, timed_out: bool
) -> None:
    Ingest(store, [subscription("shop")]).accept(callback())
    (delivery,) = store.outbox.claim("w", 2_000_000_000_000, 2_000_000_001_000, 1)
    hook_servers.refusals.append(error)
    shop = Python("shop", {"call": "tests.support.hook_servers:on_event"})
    make_attempt(DeliveryWorker(store, {"shop": shop}), delivery)
    assert store.endpoints.of("shop").failures == 1
    assert store.endpoints.of("shop").timed_out is timed_out


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("shop_of_the_test", "is not module:function"),
        ("shop_of_the_test:", "is not module:function"),
        ("shop of:the test", "is not module:function"),
        ("no_such_shop:on_result", "no_such_shop cannot be imported: ModuleNotFoundError"),
        ("broken_shop:on_result", "broken_shop cannot be imported: ModuleNotFoundError"),
        ("shop_of_the_test:nothing", "shop_of_the_test has no nothing"),
        ("shop_of_the_test:Shop.nothing", "shop_of_the_test has no Shop.nothing"),
        ("shop_of_the_test:value", "is not a function"),
        ("shop_of_the_test:later", "is async"),
    ],
)
def test_an_invalid_name_is_reported_at_the_start(call: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Python("shop", {"call": call})
    assert says in str(caught.value)


def test_a_returned_object_becomes_the_output() -> None:
    done = hook("cuts").send(notice())
    assert done.answer == "returned an object"
    assert done.output == {"url": f"https://cdn.example/{notice().id}"}


def test_the_output_of_a_hook_is_recorded_and_passed_on(store: SqliteStore) -> None:
    hooks = [subscription("cut"), subscription("shop", after="cut")]
    Ingest(store, hooks).accept(callback())
    worker = DeliveryWorker(store, {"cut": hook("cuts"), "shop": hook()})
    (cut,) = store.outbox.claim("w", 2_000_000_000_000, 2_000_000_009_000, 9)
    assert make_attempt(worker, cut) is State.DELIVERED
    (shop,) = store.outbox.claim("w", 2_000_000_000_000, 2_000_000_009_000, 9)
    assert shop.source.notice.as_json()["outputs"] == {
        "cut": {"url": "https://cdn.example/task-1:succeeded"}
    }
