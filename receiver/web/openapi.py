"""`/openapi.json` and `/docs`: what is served here, made of the routes and their own schemas."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from importlib import resources
from inspect import getdoc
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Flask, Response, current_app, jsonify, render_template
from werkzeug.routing import Rule

from receiver import __version__
from receiver.providers import PROVIDERS, kling, kling_legacy
from receiver.serializers import route_spec
from receiver.serializers.route_spec import Kind, RouteSpec
from receiver.serializers.schemas import EventDocument, ProblemDocument

TOKEN = "apiToken"  # noqa: S105 - the name of the scheme
PROBLEM = "application/problem+json"
LATER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}}
REQUEST_ID = {
    "X-Request-Id": {"description": "The request's name in the log.", "schema": {"type": "string"}}
}
ABOUT = """Receives the callbacks of AI tasks, records each status change exactly once, and fires
hooks. Instants are RFC 3339, in UTC. What is answered may get more members: ignore those you do not
know."""


def blueprint() -> Blueprint:
    routes = Blueprint("openapi", __name__, template_folder="templates")
    style = resources.files("receiver.web").joinpath("templates", "docs.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"
    made: list[dict[str, Any]] = []  # once, when every route is there

    def document() -> dict[str, Any]:
        if not made:
            made.append(openapi(current_app))
        return made[0]

    @routes.get("/openapi.json")
    @route_spec.described(RouteSpec(answers={200: "application/json"}, needs_record=False))
    def machine() -> Response:
        """This description, as OpenAPI 3.1."""
        return jsonify(document())

    @routes.get("/docs")
    @route_spec.described(RouteSpec(answers={200: "text/html"}, needs_record=False))
    def people() -> Response:
        """The same as a page to read."""
        page = render_template("docs.html", document=document(), style=style, shape=shape)
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return Response(page, mimetype="text/html", headers=headers)

    return routes


def openapi(app: Flask) -> dict[str, Any]:
    """The document of this application: every route it has."""
    plugin = MarshmallowPlugin(schema_name_resolver=_name)
    spec = APISpec(
        title="Callback Receiver",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": ABOUT, "license": {"name": "MIT", "identifier": "MIT"}},
    )
    spec.components.security_scheme(TOKEN, {"type": "http", "scheme": "bearer"})
    spec.components.schema("KlingCallback", schema=kling.KlingTask)
    spec.components.schema("LegacyCallback", schema=kling_legacy.LegacyKlingTask)
    spec.components.schema("Event", schema=EventDocument)
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        view = app.view_functions[rule.endpoint]
        methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        operations = {method.lower(): _operation(rule, view, method) for method in methods}
        spec.path(path=re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule.rule), operations=operations)
    return {**spec.to_dict(), "webhooks": WEBHOOKS}


def _operation(rule: Rule, view: Callable[..., Any], method: str) -> dict[str, Any]:
    summary, _, more = (getdoc(view) or "").partition("\n\n")
    said = route_spec.of(view)
    operation: dict[str, Any] = {
        "operationId": f"{rule.endpoint}.{method}".replace(".", "_").lower(),
        "summary": " ".join(summary.split()),
        "description": more,
        "tags": [_tag(rule)],
        "parameters": list(_parameters(rule, said)),
    }
    if said is None:  # a page for people
        return {**operation, "responses": {"default": {"description": "A page."}}}
    operation["responses"] = dict(_responses(rule, said))
    if said.body:
        operation["requestBody"] = {"required": True, "content": _json(*said.body)}
    if _is_closed(rule):
        operation["security"] = [{TOKEN: []}]
    return operation


def _parameters(rule: Rule, said: RouteSpec | None) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"<(?:[^<>]*:)?(\w+)>", rule.rule):
        yield {"in": "path", "name": name, "required": True, "schema": _of_path(rule, name)}
    if said is not None and said.query is not None:
        yield {"in": "query", "schema": said.query}
    for name, meaning in (said.headers if said else {}).items():
        schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
        yield {"in": "header", "name": name, "description": meaning, "schema": schema}


def _of_path(rule: Rule, name: str) -> dict[str, Any]:
    if name == "provider":
        return {"type": "string", "enum": sorted(PROVIDERS)}
    converter = rule.rule.partition(f":{name}>")[0].rpartition("<")[2]
    if converter.partition("(")[0] == "int":
        return {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    return {"type": "string", "minLength": 1}


def _responses(rule: Rule, said: RouteSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    for status, kind in said.answers.items():
        phrase = getdoc(kind) if isinstance(kind, type) else HTTPStatus(status).phrase
        yield str(status), {"description": phrase, "headers": REQUEST_ID, "content": _json(kind)}
    closed = (401, 429) if _is_closed(rule) else ()
    for status in sorted({*said.refuses, *closed, *((503,) if said.needs_record else ())}):
        headers = {**REQUEST_ID, **(LATER if status in (429, 503) else {})}
        content = {PROBLEM: {"schema": ProblemDocument}}
        phrase = HTTPStatus(status).phrase
        yield str(status), {"description": phrase, "headers": headers, "content": content}


def _json(*kinds: Kind) -> dict[str, Any]:
    if len(kinds) == 1 and isinstance(kinds[0], str):
        return {kinds[0]: {}}
    schema = kinds[0] if len(kinds) == 1 else {"anyOf": list(kinds)}
    return {"application/json": {"schema": schema}}


def _is_closed(rule: Rule) -> bool:
    """Does it want the API token? See `auth`."""
    return rule.rule == "/metrics" or rule.rule.startswith("/api/")


def _tag(rule: Rule) -> str:
    return str(rule.endpoint).partition(".")[0]


def _name(schema: Any) -> str:
    kind = schema if isinstance(schema, type) else type(schema)
    return kind.__name__.removesuffix("Document")


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _takes(*names: str) -> dict[str, Any]:
    schema = _ref(names[0]) if len(names) == 1 else {"anyOf": [_ref(name) for name in names]}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def shape(schema: dict[str, Any]) -> str:
    """A schema in a few words, for people."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(shape(one) for one in schema[several])
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
    kind = schema.get("type", "anything")
    kinds = kind if isinstance(kind, list) else [kind]
    if "array" in kinds and "items" in schema:
        return f"list of {shape(schema['items'])}"
    shown = " or ".join(kinds)
    return f"{shown} ({schema['format']})" if "format" in schema else shown


TAKEN = {"200": {"description": "Taken. Anything else is sent again."}}
WEBHOOKS: dict[str, Any] = {
    "callback": {
        "post": {
            "operationId": "webhook_callback",
            "summary": "What a provider posts to the callback URL when a task moves.",
            "description": "Sent to /callbacks/{provider}/{task_id}/{token}; or, signed by the "
            "scheme of Standard Webhooks, to /callbacks/{provider}. Only the id and the status of "
            "the task have to be as described; any other field that is not is dropped and named.",
            "requestBody": _takes("KlingCallback", "LegacyCallback"),
            "responses": TAKEN,
        }
    },
    "event": {
        "post": {
            "operationId": "webhook_event",
            "summary": "What a hook of type webhook posts when a task moves.",
            "description": "Signed by the scheme of Standard Webhooks. It may come more than once, "
            "each time with the same webhook-id.",
            "requestBody": _takes("Event"),
            "responses": {"2XX": {"description": "Taken. Anything else is sent again."}},
        }
    },
}
