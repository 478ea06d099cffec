"""The sandbox's Kling API responds over HTTP as Kling does."""

from __future__ import annotations

import io
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from PIL import Image

from sandbox.server import Behaviour, Sandbox
from tests.support.patience import PATIENCE
from tests.support.sandbox_client import TRY_ON, Kling, Moves, wait_for

MONTH = 30 * 24 * 3600


def code(answer: Any) -> tuple[int, int]:
    return answer.status_code, answer.json()["code"]


def test_a_create_is_answered_in_the_envelope(kling: Kling) -> None:
    began_at = time.time_ns() // 1_000_000
    answer = kling.create(external_task_id="ORDER-7")
    document = answer.json()
    assert (answer.status_code, document["code"], document["message"]) == (200, 0, "SUCCEED")
    assert document["request_id"]
    data = document["data"]
    assert re.fullmatch(r"\d{18}", data["task_id"])
    assert int(data["task_id"]) > 2**53
    assert data["task_status"] == "submitted"
    assert data["task_info"] == {"external_task_id": "ORDER-7"}
    assert data["created_at"] == data["updated_at"]
    assert began_at <= data["created_at"] <= time.time_ns() // 1_000_000


def test_a_task_without_external_id_has_no_info(kling: Kling) -> None:
    assert "task_info" not in kling.created()


