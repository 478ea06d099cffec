"""Public clients of Kling's API work with the sandbox when only the base URL is changed."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
import requests
from PIL import Image

from sandbox.providers.kling_auth import ACCESS_KEY, API_KEY, SECRET_KEY
from sandbox.server import Sandbox
from tests.support.patience import PATIENCE
from tests.support.sandbox_client import INPUTS, TRY_ON, wait_for


def signed(headers: dict[str, str] | None = None, **claims: int) -> str:
    return jwt.encode({"iss": ACCESS_KEY, **claims}, SECRET_KEY, "HS256", headers)


# KwaiVGI/ComfyUI-KLingAI-API (Kuaishou's own), py/api/client.py and prediction.py at 1f72abe: no
# iat, a content type even for GET, and a try-on path that ends in two slashes. It follows no
# redirect, treats any status except 200 as an error, and requires `data` in every response.
def kuaishous_own() -> dict[str, str]:
    now = int(time.time())
    token = signed({"alg": "HS256", "typ": "JWT"}, exp=now + 1800, nbf=now - 5)
    return {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}


# zhaochen1116/Closetly, backend-api/utils/kling_client.py at b71e821: an iat, an nbf of the current
# second, a lifetime of an hour, a new token for each request, and no fields except the two
# pictures.
def closetly() -> dict[str, str]:
    now = int(time.time())
    return {"Authorization": f"Bearer {signed(iat=now, nbf=now, exp=now + 3600)}"}


# tryonlabs/opentryon, tryon/api/kling_ai.py at ee7ea66: the model in a field `model`, the callback
# URL in `webhook_url`; Kling ignores both and accepts the request.
def opentryon() -> dict[str, str]:
    return kuaishous_own()


# Since June 2026, an account may have a static key, which a client sends unchanged.
def with_a_static_key() -> dict[str, str]:
    return {"Authorization": f"Bearer {API_KEY}"}


@dataclass
class Client:
    """The requests of a client."""

    headers: Callable[[], dict[str, str]]
    separator: str = "/"  # between the path and an id
    fields: dict[str, Any] = field(default_factory=dict)

    def call(self, sandbox: Sandbox, method: str, path: str = "", **options: Any) -> Any:
        url = sandbox.url + TRY_ON + path
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                method,
                url,
                headers=self.headers(),
                timeout=PATIENCE,
                allow_redirects=False,
                **options,
            )
        assert answer.status_code == 200, answer.text
        assert answer.json()["code"] == 0
        return answer.json()["data"]

    def create(self, sandbox: Sandbox) -> Any:
        return self.call(sandbox, "POST", json={**INPUTS, **self.fields})

    def query(self, sandbox: Sandbox, key: str) -> Any:
        return self.call(sandbox, "GET", self.separator + key)


MODEL = "kolors-virtual-try-on-v1-5"
CLIENTS = [
    Client(kuaishous_own, "//", {"model_name": MODEL, "external_task_id": "mine"}),
    Client(closetly),
    Client(opentryon, fields={"model": MODEL, "webhook_url": "https://shop.example/"}),
    Client(with_a_static_key, fields={"model_name": MODEL, "external_task_id": "mine"}),
]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.headers.__name__)
def test_create_poll_list_and_download(sandbox: Sandbox, client: Client) -> None:
    created = client.create(sandbox)
    assert created["task_status"] == "submitted"
    task_id = created["task_id"]

    def ended() -> Any:
        found = client.query(sandbox, task_id)
        return found if found["task_status"] not in ("submitted", "processing") else None

    done = wait_for(ended)
    assert (done["task_id"], done["task_status"]) == (task_id, "succeed")
    if "external_task_id" in client.fields:
        assert client.query(sandbox, "mine")["task_id"] == task_id
    page = client.call(sandbox, "GET", params={"pageNum": 1, "pageSize": 30})
    assert [row["task_id"] for row in page] == [task_id]
    picture = requests.get(done["task_result"]["images"][0]["url"], timeout=PATIENCE).content
    with Image.open(io.BytesIO(picture)) as image:
        image.load()


def test_the_list_is_paged_newest_first(sandbox: Sandbox) -> None:
    client = CLIENTS[1]
    made = [client.create(sandbox)["task_id"] for _ in range(5)]
    pages = [
        [row["task_id"] for row in client.call(sandbox, "GET", params=params)]
        for params in ({"pageNum": number, "pageSize": 2} for number in (1, 2, 3, 4))
    ]
    assert pages == [made[:2:-1], made[2:0:-1], made[:1], []]
