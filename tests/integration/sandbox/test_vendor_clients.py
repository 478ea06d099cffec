"""Unmodified clients from the package indexes create, poll and download at a sandbox.

Only the host is changed: by the client's own setting, or else where it connects.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from sandbox.callback_sender import Persistence
from sandbox.providers import modellix
from sandbox.providers.kling_auth import ACCESS_KEY, SECRET_KEY
from sandbox.server import Behaviour, Sandbox
from tests.support import vendor_clients
from tests.support.clean_venv import ROOT
from tests.support.patience import PATIENCE
from tests.support.sandbox_client import INPUTS, wait_for
from tests.support.tls_front import tls_front

KLING_HOST, MODELLIX_HOST = "api-singapore.klingai.com", "api.modellix.ai"
MODEL = "kolors-virtual-try-on-v1-5"
OPENTRYON = """
import sys
from tryon.api.kling_ai import KlingAIVTONAdapter

person, garment, result = sys.argv[1:]
adapter = KlingAIVTONAdapter()
(image,) = adapter.generate_and_decode(person, garment, model="kolors-virtual-try-on-v1-5")
image.save(result)
"""


def sandbox_at(url: str | None = None) -> Sandbox:
    persistence = Persistence(retries=0, retry_after=0.02, timeout=PATIENCE)
    return Sandbox(behaviour=Behaviour(0.05, persistence=persistence, url=url))


def run(command: list[str], folder: Path, **variables: str) -> str:
    """Return what a client prints; it must end with status 0. It sees no setting of ours."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        **variables,
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sample(name: str) -> str:
    return str(resources.files("sandbox") / "images" / name)


def node(folder: Path, package: str, script: str) -> list[str]:
    preload = ROOT / "tests/support/node/vendor_host.cjs"
    return ["node", "--require", str(preload), str(folder / "node_modules" / package / script)]


