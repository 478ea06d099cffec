"""Modellix and Appy Pie as the sandbox speaks them."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from integration.sandbox.wire import INPUTS, wait_for
from sandbox import appypie, modellix
from sandbox.server import Behaviour, Sandbox

MODELLIX = {"Authorization": f"Bearer {modellix.API_KEY}"}
APPYPIE = {"Ocp-Apim-Subscription-Key": appypie.SUBSCRIPTION_KEY}
PATHS = ["/api/v1/image-to-image/kling/{}/async", "/api/v1/kling/{}/async"]
MODEL = "kolors-virtual-try-on-v1-5"
CREATE = "/kling-ai-vton/v1/getVirtualTryOnTask"
STATUS = "/kling-ai-polling/v1/getVirtualTryOnStatus"


@pytest.mark.parametrize("path", PATHS)
def test_modellix_takes_both_spellings_and_tells_its_limit(
    sandbox: Sandbox, session: requests.Session, path: str
) -> None:
    session.headers.update(MODELLIX)
    answer = session.post(sandbox.url + path.format(MODEL), json=INPUTS)
    created = answer.json()
    assert (answer.status_code, created["code"], created["data"]["status"]) == (200, 0, "pending")
    assert answer.headers["X-RateLimit-Limit"] == "100"
    assert answer.headers["X-RateLimit-Remaining"] == "99"

    def ended() -> Any:
        data = session.get(created["data"]["get_result"]["url"]).json()["data"]
        return data if data["status"] not in ("pending", "processing") else None

    done = wait_for(ended)
    assert (done["status"], done["model_id"]) == ("success", MODEL)
    assert session.get(done["result"]["resources"][0]["url"]).ok
    assert done["duration"] > 0


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "says"),
    [
        (PATHS[0].format(MODEL), {}, INPUTS, 401, "Unauthorized: "),
        (PATHS[0].format("nothing"), MODELLIX, INPUTS, 404, "does not exist"),
        (PATHS[0].format(MODEL), MODELLIX, {}, 400, "'human_image' is required"),
        (PATHS[0].format(MODEL), MODELLIX, {**INPUTS, "x": 1}, 400, "'x' is unknown"),
        (
            PATHS[0].format(MODEL),
            MODELLIX,
            {**INPUTS, "cloth_image": "data:image/png;base64,AA"},
            400,
            "'cloth_image' must be raw Base64",
        ),
        (PATHS[0].format(MODEL), MODELLIX, [], 400, "JSON object"),
    ],
)
def test_modellix_refuses_in_its_own_words(
    sandbox: Sandbox,
    session: requests.Session,
    path: str,
    headers: dict[str, str],
    body: Any,
    status: int,
    says: str,
) -> None:
    answer = session.post(sandbox.url + path, json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, status)
    assert says in answer.json()["message"]


def test_modellix_limits_requests_a_minute(session: requests.Session) -> None:
    with Sandbox(behaviour=Behaviour(pace=0.05, requests_a_minute=2)) as sandbox:
        session.headers.update(MODELLIX)
        answers = [session.get(f"{sandbox.url}/api/v1/tasks/none") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert answers[2].headers["X-RateLimit-Remaining"] == "0"
    assert int(answers[2].headers["X-RateLimit-Reset"]) > 0


def test_appypie_answers_in_klings_envelope(sandbox: Sandbox, session: requests.Session) -> None:
    session.headers.update(APPYPIE)
    created = session.post(sandbox.url + CREATE, json=INPUTS).json()
    assert (created["code"], created["data"]["task_status"]) == (0, "submitted")

    def ended() -> Any:
        asked = {"task_id": created["data"]["task_id"]}
        data = session.post(sandbox.url + STATUS, json=asked).json()["data"]
        return data if data["task_status"] not in ("submitted", "processing") else None

    done = wait_for(ended)
    assert done["task_status"] == "succeed"
    assert session.get(done["task_result"]["images"][0]["url"]).ok


def test_a_task_that_appypie_does_not_know_looks_failed_and_is_not_wrapped(
    sandbox: Sandbox, session: requests.Session
) -> None:
    answer = session.post(sandbox.url + STATUS, json={"task_id": "1"}, headers=APPYPIE)
    assert answer.json() == {"task_status": "failed", "task_status_msg": "task not found"}


@pytest.mark.parametrize(
    ("headers", "body", "status", "says"),
    [
        ({}, INPUTS, 401, "missing"),
        ({"Ocp-Apim-Subscription-Key": "x"}, INPUTS, 403, "invalid"),
        (APPYPIE, {}, 400, "human_image is required"),
        (APPYPIE, {**INPUTS, "image_tail": "x"}, 400, "image_tail is not a parameter"),
        (APPYPIE, {**INPUTS, "callback_url": "ftp://a"}, 400, "callback_url"),
        (APPYPIE, [], 400, "JSON object"),
    ],
)
def test_appypie_refuses_with_an_error_text(
    sandbox: Sandbox,
    session: requests.Session,
    headers: dict[str, str],
    body: Any,
    status: int,
    says: str,
) -> None:
    answer = session.post(sandbox.url + CREATE, json=body, headers=headers)
    assert answer.status_code == status
    assert says in answer.json()["error"]


def test_no_task_of_one_provider_is_another_s(sandbox: Sandbox, session: requests.Session) -> None:
    created = session.post(sandbox.url + CREATE, json=INPUTS, headers=APPYPIE).json()["data"]
    other = session.get(f"{sandbox.url}/api/v1/tasks/{created['task_id']}", headers=MODELLIX)
    assert other.status_code == 404


def test_with_callbacks_switched_off_nobody_calls_back(
    session: requests.Session, sink: Any
) -> None:
    with Sandbox(behaviour=Behaviour(pace=0.05, callbacks=False)) as sandbox:
        body = {**INPUTS, "callback_url": sink.url}
        made = session.post(sandbox.url + CREATE, json=body, headers=APPYPIE).json()["data"]
        asked = {"task_id": made["task_id"]}

        def ended() -> bool:
            data = session.post(sandbox.url + STATUS, json=asked, headers=APPYPIE).json()["data"]
            return bool(data["task_status"] == "succeed")

        wait_for(ended)
        assert sandbox.ledger.entries() == []
