"""`/openapi.json` describes every route, and each route responds as described to any request."""

from __future__ import annotations

import io
import json
import re
import shlex
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import receiver.web
from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.deliveries import Attempt, File, State
from receiver.delivery.attempt import DeliveryWorker
from receiver.ingest import Ingest
from receiver.serializers.route_spec import of
from receiver.signing.callback_urls import mint
from receiver.signing.standard_webhooks import sign
from receiver.stores.base import Store
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from receiver.web import problems
from receiver.web.openapi import openapi
from submitter import api
from submitter.client import Client, Patience
from submitter.providers import Provider
from submitter.providers.kling import ApiKey, Kling
from tests.support.applications import applications
from tests.support.attempts import current_notice
from tests.support.generated_requests import WEBHOOK_SECRET
from tests.support.samples import SECRET, body, callback, subscription
from tests.support.scripted_provider import Scripted, serving

TOKEN = "a-token-for-the-tests"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
NOW = 1_765_519_851_000
FILE = File("0", "/data/0.png", "ab" * 32, 70, "image/png")


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with serving() as scripted:
        scripted.will(scripted.task())
        yield scripted


def picture(kind: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (300, 300), "white").save(content, kind)
    return content.getvalue()


# No schema can describe which Base64 is a picture.
PICTURES = st.sampled_from(("PNG", "JPEG")).map(lambda kind: b64encode(picture(kind)).decode())
schemathesis.openapi.format("picture", PICTURES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openapi")


@pytest.fixture(scope="module")
def record(folder: Path) -> Iterator[SqliteStore]:
    """A task with a history, and deliveries in several states."""
    made = SqliteStore(folder / "receiver.db")
    made.migrate()
    ingest = Ingest(made, [subscription("mail"), subscription("pictures")])
    made.inbox.create_task(Task("open", "kling", Status.CREATED, NOW, NOW, reference="é"))
    for task in ("task-1", "task-2"):
        ingest.accept(callback(body("processing"), task, headers={"X-Name": "value"}))
        ingest.accept(callback(body("succeed"), task))
    made.inbox.quarantine(callback(b"{}", "task-1"), "not the protocol")
    first, second, *_ = made.outbox.claim("w", NOW + 10_000, NOW + 20_000, 4)
    made.outbox.settle(
        first, Attempt(1, NOW, NOW, "delivered", "ok"), State.DELIVERED, None, [FILE]
    )
    made.outbox.settle(second, Attempt(1, NOW, NOW, "failed", "no"), State.DEAD, None)
    made.activity.heartbeat("w", "worker", now_ms())
    yield made
    made.close()


@pytest.fixture(scope="module")
def described(record: SqliteStore, folder: Path, server: Scripted) -> Iterator[Flask]:
    """The application that wsgi.py creates, with a provider that accepts everything."""
    for error, status in api.STATUS.items():
        problems.register(error, status)

    def opens(*_: Any) -> Provider:
        quick = Patience(delays=(), total=5)
        return Kling(Client(server.url, patient=quick, brisk=quick), ApiKey("key"))

    record.check_schema()
    (folder / "hooks.toml").write_text("")
    url = f"sqlite:///{folder / 'receiver.db'}"
    chosen = Settings(url, (SECRET,), hooks_file=folder / "hooks.toml", api_token=TOKEN)
    with applications() as make:
        app = make(chosen, (lambda ingest, given: api.blueprint(ingest, given, opens),))
        app.config["TESTING"] = True
        app.extensions["live"].close()  # so that streams and waits end immediately
        yield app


@pytest.fixture(scope="module")
def client(described: Flask) -> FlaskClient:
    return described.test_client()


@pytest.fixture(scope="module")
def document(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").get_json()
    return found


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_every_route_and_method_except_those_of_the_dashboard_is_documented(
    described: Flask, document: dict[str, Any]
) -> None:
    served = {
        (re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in described.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule != "/" and not rule.rule.startswith(("/dashboard", "/static/"))
    }
    documented = {(path, method) for path, item in document["paths"].items() for method in item}
    assert documented == served
    assert {("/api/tasks", "post"), ("/callbacks/{provider}", "post")} <= documented
    assert not any("dashboard" in path for path, _ in documented)


def test_the_document_lists_its_servers_and_the_api_first(
    described: Flask, document: dict[str, Any]
) -> None:
    assert [server["url"] for server in document["servers"]] == ["/"]
    with described.app_context():
        public = openapi(described, "https://hooks.shop.example")
    assert [one["url"] for one in public["servers"]] == ["https://hooks.shop.example", "/"]
    tags = [tag["name"] for tag in document["tags"]]
    assert tags[:3] == ["Tasks", "Deliveries", "Messages"]
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["tags"][0] in tags
            assert operation["summary"]


def test_the_headers_of_signed_requests_are_documented(document: dict[str, Any]) -> None:
    names = ["webhook-id", "webhook-timestamp", "webhook-signature"]

    def headers(operation: Any) -> list[str]:
        found = [one for one in operation["parameters"] if one["in"] == "header"]
        assert all(one["required"] and one["schema"]["pattern"] for one in found)
        return [one["name"] for one in found]

    for method in ("get", "post"):
        assert headers(document["paths"]["/callbacks/{provider}"][method]) == names
        assert headers(document["paths"]["/callbacks/{provider}/{task_id}/{token}"][method]) == []
    assert headers(document["webhooks"]["event"]["post"]) == names
    signed_at = str(NOW // 1000)
    sent = {
        "webhook-id": "task-1:succeeded",
        "webhook-timestamp": signed_at,
        "webhook-signature": sign(WEBHOOK_SECRET, "task-1:succeeded", signed_at, b"{}"),
    }
    for one in document["webhooks"]["event"]["post"]["parameters"]:
        assert re.search(one["schema"]["pattern"], sent[one["name"]]), one["name"]


def test_every_operation_has_an_example_with_curl(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            (example,) = operation["x-codeSamples"]
            assert example["lang"] == "Shell"
            words = shlex.split(example["source"])
            assert (words[0], urlsplit(words[1]).scheme) == ("curl", "http")
            shown = re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), path)
            assert urlsplit(words[1]).path == shown
            assert ("Authorization: Bearer $API_TOKEN" in words) is ("security" in operation)
            body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
            assert (body is not None) is ("requestBody" in operation)
            assert (body is not None or "-X" in words) is (method == "post")


def test_the_examples_are_accepted(client: FlaskClient, document: dict[str, Any]) -> None:
    for path in ("/api/tasks", "/api/deliveries", "/api/deliveries/redeliver"):
        for method, operation in document["paths"][path].items():
            words = shlex.split(operation["x-codeSamples"][0]["source"])
            parts = urlsplit(words[1])
            body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
            url = f"{parts.path}?{parts.query}"
            answer = client.open(url, method=method.upper(), headers=AUTH, json=body)
            assert answer.status_code < 300, (method, path, answer.text)


def test_the_routes_for_programs_are_documented_in_full(described: Flask) -> None:
    silent = {
        rule.rule
        for rule in described.url_map.iter_rules()
        if of(described.view_functions[rule.endpoint]) is None
    }
    machines = ("/api", "/callbacks", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")
    assert [rule for rule in silent if rule.startswith(machines)] == []


def test_protected_routes_say_so(described: Flask, document: dict[str, Any]) -> None:
    client = described.test_client()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            real = re.sub(r"\{\w*_id\}", "1", path).replace("{provider}", "kling")
            status = client.open(real, method=method.upper()).status_code
            assert (status == 401) is ("security" in operation), path


def strictly(document: dict[str, Any], name: str) -> Draft202012Validator:
    """Return a validator that accepts no undocumented member."""
    text = json.dumps(document["components"]).replace(
        '"additionalProperties": true', '"additionalProperties": false'
    )
    schemas = json.loads(text.replace("#/components/schemas/", "#/$defs/"))["schemas"]
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schemas})


ANSWERS = [
    ("get", "/api/tasks", None, 200, "Tasks"),
    ("get", "/api/tasks/task-1", None, 200, "History"),
    ("get", "/api/deliveries", None, 200, "Deliveries"),
    ("post", "/api/deliveries/redeliver", {"dry_run": True}, 200, "Redelivery"),
    ("post", "/api/deliveries/redeliver", {"hok": 1}, 422, "Problem"),
    ("post", "/api/tasks", {"provider": "kling"}, 422, "Problem"),
    ("get", "/healthz", None, 200, "Alive"),
    ("get", "/readyz", None, 200, "Ready"),
]


@pytest.mark.parametrize(("method", "path", "sent", "status", "name"), ANSWERS)
def test_a_response_has_exactly_the_documented_members(
    client: FlaskClient, document: dict[str, Any], method: str, path: str, sent: Any,
    status: int, name: str,
) -> None:  # fmt: skip
    answer = getattr(client, method)(path, headers=AUTH, json=sent)
    assert answer.status_code == status
    found = list(strictly(document, name).iter_errors(answer.get_json()))
    assert found == []


def test_a_task_with_a_history_has_every_documented_member(client: FlaskClient) -> None:
    found = client.get("/api/tasks/task-1", headers=AUTH).get_json()
    assert found["transitions"]
    assert found["callbacks"]
    assert any(delivery["files"] and delivery["answers"] for delivery in found["deliveries"])


def test_a_created_task_matches_its_schema(client: FlaskClient, document: dict[str, Any]) -> None:
    wanted = {"provider": "kling", "human": "https://x.example/h", "cloth": "https://x.example/c"}
    answer = client.post("/api/tasks", headers=AUTH, json=wanted)
    assert answer.status_code == 201
    assert list(strictly(document, "TaskWithMedia").iter_errors(answer.get_json())) == []
    assert answer.headers["Location"] == f"/api/tasks/{answer.get_json()['id']}"


def test_an_event_matches_its_schema(document: dict[str, Any], record: Store) -> None:
    for delivery in record.lists.deliveries():
        event = current_notice(DeliveryWorker(record, {}), delivery).as_json()
        assert event["media"]
        assert list(strictly(document, "Event").iter_errors(event)) == []


def test_the_page_loads_everything_from_this_server(client: FlaskClient) -> None:
    answer = client.get("/docs")
    page = answer.get_data(as_text=True)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert not re.search(r"https?:", policy + page)
    assert not re.search(r"<script>|\bon\w+=|style=", page)
    loaded = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert len(loaded) == 4
    for path in loaded:
        with client.get(path) as file:
            assert (file.status_code, bool(file.data)) == (200, True)
            assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert "cdn.redoc.ly" not in (STATIC / "redoc" / "redoc.standalone.js").read_text()
    for name in ("LICENSE.txt", "redoc.standalone.js.LICENSE.txt", "README.txt"):
        assert (STATIC / "redoc" / name).stat().st_size > 100


# -- any request

STATIC = Path(receiver.web.__file__).parent / "static" / "docs"
CHECKS: list[CheckFunction] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 15  # for each operation in each mode
STATUSES = ("submitted", "processing", "succeed", "succeeded", "failed")
PARTS = 4  # groups of operations, which several processes can test at the same time


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_is_sent_is_answered_as_told(
    described: Flask, mode: GenerationMode, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A valid request is accepted, and an invalid one is rejected."""
    load_all_checks()
    monkeypatch.setattr("submitter.pictures.images.fetch", lambda *_, **__: picture("PNG"))
    schema = schemathesis.openapi.from_wsgi("/openapi.json", described)
    tried: set[str] = set()

    def tell(operation: APIOperation[Any, Any, Any, Any]) -> None:
        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,  # the same requests each time
            phases=[Phase.explicit, Phase.generate],  # shrinking a failing example takes minutes
            suppress_health_check=list(HealthCheck),
        )
        def try_out(case: Any) -> None:
            tried.add(operation.label)
            answered_as_told(case, mode)

        try_out()

    results = list(schema.get_all_operations())
    operations = [found.ok() for found in results if isinstance(found, Ok)]
    assert len(operations) == len(results)
    if mode is GenerationMode.NEGATIVE:
        operations = [operation for operation in operations if can_be_wrong(operation)]
    operations = operations[part::PARTS]
    for operation in operations:
        with suppress(Unsatisfiable):  # a route without parameters has no invalid requests
            tell(operation)
    labels = {operation.label for operation in operations}
    expected = labels if mode is GenerationMode.POSITIVE else labels & {"POST /api/tasks"}
    assert expected <= tried <= labels


def can_be_wrong(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    """Return whether the route has parameters other than path texts, which are always valid."""
    definition = operation.definition.raw
    parameters = definition.get("parameters", [])
    return "requestBody" in definition or any(
        parameter["in"] != "path" or parameter["schema"].get("type") != "string"
        for parameter in parameters
    )


def answered_as_told(case: Any, mode: GenerationMode) -> None:
    if "{token}" in case.path and case.path_parameters:  # with the token, so that bodies are read
        case.path_parameters |= {"provider": "kling", "task_id": "t"}
        case.path_parameters["token"] = mint(SECRET, "kling", "t")
    for name, value in (case.path_parameters or {}).items():
        if isinstance(value, int) and mode is GenerationMode.POSITIVE:
            case.path_parameters[name] = value % 6  # for something that exists
    answer = case.call(headers=AUTH)
    assert answer.status_code != 500
    parts = case.meta.components.items()
    wrong = {where.value for where, part in parts if part.mode is GenerationMode.NEGATIVE}
    if not all(map(has_value, (case.query or {}).values())):
        wrong.discard("query")  # what is wrong with it may not have been sent
    is_callback = "{token}" in case.path
    rejected = [negative_data_rejection] if wrong & {"body", "query"} and not is_callback else []
    if mode is GenerationMode.POSITIVE:
        rejected = [positive_data_acceptance]
    case.validate_response(answer, checks=[*CHECKS, *rejected])
    if is_callback and case.method == "POST" and answer.status_code == HTTPStatus.OK:
        assert tells_identity_and_status(case.body), case.body


def has_value(parameter: object) -> bool:
    """Return whether the client sends a parameter of the query; it omits None and empty lists."""
    values = parameter if isinstance(parameter, list) else [parameter]
    return any(value is not None for value in values)


def tells_identity_and_status(document: object) -> bool:
    """A callback only has to match the documented identity and status."""
    if not isinstance(document, dict):
        return False
    return any(
        type(document.get(identity)) in (str, int)
        and document[identity] != ""
        and isinstance(document.get(status), str)
        and document[status].lower() in STATUSES
        for identity, status in (("task_id", "task_status"), ("id", "status"))
    )