def test_the_picture_of_a_task_expires_after_30_days(kling: Kling) -> None:
    task_id = kling.created()["task_id"]
    done = kling.ended(task_id)
    assert (done["task_status"], done["task_status_msg"]) == ("succeed", "")
    assert done["final_unit_deduction"] == "1"
    (image,) = done["task_result"]["images"]
    assert image["index"] == 0
    expires = parse_qs(urlsplit(image["url"]).query)["Expires"]
    assert expires == [str(done["updated_at"] // 1000 + MONTH)]
    answer = kling.session.get(image["url"], timeout=PATIENCE)
    assert answer.headers["Content-Type"] == "image/png"
    Image.open(io.BytesIO(answer.content)).load()


@pytest.mark.parametrize("query", ["", "?Expires=1", "?Expires=never", "?Expires=%C2%B2"])
def test_a_picture_url_without_a_valid_expiry_is_not_found(kling: Kling, query: str) -> None:
    done = kling.ended(kling.created()["task_id"])
    path = done["task_result"]["images"][0]["url"].partition("?")[0]
    assert kling.session.get(path + query, timeout=PATIENCE).status_code == 404


def test_a_task_is_found_by_both_ids_and_with_two_slashes(kling: Kling) -> None:
    task_id = kling.created(external_task_id="ORDER-8")["task_id"]
    for path in (f"/{task_id}", f"//{task_id}", "/ORDER-8", "//ORDER-8"):
        answer = kling.call("GET", TRY_ON + path)
        assert answer.status_code == 200
        assert answer.json()["data"]["task_id"] == task_id


def test_a_processing_task_has_an_empty_result(session: Any) -> None:
    with Sandbox(pace=60) as slow:
        kling = Kling(slow.url, session)
        data = kling.query(kling.created()["task_id"])
    assert data["task_status"] == "submitted"
    assert (data["task_info"], data["task_result"], data["task_status_msg"]) == ({}, {}, "")


def test_the_list_is_newest_first_and_paged(kling: Kling) -> None:
    ids = [kling.created()["task_id"] for _ in range(5)]
    everything = kling.call("GET", TRY_ON).json()["data"]
    assert [task["task_id"] for task in everything] == ids[::-1]
    page = kling.call("GET", f"{TRY_ON}?pageNum=2&pageSize=2").json()["data"]
    assert [task["task_id"] for task in page] == [ids[2], ids[1]]
    assert kling.call("GET", f"{TRY_ON}?pageNum=4&pageSize=2").json()["data"] == []


@pytest.mark.parametrize(
    "query",
    [
        "pageNum=0",
        "pageNum=1001",
        "pageNum=x",
        "pageNum=",
        "pageNum=1.0",
        "pageNum=-1",
        "pageSize=0",
        "pageSize=501",
        "pageSize=%C2%B2",
        "pageSize=1" + "0" * 5000,
    ],
)
def test_a_page_out_of_range_is_1201_and_names_the_parameter(kling: Kling, query: str) -> None:
    answer = kling.call("GET", f"{TRY_ON}?{query}")
    assert code(answer) == (400, 1201)
    assert query.partition("=")[0] in answer.json()["message"]
    assert "data" not in answer.json()


@pytest.mark.parametrize("query", ["pageNum=1000", "pageSize=500", "pageSize=1"])
def test_the_limits_themselves_are_accepted(kling: Kling, query: str) -> None:
    assert kling.call("GET", f"{TRY_ON}?{query}").json()["code"] == 0


@pytest.mark.parametrize(
    ("fields", "status", "number", "named"),
    [
        ({"human_image": None}, 400, 1201, "human_image is required"),
        ({"cloth_image": ""}, 400, 1201, "cloth_image is required"),
        ({"human_image": 7}, 400, 1201, "human_image must be a string"),
        ({"cloth_image": "bm90IGEgcGljdHVyZQ=="}, 400, 1201, "cloth_image is not a JPEG"),
        ({"cloth_image": "data:image/png;base64,AA=="}, 400, 1201, "cloth_image must be raw"),
        ({"human_image": "http://10.0.0.1/a.png"}, 400, 1201, "human_image could not be fetched"),
        ({"model_name": "kolors-virtual-try-on-v9"}, 404, 1203, "model_name"),
        ({"model_name": 1}, 400, 1201, "model_name"),
        ({"callback_url": "ftp://x.example/"}, 400, 1201, "callback_url"),
        ({"callback_url": "/callbacks"}, 400, 1201, "callback_url"),
        ({"callback_url": "http://x.example:port/"}, 400, 1201, "callback_url"),
        ({"callback_url": "http://["}, 400, 1201, "callback_url"),
        ({"external_task_id": 7}, 400, 1201, "external_task_id"),
    ],
)
def test_an_invalid_field_is_refused_by_name(
    kling: Kling, fields: dict[str, Any], status: int, number: int, named: str
) -> None:
    answer = kling.create(**fields)
    assert code(answer) == (status, number)
    assert named in answer.json()["message"]
    assert kling.call("GET", TRY_ON).json()["data"] == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff"])
def test_a_body_that_is_not_an_object_is_1200(kling: Kling, body: bytes) -> None:
    answer = kling.post(body)
    assert code(answer) == (400, 1200)
    assert "must be a JSON object" in answer.json()["message"]


def test_another_content_type_is_1200(kling: Kling) -> None:
    answer = kling.post(b"{}", "text/plain")
    assert code(answer) == (400, 1200)
    assert "Content-Type" in answer.json()["message"]


def test_an_external_id_is_accepted_once(kling: Kling) -> None:
    kling.created(external_task_id="ORDER-9")
    answer = kling.create(external_task_id="ORDER-9")
    assert code(answer) == (400, 1201)
    assert "external_task_id 'ORDER-9' already exists" in answer.json()["message"]


def test_concurrent_creates_get_distinct_ids_and_one_gets_the_external_id(kling: Kling) -> None:
    with ThreadPoolExecutor(8) as pool:
        plain = list(pool.map(lambda _: kling.created()["task_id"], range(12)))
        racing = list(pool.map(lambda _: code(kling.create(external_task_id="SAME")), range(8)))
    assert len(set(plain)) == 12
    assert sorted(racing) == [(200, 0)] + [(400, 1201)] * 7


def test_the_sandbox_may_serve_the_inputs_itself(kling: Kling) -> None:
    own = f"{kling.url}/_sandbox/images"
    kling.created(human_image=f"{own}/person.jpg", cloth_image=f"{own}/garment.png")
    answer = kling.create(human_image=f"{own}/nobody.jpg")
    assert "human_image could not be fetched: HTTP 404" in answer.json()["message"]


def test_too_many_running_tasks_are_1303_until_one_ends(session: Any, moves: Moves) -> None:
    with Sandbox(behaviour=Behaviour(max_running=2)) as small:
        kling = Kling(small.url, session)
        first = kling.created()["task_id"]
        kling.created()
        assert code(kling.create()) == (429, 1303)
        moves.release()
        kling.ended(first)
        kling.created()


def test_wrong_keys_are_refused(kling: Kling) -> None:
    kling.authorization = "Bearer wrong"
    assert code(kling.create()) == (401, 1000)
    kling.authorization = None
    assert code(kling.call("GET", TRY_ON)) == (401, 1001)
    kling.authorization = "Token x"
    assert code(kling.call("GET", f"{TRY_ON}//1")) == (401, 1002)


def test_an_unknown_task_is_1203(kling: Kling) -> None:
    assert code(kling.call("GET", f"{TRY_ON}/123")) == (404, 1203)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_an_unsupported_method_is_1202(kling: Kling, method: str) -> None:
    assert code(kling.call(method, f"{TRY_ON}/1")) == (404, 1202)


def test_an_unknown_path_gets_the_frameworks_response_without_a_code(kling: Kling) -> None:
    answer = kling.call("GET", "/v1/image/generation")
    assert answer.status_code == 404
    document = answer.json()
    assert list(document) == ["timestamp", "status", "error", "message", "path"]
    assert (document["status"], document["path"]) == (404, "/v1/image/generation")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/videos/text2video"),
        ("GET", "/v1/videos/image2video/1"),
        ("POST", "/v1/images/editing/expand"),
        ("GET", "/account/costs?start_time=1&end_time=2"),
    ],
)
def test_a_documented_call_that_the_sandbox_does_not_support_is_1202(
    kling: Kling, method: str, path: str
) -> None:
    answer = kling.call(method, path, json={})
    assert code(answer) == (404, 1202)
    expected = f"the sandbox does not support {method} {path.partition('?')[0]}"
    assert answer.json()["message"] == expected


