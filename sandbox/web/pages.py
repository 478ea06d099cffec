"""The sandbox's pages and their JSON: tasks, pictures, ledger, mails and Slack messages."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response, abort, jsonify, render_template, request

from sandbox.components import components
from sandbox.environment import lines
from sandbox.inboxes.mrkdwn import render as render_mrkdwn
from sandbox.providers import input_pictures
from sandbox.scenarios.faults import ResultFault
from sandbox.scenarios.scenario import SCENARIOS, UnknownScenarioError
from sandbox.web import result_files

MOST_AT_ONCE = 1_000
SHOWN = 50

routes = Blueprint("pages", __name__)


@routes.get("/")
def home() -> str:
    return render_template(
        "home.html",
        url=components().url,
        settings=lines(components().environment),
        tasks=components().engine.tasks()[:SHOWN],
        entries=components().ledger.entries()[: -SHOWN - 1 : -1],
        scenarios=SCENARIOS.values(),
    )


@routes.get("/_sandbox/live.js")
def live() -> Response:
    return Response(render_template("live.js"), mimetype="text/javascript")


@routes.get("/_sandbox/tasks")
def tasks() -> Response:
    return jsonify([task.as_json() for task in components().engine.tasks()])


@routes.get("/_sandbox/ledger")
def ledger() -> Response:
    return jsonify(
        [row.as_json() for row in components().ledger.entries(request.args.get("task_id"))]
    )


@routes.get("/_sandbox/env.json")
def environment() -> Response:
    return jsonify(components().environment)


@routes.post("/_sandbox/next")
def next_scenario() -> tuple[Response, int] | Response:
    wanted = request.get_json(silent=True)
    if not isinstance(wanted, dict):
        return _refused("send a JSON object with provider and scenario")
    provider, name, count = wanted.get("provider"), wanted.get("scenario"), wanted.get("count", 1)
    if provider not in components().engine.providers:
        return _refused(f"provider must be one of: {', '.join(components().engine.providers)}")
    if type(count) is not int or not 1 <= count <= MOST_AT_ONCE:
        return _refused(f"count must be 1 to {MOST_AT_ONCE}")
    try:
        components().queue.add(provider, str(name), count)
    except UnknownScenarioError as fault:
        return _refused(str(fault))
    return jsonify(provider=provider, scenario=name, count=count)


@routes.get("/_sandbox/sign-in")
def sign_in() -> str:
    return result_files.PAGE


@routes.get("/_sandbox/results/<name>/<task_id>.png")
@routes.get(
    f"/_sandbox/results/<name>/<task_id>/{result_files.MOVED}.png", defaults={"moved": True}
)
def result(name: str, task_id: str, moved: bool = False) -> Response:
    picture = components().gallery.picture(name, request.args.get("Expires", ""))
    if picture is None:
        abort(404)
    task = components().engine.task(task_id)
    fault = task.scenario.result if task else None
    if fault is None or moved or _spares_url(fault):
        return Response(picture, mimetype="image/png")
    query = request.query_string.decode()
    target = f"/_sandbox/results/{name}/{task_id}/{result_files.MOVED}.png?{query}"
    return result_files.served(fault, picture, target)


def _spares_url(fault: ResultFault) -> bool:
    """Return whether the fault does not affect the requested URL."""
    if fault is ResultFault.SECOND_MISSING and "Output" not in request.args:
        return True
    return fault.is_healed_by_a_query and "Fresh" in request.args


@routes.get("/_sandbox/images/<name>")
def sample(name: str) -> Response:
    kinds = {input_pictures.PERSON: "image/jpeg", input_pictures.GARMENT: "image/png"}
    if name not in kinds:
        abort(404)
    return Response(input_pictures.sample(name), mimetype=kinds[name])


@routes.app_template_filter("clock")
def clock(at: int | None) -> str:
    """Format a time of day in UTC, to the millisecond."""
    if at is None:
        return "-"
    return f"{datetime.fromtimestamp(at / 1000, UTC):%H:%M:%S}.{at % 1000:03d}"


@routes.app_template_filter("mrkdwn")
def mrkdwn(text: object) -> str:
    return render_mrkdwn(str(text))


def _refused(why: str) -> tuple[Response, int]:
    return jsonify(error=why), 400
