"""What public clients of Kling's API send is answered, given nothing but another base URL."""

from __future__ import annotations

import io
import time
from typing import Any

import jwt
import pytest
import requests
from PIL import Image

from integration.sandbox.wire import INPUTS, TRY_ON, wait_for
from sandbox.kling_auth import ACCESS_KEY, SECRET_KEY
from sandbox.server import Sandbox


def like_kuaishous_own() -> dict[str, str]:
    """ComfyUI-KLingAI-API: nbf in the past, no iat, a content type also on GET."""
    now = int(time.time())
    claims = {"iss": ACCESS_KEY, "exp": now + 1800, "nbf": now - 5}
    token = jwt.encode(claims, SECRET_KEY, headers={"alg": "HS256", "typ": "JWT"})
    return {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}


def like_a_shops_own() -> dict[str, str]:
    """A habit of many: iat, nbf of this second, and an hour to live."""
    now = int(time.time())
    claims = {"iss": ACCESS_KEY, "iat": now, "nbf": now, "exp": now + 3600}
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET_KEY, algorithm='HS256')}"}


@pytest.mark.parametrize("client", [like_kuaishous_own, like_a_shops_own])
@pytest.mark.parametrize("slashes", ["/", "//"])  # its path ends in a slash, and it adds one
def test_create_poll_list_and_download(
    sandbox: Sandbox, session: requests.Session, client: Any, slashes: str
) -> None:
    session.headers.update(client())
    base = sandbox.url + TRY_ON
    body = {"model_name": "kolors-virtual-try-on-v1", **INPUTS, "external_task_id": "mine"}
    created = session.post(base, json=body, allow_redirects=False).json()["data"]

    def task(key: str) -> Any:
        answer = session.get(f"{base}{slashes}{key}", allow_redirects=False)
        assert answer.status_code == 200
        return answer.json()["data"]

    def ended() -> Any:
        found = task(created["task_id"])
        return found if found["task_status"] not in ("submitted", "processing") else None

    done = wait_for(ended)
    assert done["task_status"] == "succeed"
    assert task("mine")["task_id"] == created["task_id"]
    page = session.get(base, params={"pageNum": 1, "pageSize": 30}).json()["data"]
    assert [row["task_id"] for row in page] == [created["task_id"]]
    picture = session.get(done["task_result"]["images"][0]["url"]).content
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
