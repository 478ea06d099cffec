"""`/openapi.json` describes every route, and each route responds as described to any request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.deliveries import Attempt, File, State
from receiver.delivery.attempt import DeliveryWorker
from receiver.ingest import Ingest
from receiver.serializers.route_spec import of
from receiver.signing.callback_urls import mint
from receiver.stores.base import Store
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from receiver.web import problems
from submitter import api
from submitter.client import Client, Patience
from submitter.providers import Provider
from submitter.providers.kling import ApiKey, Kling
from tests.support.applications import applications
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


def test_every_route_and_method_is_documented(described: Flask, document: dict[str, Any]) -> None:
    served = {
        (re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in described.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    told = {(path, method) for path, item in document["paths"].items() for method in item}
    assert told == served
    assert {("/api/tasks", "post"), ("/callbacks/{provider}", "post"), ("/metrics", "get")} <= told


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
    assert list(strictly(document, "Task").iter_errors(answer.get_json())) == []
    assert answer.headers["Location"] == f"/api/tasks/{answer.get_json()['id']}"


def test_an_event_matches_its_schema(document: dict[str, Any], record: Store) -> None:
    for delivery in record.lists.deliveries():
        event = DeliveryWorker(record, {}).notice(delivery).as_json()
        assert event["media"]
        assert list(strictly(document, "Event").iter_errors(event)) == []


def test_the_page_lists_every_route_and_has_no_script(
    client: FlaskClient, document: dict[str, Any]
) -> None:
    answer = client.get("/docs")
    page = answer.get_data(as_text=True)
    for path in document["paths"]:
        assert path in page
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in page
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<script|<link|<img|\bon\w+=|style=|https?://", page)


# -- any request

CHECKS: list[CheckFunction] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 40  # for each operation in each mode
STATUSES = ("submitted", "processing", "succeed", "succeeded", "failed")
PARTS = 4  # groups of operations, which several processes can test at the same time


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_is_sent_is_answered_as_told(
    described: Flask, mode: GenerationMode, part: int
) -> None:
    load_all_checks()
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
    is_callback = "{token}" in case.path
    rejected = [negative_data_rejection] if wrong & {"body", "query"} and not is_callback else []
    case.validate_response(answer, checks=[*CHECKS, *rejected])
    if is_callback and case.method == "POST" and answer.status_code == HTTPStatus.OK:
        assert tells_identity_and_status(case.body), case.body


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
