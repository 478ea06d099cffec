"""Nine scenarios, one for each bug that a webhook receiver must not have.

Each uses a receiver from outside, and raises Caught with its finding.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.support.flawed.receivers import ANSWERED, LOOKED
from tests.support.flawed.rigs import Rig, post, signed
from tests.support.patience import wait_until

CANARY = "canary-5a1f"
_numbers = itertools.count(1)


class Caught(Exception):
    """The receiver has the bug; the message describes the finding."""


def acknowledge_before_commit(rig: Rig) -> None:
    """A callback that was answered with 200 is on record even after a power cut at that moment."""
    task = _task()
    with rig.paused(ANSWERED):
        answer = post(rig.url(task), _body(task, "succeed"))
        rig.kill()
    rig.start()
    if answer == 200 and rig.moves(task) != ["succeed"]:
        raise Caught(f"answered {answer}, but after a kill the record has {rig.moves(task)}")


def check_then_insert(rig: Rig) -> None:
    """Eight concurrent copies are one transition, and call the hook once."""
    task = _task()
    with ThreadPoolExecutor(8) as pool, rig.paused(LOOKED):
        copies = [pool.submit(post, rig.url(task), _body(task, "succeed")) for _ in range(8)]
        _wait(rig, lambda: sum(copy.done() for copy in copies) + rig.paused_requests() >= 8)
    _wait(rig, lambda: bool(rig.told.of(task)))
    if rig.moves(task) != ["succeed"]:
        raise Caught(f"eight copies made these moves: {rig.moves(task)}")


def crash_after_effect_before_ack(rig: Rig) -> None:
    """A hook that was called before a crash is called again with the same event id."""
    task = _task()
    killed = threading.Event()

    def kill() -> None:
        try:
            rig.kill()
        finally:
            killed.set()

    rig.told.before_answer[task] = kill
    post(rig.url(task), _body(task, "succeed"), tolerant=True)
    _wait(rig, killed.is_set)
    rig.start()
    post(rig.url(task), _body(task, "succeed"))  # the provider may not have received its response
    _wait(rig, lambda: len(rig.told.of(task)) > 1)
    _wait(rig, rig.is_idle)
    if len(set(rig.told.of(task))) != 1:
        raise Caught(f"called with {len(set(rig.told.of(task)))} identities: {rig.told.of(task)}")


def no_idempotency_record(rig: Rig) -> None:
    """A copy that arrives after a restart is a duplicate."""
    task = _task()
    post(rig.url(task), _body(task, "succeed"))
    _wait(rig, lambda: bool(rig.told.of(task)))
    _wait(rig, rig.is_idle)  # the hook call is on record
    rig.kill()
    rig.start()
    told = len(rig.told.of(task))
    post(rig.url(task), _body(task, "succeed"))
    _wait(rig, rig.is_idle)
    if len(rig.told.of(task)) != told or rig.moves(task) != ["succeed"]:
        raise Caught(f"a copy after a restart: calls {rig.told.of(task)}, moves {rig.moves(task)}")


def order_assuming(rig: Rig) -> None:
    """A late callback does not change a final status."""
    task = _task()
    with rig.paused(ANSWERED):
        for status in ("succeed", "processing", "submitted"):
            post(rig.url(task), _body(task, status))
        found = rig.status(task)
    if found != "succeed":
        raise Caught(f"after its end, it is {found} again")


def sensitive_logging(rig: Rig) -> None:
    """The log contains no token, no signature, and no link to a picture."""
    task = _task()
    body = _body(task, "succeed", url=f"https://cdn.example/0.png?Signature={CANARY}")
    proof = signed(body)
    post(rig.url(task), body, {"Authorization": f"Bearer {CANARY}"})
    post(f"{rig.url(task)[:-4]}beef", body)
    post(f"{rig.base}/callbacks/kling", body, proof)
    token = rig.url(task).rpartition("/")[2]
    secrets = (CANARY, token, proof["webhook-signature"])
    _wait(rig, lambda: bool(rig.told.of(task)))
    _wait(rig, rig.is_idle)
    found = [secret for secret in secrets if secret in rig.log()]
    if found:
        raise Caught(f"its log contains {len(found)} of 3 secrets")


def side_effect_before_deduplication(rig: Rig) -> None:
    """Three copies, one after another, call the hook once."""
    task = _task()
    for _ in range(3):
        post(rig.url(task), _body(task, "succeed"))
    _wait(rig, lambda: bool(rig.told.of(task)))
    _wait(rig, rig.is_idle)
    if len(rig.told.of(task)) != 1:
        raise Caught(f"three copies called the hook {len(rig.told.of(task))} times")


def signature_after_parse(rig: Rig) -> None:
    """The signature is checked over the received bytes: one more space makes it invalid."""
    url, task = f"{rig.base}/callbacks/kling", _task()
    body = _body(task, "succeed")
    changed = post(url, body + b" ", signed(body))
    garbage = post(url, b"{", {})
    if (changed, garbage) != (401, 401) or rig.moves(task):
        raise Caught(f"changed bytes got {changed}, unsigned garbage {garbage}")
    if post(url, body, signed(body)) != 200:
        raise Caught("a body that the provider signed was refused")


def stale_signature_accepted(rig: Rig) -> None:
    """A signature that is an hour old is refused."""
    task = _task()
    body = _body(task, "succeed")
    answer = post(f"{rig.base}/callbacks/kling", body, signed(body, age=3600))
    if answer != 401 or rig.moves(task):
        raise Caught(f"a signature that is an hour old got {answer}")


SCENARIOS: dict[str, Callable[[Rig], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        acknowledge_before_commit,
        check_then_insert,
        crash_after_effect_before_ack,
        no_idempotency_record,
        order_assuming,
        sensitive_logging,
        side_effect_before_deduplication,
        signature_after_parse,
        stale_signature_accepted,
    )
}


def _task() -> str:
    return f"task-{next(_numbers)}-of-the-matrix"


def _body(task: str, status: str, url: str = "https://cdn.example/0.png") -> bytes:
    images = [{"index": 0, "url": url}] if status == "succeed" else []
    document = {
        "task_id": f"p-{task}",
        "task_status": status,
        "task_status_msg": "",
        "task_info": {"external_task_id": task},
        "task_result": {"images": images, "videos": [], "audios": []},
        "created_at": 1_765_519_848_595,
        "updated_at": 1_765_519_850_000,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _wait(rig: Rig, condition: Callable[[], object]) -> None:
    try:
        wait_until(condition, rig.log)
    except AssertionError as error:  # with the end of the receiver's log
        raise Caught(f"an expected event did not happen: {error}") from None
