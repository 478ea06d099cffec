"""`/openapi.json` and `/docs`: documentation generated from the routes and their schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from http import HTTPStatus
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
from receiver.web.callbacks import SIGNATURE

# A value that is stored and returned unchanged. Not every database can store NUL.
_NO_NUL = r"^[^\u0000]*$"
_ANY_VALUE = {"$ref": "#/components/schemas/JsonValue"}
JSON_VALUE = {
    "description": "Any JSON value without NUL in its strings.",
    "anyOf": [
        {"type": ["null", "boolean", "number"]},
        {"type": "string", "pattern": _NO_NUL},
        {"type": "array", "items": _ANY_VALUE},
        {
            "type": "object",
            "propertyNames": {"pattern": _NO_NUL},
            "additionalProperties": _ANY_VALUE,
        },
    ],
}
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
LOCAL_URL = "http://127.0.0.1:8000"  # in examples, if PUBLIC_URL is unset
# Redoc writes its styles into the page. Nothing is loaded from another server.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The parts of the documentation in order: name, description, and the paths that belong to it.
TAGS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Tasks", "Create tasks, and read them with their results.", ("/api/tasks",)),
    ("Deliveries", "The deliveries of events to hooks.", ("/api/deliveries",)),
    ("Messages", "Stored callbacks and other messages of providers.", ("/api/callbacks",)),
    ("Events", "Status changes as they are recorded.", ("/api/events",)),
    ("Callbacks", "Where providers send their callbacks.", ("/callbacks",)),
    ("Monitoring", "The state of this server.", ("/healthz", "/readyz", "/metrics")),
    ("Documentation", "This documentation.", ("/openapi.json", "/docs")),
)
ABOUT = """Receives the callbacks of AI tasks, records each status change exactly once, and runs
hooks. Times are in UTC, as in RFC 3339. Later releases may add members to responses: ignore members
that you do not know."""


def blueprint(public_url: str | None = None) -> Blueprint:
    """Return the routes `/openapi.json` and `/docs`. `public_url` is where this server is reached.

    The page is rendered by Redoc, whose files are served by this server; see its README.txt.
    """
    routes = Blueprint(
        "openapi",
        __name__,
        template_folder="templates",
        static_folder="static/docs",
        static_url_path="/static/docs",
    )

    @cache
    def document() -> dict[str, Any]:  # not created before every route is registered
        return openapi(current_app, public_url)

    @routes.get("/openapi.json")
    @route_spec.described(RouteSpec(answers={200: "application/json"}, needs_record=False))
    def openapi_json() -> Response:
        """Return this documentation as OpenAPI 3.1."""
        return jsonify(document())

    @routes.get("/docs")
    @route_spec.described(RouteSpec(answers={200: "text/html"}, needs_record=False))
    def docs() -> Response:
        """Return this documentation as a page."""
        response = Response(render_template("docs.html"), mimetype="text/html")
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @routes.after_request
    def add_headers(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return routes


def openapi(app: Flask, public_url: str | None = None) -> dict[str, Any]:
    """Return the OpenAPI document of the routes of this application that programs use."""
    servers = [{"url": "/", "description": "The server of this document."}]
    if public_url is not None:
        servers.insert(0, {"url": public_url, "description": "Its public address."})
    plugin = MarshmallowPlugin(schema_name_resolver=_name)
    spec = APISpec(
        title="Callback Receiver",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": ABOUT, "license": {"name": "MIT", "identifier": "MIT"}},
        servers=servers,
    )
    for tag, description, _ in TAGS:
        spec.tag({"name": tag, "description": description})
    spec.components.security_scheme(TOKEN, {"type": "http", "scheme": "bearer"})
    spec.components.schema("JsonValue", JSON_VALUE)
    for schema in (*callback_schemas(), EventDocument):
        spec.components.schema(_name(schema), schema=schema)
    described = [
        (rule, route)
        for rule in app.url_map.iter_rules()
        if (route := route_spec.of(app.view_functions[rule.endpoint])) is not None
    ]
    for rule, route in sorted(described, key=lambda one: (_tag_number(one[0]), one[0].rule)):
        methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}, reverse=True)
        view = app.view_functions[rule.endpoint]
        operations = {
            method.lower(): _operation(rule, route, view, method, public_url or LOCAL_URL)
            for method in methods
        }
        spec.path(path=_path(rule), operations=operations)
    webhooks = _webhooks()
    for webhook in webhooks.values():
        plugin.operation_helper(operations=webhook)
    return {**spec.to_dict(), "webhooks": webhooks}


def _operation(
    rule: Rule, route: RouteSpec, view: Callable[..., Any], method: str, server: str
) -> dict[str, Any]:
    summary, _, more = (getdoc(view) or "").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": f"{rule.endpoint}.{method}".replace(".", "_").lower(),
        "summary": " ".join(summary.split()),
        "description": more,
        "tags": [TAGS[_tag_number(rule)][0]],
        "parameters": list(_parameters(rule, route)),
        "responses": dict(_responses(rule, route)),
        "x-codeSamples": [{"lang": "Shell", "label": "curl", "source": _curl(rule, route, server)}],
    }
    if route.body:
        operation["requestBody"] = _request_body(*route.body)
    if _needs_token(rule):
        operation["security"] = [{TOKEN: []}]
    return operation


def _curl(rule: Rule, route: RouteSpec, server: str) -> str:
    """Return an example of the request, with names in capitals where values are inserted."""
    path = re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), _path(rule))
    is_query = isinstance(route.example, str)
    query = f"?{route.example}" if is_query and route.example else ""
    lines = [f"curl '{server}{path}{query}'"]
    if _needs_token(rule):
        lines.append('-H "Authorization: Bearer $API_TOKEN"')
    if rule.methods and "POST" in rule.methods:
        lines.append("-X POST" if is_query else "-H 'Content-Type: application/json'")
        lines += [f"-H '{name}: {name.upper()}'" for name in route.headers]
    if "token>" not in rule.rule:
        lines += [f"-H '{name}: {name.upper()}'" for name in route.signature]
    if not is_query:
        lines.append(f"-d '{json.dumps(route.example, ensure_ascii=False)}'")
    return " \\\n  ".join(lines)


def _path(rule: Rule) -> str:
    return re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule.rule)


def _tag_number(rule: Rule) -> int:
    """Return the position of the tag of a route in TAGS."""
    found = (i for i, (_, _, prefixes) in enumerate(TAGS) if rule.rule.startswith(prefixes))
    return next(found, len(TAGS) - 1)


def _parameters(rule: Rule, route: RouteSpec) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"<(?:[^<>]*:)?(\w+)>", rule.rule):
        yield {"in": "path", "name": name, "required": True, "schema": _path_schema(rule, name)}
    if route.query is not None:
        yield {"in": "query", "schema": route.query}
    for name, meaning in route.headers.items():
        # A header has no spaces at its ends.
        schema = {"type": "string", "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"}
        if name in route.patterns:
            schema = {"type": "string", "pattern": route.patterns[name]}
        yield {"in": "header", "name": name, "description": meaning, "schema": schema}
    if "token>" not in rule.rule:
        yield from _header_parameters(route.signature)


def _header_parameters(headers: Mapping[str, tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for name, (meaning, pattern) in headers.items():
        schema = {"type": "string", "pattern": pattern}
        required = {"in": "header", "name": name, "required": True}
        yield {**required, "description": meaning, "schema": schema}


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
                "parameters": list(_header_parameters(SIGNATURE)),
                "requestBody": _request_body(EventDocument),
                "responses": {"2XX": {"description": ACCEPTED}},
            }
        },
    }
