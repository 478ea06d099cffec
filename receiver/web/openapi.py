"""`/openapi.json` and `/docs`: documentation generated from the routes and their schemas."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from functools import cache
from http import HTTPStatus
from importlib import resources
from inspect import getdoc
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Flask, Response, current_app, jsonify, render_template
from marshmallow import Schema
from werkzeug.routing import Rule

from receiver import __version__
from receiver.providers import PROVIDERS, callback_schemas
from receiver.serializers import route_spec
from receiver.serializers.route_spec import Kind, RouteSpec
from receiver.serializers.schemas import EventDocument, ProblemDocument

TOKEN = "apiToken"  # noqa: S105 - the name of the scheme
PROBLEM = "application/problem+json"
ACCEPTED = "Accepted. After any other response, the request is repeated."
RETRY_AFTER = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}
}
REQUEST_ID = {
    "X-Request-Id": {
        "description": "The id of the request in the log.",
        "schema": {"type": "string"},
    }
}
ABOUT = """Receives the callbacks of AI tasks, records each status change exactly once, and runs
hooks. Times are in UTC, as in RFC 3339. Later releases may add members to responses: ignore members
that you do not know."""


def blueprint() -> Blueprint:
    """Return the routes `/openapi.json` and `/docs`."""
    routes = Blueprint("openapi", __name__, template_folder="templates")
    style = resources.files("receiver.web").joinpath("templates", "docs.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"

    @cache
    def document() -> dict[str, Any]:  # not created before every route is registered
        return openapi(current_app)

    @routes.get("/openapi.json")
    @route_spec.described(RouteSpec(answers={200: "application/json"}, needs_record=False))
    def openapi_json() -> Response:
        """Return this documentation as OpenAPI 3.1."""
        return jsonify(document())

    @routes.get("/docs")
    @route_spec.described(RouteSpec(answers={200: "text/html"}, needs_record=False))
    def docs() -> Response:
        """Return this documentation as a page."""
        page = render_template("docs.html", document=document(), style=style, shape=shape)
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return Response(page, mimetype="text/html", headers=headers)

    return routes


def openapi(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document of all routes of this application."""
    plugin = MarshmallowPlugin(schema_name_resolver=_name)
    spec = APISpec(
        title="Callback Receiver",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": ABOUT, "license": {"name": "MIT", "identifier": "MIT"}},
    )
    spec.components.security_scheme(TOKEN, {"type": "http", "scheme": "bearer"})
    for schema in (*callback_schemas(), EventDocument):
        spec.components.schema(_name(schema), schema=schema)
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        view = app.view_functions[rule.endpoint]
        methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        operations = {method.lower(): _operation(rule, view, method) for method in methods}
        spec.path(path=re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule.rule), operations=operations)
    webhooks = _webhooks()
    for webhook in webhooks.values():
        plugin.operation_helper(operations=webhook)
    return {**spec.to_dict(), "webhooks": webhooks}


def _operation(rule: Rule, view: Callable[..., Any], method: str) -> dict[str, Any]:
    summary, _, more = (getdoc(view) or "").partition("\n\n")
    route = route_spec.of(view)
    operation: dict[str, Any] = {
        "operationId": f"{rule.endpoint}.{method}".replace(".", "_").lower(),
        "summary": " ".join(summary.split()),
        "description": more,
        "tags": [str(rule.endpoint).partition(".")[0]],
        "parameters": list(_parameters(rule, route)),
    }
    if route is None:  # a page of the dashboard
        return {**operation, "responses": {"default": {"description": "A page."}}}
    operation["responses"] = dict(_responses(rule, route))
    if route.body:
        operation["requestBody"] = _request_body(*route.body)
    if _needs_token(rule):
        operation["security"] = [{TOKEN: []}]
    return operation


def _parameters(rule: Rule, route: RouteSpec | None) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"<(?:[^<>]*:)?(\w+)>", rule.rule):
        yield {"in": "path", "name": name, "required": True, "schema": _path_schema(rule, name)}
    if route is not None and route.query is not None:
        yield {"in": "query", "schema": route.query}
    for name, meaning in (route.headers if route else {}).items():
        schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
        yield {"in": "header", "name": name, "description": meaning, "schema": schema}


def _path_schema(rule: Rule, name: str) -> dict[str, Any]:
    if name == "provider":
        return {"type": "string", "enum": sorted(PROVIDERS)}
    converter = rule.rule.partition(f":{name}>")[0].rpartition("<")[2]
    if converter.partition("(")[0] == "int":
        return {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    return {"type": "string", "minLength": 1}


def _responses(rule: Rule, route: RouteSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    for status, kind in route.answers.items():
        phrase = getdoc(kind) if isinstance(kind, type) else HTTPStatus(status).phrase
        yield str(status), {"description": phrase, "headers": REQUEST_ID, "content": _json(kind)}
    unauthorized = (401, 429) if _needs_token(rule) else ()
    unavailable = (503,) if route.needs_record else ()
    for status in sorted({*route.refuses, *unauthorized, *unavailable}):
        headers = {**REQUEST_ID, **(RETRY_AFTER if status in (429, 503) else {})}
        content = {PROBLEM: {"schema": ProblemDocument}}
        phrase = HTTPStatus(status).phrase
        yield str(status), {"description": phrase, "headers": headers, "content": content}


def _request_body(*schemas: type[Schema]) -> dict[str, Any]:
    return {"required": True, "content": _json(*schemas)}


def _json(*kinds: Kind) -> dict[str, Any]:
    if len(kinds) == 1 and isinstance(kinds[0], str):
        return {kinds[0]: {}}
    schema = kinds[0] if len(kinds) == 1 else {"anyOf": list(kinds)}
    return {"application/json": {"schema": schema}}


def _needs_token(rule: Rule) -> bool:
    """Return whether the route requires the API token; see `request_lifecycle`."""
    return rule.rule == "/metrics" or rule.rule.startswith("/api/")


def _name(schema: Any) -> str:
    kind = schema if isinstance(schema, type) else type(schema)
    return kind.__name__.removesuffix("Document")


def shape(schema: dict[str, Any]) -> str:
    """Return a short description of a schema for the page."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(shape(option) for option in schema[several])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = schema.get("type", "anything")
    kinds = kind if isinstance(kind, list) else [kind]
    if "array" in kinds and "items" in schema:
        return f"list of {shape(schema['items'])}"
    shown = " or ".join(kinds)
    return f"{shown} ({schema['format']})" if "format" in schema else shown


def _webhooks() -> dict[str, Any]:
    """Return the requests that providers send to us, and that hooks send to others."""
    return {
        "callback": {
            "post": {
                "operationId": "webhook_callback",
                "summary": "Sent by a provider to the callback URL when the status of a task "
                "changes.",
                "description": "Sent to /callbacks/{provider}/{task_id}/{token}; or, with a "
                "signature that covers the body, to /callbacks/{provider}. Only the id and the "
                "status of the task have to be valid. Any other invalid field is ignored and "
                "reported.",
                "requestBody": _request_body(*callback_schemas()),
                "responses": {"200": {"description": ACCEPTED}},
            }
        },
        "event": {
            "post": {
                "operationId": "webhook_event",
                "summary": "Sent by a hook of type webhook when the status of a task changes.",
                "description": "Signed by the Standard Webhooks scheme. The same event may be sent "
                "more than once, always with the same webhook-id.",
                "requestBody": _request_body(EventDocument),
                "responses": {"2XX": {"description": ACCEPTED}},
            }
        },
    }