@pytest.fixture
def at_the_vendors_host(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Start a sandbox whose URL is that of the vendor; yield the variables that lead there."""
    host: str = request.param
    with sandbox_at(f"https://{host}") as sandbox, tls_front(sandbox.port) as port:
        yield {
            "VENDOR_HOST": host,
            "VENDOR_PORT": str(port),
            "NODE_TLS_REJECT_UNAUTHORIZED": "0",  # the tests' certificate is for another name
        }


def test_opentryon(tmp_path: Path) -> None:
    folder = vendor_clients.find_or_skip("opentryon")
    with sandbox_at() as sandbox:
        run(
            [sys.executable, "-c", OPENTRYON, sample("person.jpg"), sample("garment.png"), "r.png"],
            tmp_path,
            PYTHONPATH=str(folder),
            KLING_AI_API_KEY=ACCESS_KEY,
            KLING_AI_SECRET_KEY=SECRET_KEY,
            KLING_AI_BASE_URL=sandbox.url,
        )
    with Image.open(tmp_path / "r.png") as picture:
        picture.load()


@pytest.mark.parametrize("at_the_vendors_host", [KLING_HOST], indirect=True)
def test_kling_api(at_the_vendors_host: dict[str, str], tmp_path: Path) -> None:
    """Its command line generates an image; it has no command for try-on."""
    client = node(vendor_clients.find_or_skip("kling-api"), "kling-api", "dist/cli.js")
    generate = ["--output-dir", "out", "image", "generate", "--prompt", "A red coat", "--wait"]
    keys = {"KLING_ACCESS_KEY": ACCESS_KEY, "KLING_SECRET_KEY": SECRET_KEY}
    run([*client, *generate], tmp_path, **keys, **at_the_vendors_host)
    (saved,) = (tmp_path / "out").rglob("*.png")
    with Image.open(saved) as picture:
        picture.load()


@pytest.mark.parametrize("at_the_vendors_host", [MODELLIX_HOST], indirect=True)
def test_modellix_command_line_0_0_5(at_the_vendors_host: dict[str, str], tmp_path: Path) -> None:
    folder = vendor_clients.find_or_skip("modellix-cli 0.0.5")
    client = node(folder, "modellix-cli", "bin/run.js")
    variables = {"MODELLIX_API_KEY": modellix.API_KEY, **at_the_vendors_host}
    (tmp_path / "body.json").write_text(json.dumps(INPUTS))
    model = ["--model-type", "image-to-image", "--model-slug", f"kling/{MODEL}"]
    invoke = ["model", "invoke", *model, "--body-file", "body.json"]
    task_id = json.loads(run([*client, *invoke], tmp_path, **variables))["data"]["task_id"]

    def ended() -> Any:
        data = json.loads(run([*client, "task", "get", task_id], tmp_path, **variables))["data"]
        return data if data["status"] == "success" else None

    url = wait_for(ended)["result"]["resources"][0]["url"]
    here = url.replace(f"https://{MODELLIX_HOST}", f"https://127.0.0.1:{variables['VENDOR_PORT']}")
    picture = requests.get(here, timeout=PATIENCE, verify=str(ROOT / "tests/data/tls/cert.pem"))
    assert picture.headers["Content-Type"] == "image/png"


def test_modellix_command_line_0_0_7(tmp_path: Path) -> None:
    folder = vendor_clients.find_or_skip("modellix-cli 0.0.7")
    client = ["node", str(folder / "node_modules/modellix-cli/bin/run.js")]
    (tmp_path / "body.json").write_text(json.dumps(INPUTS))
    with sandbox_at() as sandbox:

        def call(*arguments: str) -> str:
            key, url = modellix.API_KEY, sandbox.url
            return run([*client, *arguments], tmp_path, MODELLIX_API_KEY=key, MODELLIX_BASE_URL=url)

        assert json.loads(call("doctor", "--json"))["ok"]
        assert f"kling/{MODEL}" in call("model", "list", "--output", "slugs").split()
        create = ("model", "run", "--model-slug", f"kling/{MODEL}", "--body-file", "body.json")
        done = json.loads(call(*create, "--wait", "--interval", "1s"))
        assert done["data"]["status"] == "success"
        options = ("--allow-insecure-http", "--allow-private-network", "--quiet")
        (saved,) = call("task", "download", done["data"]["task_id"], *options).split()
    with Image.open(saved) as picture:
        picture.load()


# What the command lines require of responses: Modellix/modellix-cli, src/lib/modellix-client.ts and
# task.ts, at 7dbd451 (the model's type in the path) and at 0375e55 (0.0.7). Where the index does
# not have the command lines, only this test covers them.
SAFE_ID = re.compile(r"[A-Za-z0-9._:-]+")
ENDED = {"completed", "succeeded", "success"}


@pytest.mark.parametrize(
    "path", [f"image-to-image/kling/{MODEL}/async", f"kling/{MODEL}/async", f"kling/{MODEL}"]
)
def test_what_modellix_command_lines_require_of_responses(path: str) -> None:
    with sandbox_at() as sandbox, requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {modellix.API_KEY}"

        def call(method: str, path: str, **options: Any) -> Any:
            url = f"{sandbox.url}/api/v1/{path}"
            response = session.request(method, url, timeout=PATIENCE, **options)
            assert 200 <= response.status_code < 300, response.text
            return response.json()

        task_id = call("POST", path, json=INPUTS)["data"]["task_id"]
        assert SAFE_ID.fullmatch(task_id)

        def ended() -> Any:
            data = call("GET", f"tasks/{task_id}")["data"]
            assert data["task_id"] == task_id
            return data if data["status"].lower() in ENDED else None

        for resource in wait_for(ended)["result"]["resources"]:
            assert session.get(resource["url"], timeout=PATIENCE).ok
        assert call("GET", "apikey/validate")["data"]["is_valid"] is True
        assert isinstance(call("GET", "team/balance")["data"]["balance"], float)
        assert all(isinstance(one["slug"], str) for one in call("GET", "models")["models"])
        assert call("GET", f"models/kling/{MODEL}")["data"]["slug"] == f"kling/{MODEL}"