def test_a_path_outside_of_every_api_answers_the_framework_but_a_page_in_a_browser(
    kling: Kling,
) -> None:
    assert kling.call("GET", "/v2/anything").json()["path"] == "/v2/anything"
    answer = kling.call("GET", "/v2/anything", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["Content-Type"][:9]) == (404, "text/html")


GENERATION = "/v1/images/generations"


def test_images_are_generated_apart_from_try_ons(kling: Kling) -> None:
    body = {"model_name": "kling-v2", "prompt": "A red coat", "n": 3}
    created = kling.call("POST", GENERATION, json=body).json()["data"]
    task_id = created["task_id"]
    assert kling.call("GET", f"{TRY_ON}/{task_id}").json()["code"] == 1203
    assert kling.call("GET", TRY_ON).json()["data"] == []

    def ended() -> Any:
        data = kling.call("GET", f"{GENERATION}/{task_id}").json()["data"]
        return data if data["task_status"] == "succeed" else None

    images = wait_for(ended)["task_result"]["images"]
    assert [image["index"] for image in images] == [0, 1, 2]
    assert len({image["url"] for image in images}) == 3
    for image in images:
        assert kling.session.get(image["url"]).headers["Content-Type"] == "image/png"
    assert [row["task_id"] for row in kling.call("GET", GENERATION).json()["data"]] == [task_id]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": None}, 1201),
        ({"prompt": "x" * 2_501}, 1201),
        ({"n": 0}, 1201),
        ({"n": True}, 1201),
        ({"image": "not a picture"}, 1201),
        ({"model_name": "kolors-virtual-try-on-v1"}, 1203),
    ],
)
def test_a_wrong_generation_is_refused(kling: Kling, fields: dict[str, Any], expected: int) -> None:
    body = {"prompt": "A red coat", **fields}
    assert kling.call("POST", GENERATION, json=body).json()["code"] == expected


def test_a_picture_on_another_private_host_is_fetched_only_with_allow_private(
    sandbox: Sandbox, session: requests.Session
) -> None:
    picture = f"{sandbox.url}/_sandbox/images/person.jpg"
    with Sandbox(behaviour=Behaviour(allow_private=True)) as other:
        assert Kling(other.url, session).create(human_image=picture).json()["code"] == 0
    with Sandbox() as other:
        refusal = Kling(other.url, session).create(human_image=picture).json()
    assert refusal["code"] == 1201
    assert refusal["message"] == (
        "human_image could not be fetched: its host has no public address; start the sandbox "
        "with `sandbox serve --allow-private` to fetch it"
    )


def test_a_request_above_32_mb_is_cut_off(kling: Kling) -> None:
    answer = kling.post(b" " * (33 * 1024 * 1024))
    assert answer.status_code == 413
    assert "code" not in answer.json()
