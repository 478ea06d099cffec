"""The sandbox's APIs of Modellix and Appy Pie."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import requests
from PIL import Image

from sandbox.providers import appypie, modellix
from sandbox.server import Behaviour, Sandbox
from tests.support.sandbox_client import INPUTS, Moves, Sink, wait_for

MODELLIX = {"Authorization": f"Bearer {modellix.API_KEY}"}
APPYPIE = {"Ocp-Apim-Subscription-Key": appypie.SUBSCRIPTION_KEY}
PATHS = [
    "/api/v1/image-to-image/kling/{}/async",
    "/api/v1/kling/{}/async",
    "/api/v1/kling/{}",
]
SECRET = "whsec_dGhlIGtleSBvZiB0aGUgc2FuZGJveC4u"
MODEL = "kolors-virtual-try-on-v1-5"
CREATE = "/kling-ai-vton/v1/getVirtualTryOnTask"
STATUS = "/kling-ai-polling/v1/getVirtualTryOnStatus"


def answers(call: Callable[[], int], status: int) -> bool:
    return call() == status


@pytest.mark.parametrize("path", PATHS)
def test_modellix_accepts_each_create_path_and_states_its_limit(
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
def test_modellix_refuses_in_its_own_format(
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


def test_modellix_answers_the_other_calls_of_its_command_line(
    sandbox: Sandbox, session: requests.Session
) -> None:
    def get(path: str, headers: dict[str, str]) -> tuple[int, Any]:
        answer = session.get(f"{sandbox.url}/api/v1/{path}", headers=headers)
        return answer.status_code, answer.json()

    envelope = {"code": 0, "message": "success"}
    valid, invalid = ({**envelope, "data": {"is_valid": is_valid}} for is_valid in (True, False))
    assert get("apikey/validate", MODELLIX) == (200, valid)
    assert get("apikey/validate", {"Authorization": "Bearer wrong"}) == (200, invalid)
    status, balance = get("team/balance", MODELLIX)
    assert (status, balance["code"], type(balance["data"]["balance"])) == (200, 0, float)
    status, listed = get("models", MODELLIX)
    assert status == 200
    assert listed["models"] == listed["data"]["models"]
    slugs = [model["slug"] for model in listed["models"]]
    assert slugs == ["kling/kolors-virtual-try-on-v1", f"kling/{MODEL}"]
    status, described = get(f"models/{slugs[1]}", MODELLIX)
    assert (status, described["data"]) == (200, listed["models"][1])
    assert get("models/kling/nothing", MODELLIX)[0] == 404
    for path in ("team/balance", "models", f"models/{slugs[1]}"):
        assert get(path, {})[0] == 401


def test_modellix_limits_requests_a_minute(session: requests.Session) -> None:
    began_at = time.time()
    with Sandbox(behaviour=Behaviour(pace=0.05, requests_a_minute=2)) as sandbox:
        session.headers.update(MODELLIX)
        answers = [session.get(f"{sandbox.url}/api/v1/tasks/none") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert answers[2].json()["message"] == "Rate limit exceeded: at most 2 requests a minute"
    left = [answer.headers["X-RateLimit-Remaining"] for answer in answers]
    assert left == ["1", "0", "0"]
    reset = int(answers[2].headers["X-RateLimit-Reset"])
    assert began_at + 59 < reset < time.time() + 62


def test_modellix_states_its_limit_in_refusals_too(
    sandbox: Sandbox, session: requests.Session
) -> None:
    answer = session.get(f"{sandbox.url}/api/v1/tasks/1", headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401
    assert answer.headers["X-RateLimit-Remaining"] == "100"


def test_too_many_running_tasks_are_429_until_one_ends(
    session: requests.Session, moves: Moves
) -> None:
    with Sandbox(behaviour=Behaviour(max_running=3)) as sandbox:
        for url, headers in (
            (sandbox.url + PATHS[0].format(MODEL), MODELLIX),
            (sandbox.url + CREATE, APPYPIE),
        ):

            def create(url: str = url, headers: dict[str, str] = headers) -> int:
                return session.post(url, json=INPUTS, headers=headers).status_code

            moves.hold()
            assert [create() for _ in range(4)] == [200, 200, 200, 429]
            moves.release()
            wait_for(partial(answers, create, 200))


@pytest.mark.parametrize(
    ("scenario", "status", "place"),
    [
        ("plain-urls", "success", lambda data: data["result"]["resources"][0]),
        ("flat-resources", "success", lambda data: data["resources"][0]["url"]),
        ("synonyms", "completed", lambda data: data["result"]["resources"][0]["url"]),
    ],
)
def test_modellix_reports_a_success_in_each_known_form(
    sandbox: Sandbox, session: requests.Session, scenario: str, status: str, place: Any
) -> None:
    sandbox.next("modellix", scenario)
    session.headers.update(MODELLIX)
    created = session.post(sandbox.url + PATHS[1].format(MODEL), json=INPUTS).json()["data"]

    def told() -> Any:
        data = session.get(created["get_result"]["url"]).json()["data"]
        return data if data["status"] == status else None

    with Image.open(io.BytesIO(session.get(place(wait_for(told))).content)) as picture:
        picture.load()


def test_the_size_stated_by_modellix_is_that_of_the_picture(
    sandbox: Sandbox, session: requests.Session
) -> None:
    session.headers.update(MODELLIX)
    created = session.post(sandbox.url + PATHS[0].format(MODEL), json=INPUTS).json()["data"]

    def resources() -> Any:
        data = session.get(created["get_result"]["url"]).json()["data"]
        return data.get("result", {}).get("resources")

    (resource,) = wait_for(resources)
    with Image.open(io.BytesIO(session.get(resource["url"]).content)) as picture:
        assert picture.size == (resource["width"], resource["height"])


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/api/v1/nothing", 404, {"code": 404, "message": "Not Found: GET /api/v1/nothing"}),
        (
            "POST",
            "/api/v1/text-to-image/alibaba/qwen-image-plus/async",
            404,
            {
                "code": 404,
                "message": "Not Found: POST /api/v1/text-to-image/alibaba/qwen-image-plus/async",
            },
        ),
        (
            "DELETE",
            "/api/v1/tasks/1",
            405,
            {"code": 405, "message": "Method Not Allowed: DELETE /api/v1/tasks/1"},
        ),
        ("GET", CREATE, 405, {"error": "Method Not Allowed"}),
        ("POST", "/kling-ai-vton/v1/nothing", 404, {"error": "Not Found"}),
        ("POST", "/lumalabs-ai-polling/v1/nothing", 404, {"error": "Not Found"}),
    ],
)
def test_an_unknown_route_is_answered_in_the_providers_format(
    sandbox: Sandbox, session: requests.Session, method: str, path: str, status: int, says: Any
) -> None:
    answer = session.request(method, sandbox.url + path)
    assert (answer.status_code, answer.json()) == (status, says)


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


def test_a_call_that_only_the_header_shows_to_be_appypies_gets_its_error(
    sandbox: Sandbox, session: requests.Session
) -> None:
    answer = session.post(f"{sandbox.url}/flux-ai/v1/getTask", json={}, headers=APPYPIE)
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})


def test_appypie_accepts_the_names_of_its_table_and_its_documented_polling_url(
    sandbox: Sandbox, session: requests.Session
) -> None:
    session.headers.update(APPYPIE)
    body = {"human_image": INPUTS["human_image"], "image_tail": INPUTS["cloth_image"]}
    created = session.post(sandbox.url + CREATE, json=body).json()["data"]
    asked = {"task_id": created["task_id"]}
    polled = session.post(f"{sandbox.url}/lumalabs-ai-polling/v1/getStatus", json=asked).json()
    assert polled["data"]["task_id"] == created["task_id"]


def test_an_unknown_task_of_appypie_looks_failed_and_has_no_envelope(
    sandbox: Sandbox, session: requests.Session
) -> None:
    answer = session.post(sandbox.url + STATUS, json={"task_id": "1"}, headers=APPYPIE)
    assert answer.json() == {"task_status": "failed", "task_status_msg": "task not found"}


@pytest.mark.parametrize("body", [{}, {"task_id": ""}, {"task_id": 7}])
def test_a_status_request_without_a_task_id_is_refused(
    sandbox: Sandbox, session: requests.Session, body: Any
) -> None:
    answer = session.post(sandbox.url + STATUS, json=body, headers=APPYPIE)
    assert (answer.status_code, answer.json()) == (400, {"error": "task_id is required."})


def test_appypie_sends_unsigned_callbacks_in_klings_legacy_dialect(
    session: requests.Session, sink: Sink
) -> None:
    with Sandbox(behaviour=Behaviour(pace=0.05, webhook_secret=SECRET)) as sandbox:
        sandbox.next("appypie", "failed")
        body = {**INPUTS, "callback_url": sink.url}
        made = session.post(sandbox.url + CREATE, json=body, headers=APPYPIE).json()["data"]
        wait_for(lambda: len(sandbox.ledger.acknowledged(made["task_id"])) == 3)
    assert sink.statuses(made["task_id"]) == ["submitted", "processing", "failed"]
    assert all(told["task_info"] == {} for _, told in sink.received)
    assert not any(name.startswith("webhook-") for headers, _ in sink.received for name in headers)
    assert sink.received[-1][1]["task_status_msg"] == "Failure to pass the risk control system"


@pytest.mark.parametrize(
    ("headers", "body", "status", "says"),
    [
        ({}, INPUTS, 401, "missing"),
        ({"Ocp-Apim-Subscription-Key": "x"}, INPUTS, 403, "invalid"),
        (APPYPIE, {}, 400, "human_image is required"),
        (APPYPIE, {**INPUTS, "model_name": "x"}, 400, "model_name is not a parameter"),
        (APPYPIE, {**INPUTS, "cloth_image": None}, 400, "cloth_image is required"),
        (APPYPIE, {**INPUTS, "cloth_image": "", "image_tail": "x"}, 400, "image_tail is neither"),
        (APPYPIE, {**INPUTS, "callback_url": "ftp://a"}, 400, "callback_url"),
        (APPYPIE, {**INPUTS, "callback_url": "http://["}, 400, "callback_url"),
        (APPYPIE, {**INPUTS, "callback_url": 7}, 400, "callback_url must be a string"),
        (APPYPIE, {**INPUTS, "human_image": "data:,"}, 400, "human_image must be raw Base64"),
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


def test_a_task_is_not_visible_to_another_provider(
    sandbox: Sandbox, session: requests.Session
) -> None:
    created = session.post(sandbox.url + CREATE, json=INPUTS, headers=APPYPIE).json()["data"]
    other = session.get(f"{sandbox.url}/api/v1/tasks/{created['task_id']}", headers=MODELLIX)
    assert other.status_code == 404


def test_no_callbacks_are_sent_if_they_are_switched_off(
    session: requests.Session, sink: Sink
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
