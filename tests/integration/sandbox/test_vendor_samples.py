"""The samples on the vendors' pages run against a sandbox when only the host and key change."""

from __future__ import annotations

import io
from typing import Any

import pytest
import requests
from PIL import Image

from sandbox.providers import appypie, kling_auth, modellix
from sandbox.server import Sandbox
from tests.support.sandbox_client import wait_for

# Kling API reference, "Virtual Try-On". `<token>` is the reader's.
KLING = """\
POST https://api-singapore.klingai.com/v1/images/kolors-virtual-try-on
Authorization: Bearer <token>
Content-Type: application/json

{
    "model_name": "kolors-virtual-try-on-v1-5",
    "human_image": "https://p1-kling.klingai.com/kcdn/cdn-kcdn112452/kling-qa-test/tryon-human.webp",
    "cloth_image": "https://p1-kling.klingai.com/kcdn/cdn-kcdn112452/kling-qa-test/suite.webp",
    "callback_url": "",
    "external_task_id": ""
}"""
KLING_QUERY = """\
GET https://api-singapore.klingai.com/v1/images/kolors-virtual-try-on/{task_id}
Authorization: Bearer <token>
Content-Type: application/json

"""
KLING_LIST = """\
GET https://api-singapore.klingai.com/v1/images/kolors-virtual-try-on?pageNum=1&pageSize=30
Authorization: Bearer <token>
Content-Type: application/json

"""
# Modellix documentation, "kolors-virtual-try-on-v1-5" and "-v1", and the form of newer pages.
MODELLIX = """\
POST https://api.modellix.ai/api/v1/{form}
Authorization: Bearer <token>
Content-Type: application/json

{{
  "human_image": "https://example.com/model.jpg",
  "cloth_image": "https://example.com/dress.jpg"
}}
"""
MODELLIX_QUERY = """\
GET https://api.modellix.ai/api/v1/tasks/{task_id}
Authorization: Bearer <token>

"""
# Appy Pie, "Virtual Try-On API Documentation". Its table names the garment `image_tail`.
APPYPIE = """\
POST https://gateway.appypie.com/kling-ai-vton/v1/getVirtualTryOnTask
Content-Type: application/json
Cache-Control: no-cache
Ocp-Apim-Subscription-Key: YOUR_SUBSCRIPTION_KEY

{
    "human_image": "https://pub-582b7213209642b9b995c96c95a30381.r2.dev/vt_human.jpg",
    "cloth_image": "https://pub-582b7213209642b9b995c96c95a30381.r2.dev/vt_top.jpeg",
    "callback_url": ""
}
"""
APPYPIE_TABLE = APPYPIE.replace("cloth_image", "image_tail").replace(
    "https://pub-582b7213209642b9b995c96c95a30381.r2.dev/vt_human.jpg",
    "https://storage.googleapis.com/imagesai.appypie.com/testing/00034_00.jpg",
)
APPYPIE_QUERY = """\
POST https://gateway.appypie.com/{path}
Content-Type: application/json
Cache-Control: no-cache
Ocp-Apim-Subscription-Key: YOUR_SUBSCRIPTION_KEY

{{"task_id": "{task_id}"}}
"""
KEYS = {
    "api-singapore.klingai.com": ("<token>", kling_auth.API_KEY),
    "api.modellix.ai": ("<token>", modellix.API_KEY),
    "gateway.appypie.com": ("YOUR_SUBSCRIPTION_KEY", appypie.SUBSCRIPTION_KEY),
}


def send(sandbox: Sandbox, session: requests.Session, sample: str) -> Any:
    """Send the sample to the sandbox with the sandbox's key; return the JSON of the response."""
    head, _, body = sample.partition("\n\n")
    request_line, *lines = head.splitlines()
    method, _, url = request_line.partition(" ")
    host = url.split("/")[2]
    placeholder, key = KEYS[host]
    headers = dict(line.replace(placeholder, key).split(": ", 1) for line in lines)
    url = url.replace(f"https://{host}", sandbox.url)
    response = session.request(method, url, data=body.strip() or None, headers=headers)
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["code"] == 0
    return document["data"]


def the_picture(session: requests.Session, url: str) -> None:
    with Image.open(io.BytesIO(session.get(url).content)) as picture:
        picture.load()


def test_klings_samples_create_query_and_list(sandbox: Sandbox, session: requests.Session) -> None:
    created = send(sandbox, session, KLING)
    query = KLING_QUERY.format(**created)

    def ended() -> Any:
        task = send(sandbox, session, query)
        return task if task["task_status"] == "succeed" else None

    the_picture(session, wait_for(ended)["task_result"]["images"][0]["url"])
    (listed,) = send(sandbox, session, KLING_LIST)
    assert listed["task_id"] == created["task_id"]


@pytest.mark.parametrize(
    "form",
    [
        "image-to-image/kling/kolors-virtual-try-on-v1-5/async",
        "image-to-image/kling/kolors-virtual-try-on-v1/async",
        "kling/kolors-virtual-try-on-v1-5/async",
        "kling/kolors-virtual-try-on-v1-5",
    ],
)
def test_modellix_samples_create_and_query(
    sandbox: Sandbox, session: requests.Session, form: str
) -> None:
    query = MODELLIX_QUERY.format(**send(sandbox, session, MODELLIX.format(form=form)))

    def ended() -> Any:
        task = send(sandbox, session, query)
        return task if task["status"] == "success" else None

    the_picture(session, wait_for(ended)["result"]["resources"][0]["url"])


@pytest.mark.parametrize("sample", [APPYPIE, APPYPIE_TABLE], ids=["sample", "table"])
@pytest.mark.parametrize(
    "path", ["kling-ai-polling/v1/getVirtualTryOnStatus", "lumalabs-ai-polling/v1/getStatus"]
)
def test_appypies_samples_create_and_query(
    sandbox: Sandbox, session: requests.Session, sample: str, path: str
) -> None:
    query = APPYPIE_QUERY.format(path=path, **send(sandbox, session, sample))

    def ended() -> Any:
        task = send(sandbox, session, query)
        return task if task["task_status"] == "succeed" else None

    the_picture(session, wait_for(ended)["task_result"]["images"][0]["url"])
