"""docs/hooks.md documents every key of every type, and its examples load and build."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from receiver import hooks
from receiver.config import hooks_file
from receiver.config.pacing import PacingKeys
from receiver.deliveries import File, Notice, Transition
from receiver.errors import PermanentFailure, TemporaryFailure
from receiver.events import Media
from receiver.filters.conditions import LONGEST_LIST, LONGEST_PATTERN, LONGEST_TEXT, MOST_OTHERS
from receiver.filters.where import MOST_CONDITIONS
from receiver.hooks import apprise, command, download, email, python, slack, webhook
from receiver.hooks.base import Alerting
from receiver.hooks.brokers.rabbitmq import RabbitMqOptions
from receiver.hooks.brokers.redis import RedisOptions
from receiver.hooks.brokers.sqs import SqsOptions
from receiver.hooks.options import Options
from receiver.tasks import Status, Task, Trust

DOCS = (Path(__file__).parents[3] / "docs" / "hooks.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", DOCS, re.MULTILINE | re.DOTALL))
TOPICS = {"CloudEvents", "Filters", "Pacing", "Templates"}  # sections about several types
(FUNCTION,) = re.findall(r"```python\n(.*?)```", SECTIONS["python"], re.DOTALL)


class AllQueueOptions(RabbitMqOptions, RedisOptions, SqsOptions):
    """The keys of a queue hook for any broker."""


SCHEMAS: dict[str, type[Options]] = {
    "apprise": apprise.AppriseOptions,
    "command": command.CommandOptions,
    "download": download.DownloadOptions,
    "email": email.EmailOptions,
    "python": python.PythonOptions,
    "queue": AllQueueOptions,
    "slack": slack.SlackOptions,
    "webhook": webhook.WebhookOptions,
}
FORMATS = dict(re.findall(r"^## ([A-Z]\w+)\n(.*?)(?=^## |\Z)", DOCS, re.MULTILINE | re.DOTALL))
ENVIRONMENT = {
    "ERP_TOKEN": "a-token-of-the-erp",
    "SMTP_PASSWORD": "secret",
    "SLACK_WEBHOOK_URL": "https://hooks.example/x",
    "WEBHOOK_SECRET": "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=",
    "RABBITMQ_URL": "amqps://user:password@rabbitmq.example.com/vhost",
    "REDIS_URL": "rediss://user:password@redis.example.com/0",
    "PHONES_URL": "json://example.com/",
}


def test_every_type_has_a_section() -> None:
    assert SECTIONS.keys() - TOPICS == hooks.TYPES.keys() == SCHEMAS.keys()


@pytest.mark.parametrize("type_", SCHEMAS)
def test_every_key_is_documented(type_: str) -> None:
    fields = SCHEMAS[type_]().fields
    keys = {field.data_key or name for name, field in fields.items()}
    assert {key for key in keys if not re.search(rf"\b{key}\b", SECTIONS[type_])} == set()


def test_every_key_of_pacing_is_documented() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", SECTIONS["Pacing"], re.DOTALL)
    for name in PacingKeys().fields:
        assert f"| `{name}` |" in SECTIONS["Pacing"]
        assert re.search(rf"^{name} = ", example, re.MULTILINE)


@pytest.mark.parametrize("type_", SCHEMAS)
def test_every_example_builds(type_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stock.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)
    examples = re.findall(r"```toml\n(.*?)```", SECTIONS[type_], re.DOTALL)
    assert examples
    for example in examples:
        (tmp_path / "hooks.toml").write_text(example)
        (entry,) = hooks_file.load(tmp_path / "hooks.toml", lambda _: None)
        assert entry.type == type_
        assert hooks.build(entry, ENVIRONMENT).name == entry.name


FILTERS = DOCS.partition("\n## Filters\n")[2].partition("\n## ")[0]
CONDITIONS = [
    condition
    for row in re.findall(r"^\| (`.*) \| .* \|$", FILTERS, re.MULTILINE)
    for condition in re.findall(r"`(.+?)`", row)
]


def test_every_condition_in_the_table_loads(tmp_path: Path) -> None:
    assert len(CONDITIONS) == 8
    for condition in CONDITIONS:
        example = '[[hook]]\nname = "shop"\ntype = "webhook"\n[hook.where.task.metadata]\n'
        (tmp_path / "hooks.toml").write_text(f"{example}key = {condition}\n")
        (entry,) = hooks_file.load(tmp_path / "hooks.toml", lambda _: None)
        assert str(entry.subscription.where) == f"task.metadata.key = {condition}"


def test_the_limits_of_filters_are_stated() -> None:
    text = " ".join(FILTERS.split())
    for limit in (
        f"{MOST_CONDITIONS} conditions",
        f"{LONGEST_PATTERN} characters",
        f"{LONGEST_LIST:,} values, {MOST_OTHERS} of which",
        f"first {LONGEST_TEXT:,} characters",
    ):
        assert limit in text, limit


def test_every_hook_type_that_sends_alerts_is_listed() -> None:
    row = next(line for line in DOCS.splitlines() if line.startswith("| `alerts`"))
    listed = set(re.findall(r"`(\w+)`", row.rpartition("(")[2]))
    types: dict[str, Any] = dict(hooks.TYPES)
    assert listed == {name for name, type_ in types.items() if issubclass(type_, Alerting)}


def test_the_example_event_is_valid_json() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
    document = json.loads(example)
    assert document.keys() == {
        "id",
        "type",
        "occurred_at",
        "task",
        "media",
        "trust",
        "corrected",
    }


def test_the_example_function_runs() -> None:
    names: dict[str, Any] = {}
    exec(FUNCTION, names)  # noqa: S102 - code of our own page
    on_result = names["on_result"]
    assert on_result({"id": "a:succeeded", "task": {"reference": "ORDER-7"}}) == "noted a:succeeded"
    with pytest.raises(PermanentFailure):
        on_result({"id": "a:succeeded", "task": {"reference": None}})
    with pytest.raises(TemporaryFailure):
        on_result({"id": "a:succeeded", "task": {"reference": "ORDER-8"}})


def example_notice() -> Notice:
    """Return the notice whose event is the example of the page."""
    (example,) = re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
    event = json.loads(example)
    task, (media,) = event["task"], event["media"]
    dates = {
        key: round(datetime.fromisoformat(task[key]).timestamp() * 1000) for key in ("created_at",)
    }
    occurred_at = round(datetime.fromisoformat(event["occurred_at"]).timestamp() * 1000)
    found = Notice(
        Task(**{**task, **dates, "status": Status(task["status"])}, updated_at=occurred_at),
        Transition(task["status"], occurred_at, occurred_at, Trust(event["trust"])),
        (Media(media["kind"], media["url"], media["index"]),),
        (File(media["index"], media["file"], media["sha256"], media["size"], "image/png"),),
    )
    assert found.as_json() == event
    return found


def built_examples(section: str) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for example in re.findall(r"```toml\n(.*?)```", FORMATS[section], re.DOTALL):
        entries = hooks_file.parse(example, Path("hooks.toml"), lambda _: None)
        built |= hooks.build_all(entries, ENVIRONMENT)
    return built


def test_every_example_of_a_template_is_rendered() -> None:
    previews = {
        name: hook.preview(example_notice()) for name, hook in built_examples("Templates").items()
    }
    (shown,) = re.findall(r"```text\n(.*?)```", FORMATS["Templates"], re.DOTALL)
    erp = previews["erp"]
    body = erp.body.replace("\\u2026", "…")
    assert f"X-Order: {erp.headers['X-Order']}\n\n{body}\n" == shown
    assert erp.headers["Authorization"] == "Bearer a-token-of-the-erp"
    assert json.loads(previews["team"].body)["text"] == "ORDER-7 succeeded"
    care = previews["customer-care"]
    assert care.headers["Subject"] == "ORDER-7: done"
    assert "<h1>Order ORDER-7</h1>" in care.body
    assert "<p>No note.</p>" in care.body


def test_the_examples_of_templates_are_rendered_for_a_failed_task() -> None:
    about = example_notice()
    task = replace(about.task, status=Status.FAILED, reason='"risk" control', reference=None)
    failed = replace(
        about, task=task, transition=replace(about.transition, status="failed"), media=()
    )
    previews = {name: hook.preview(failed) for name, hook in built_examples("Templates").items()}
    assert json.loads(previews["erp"].body)["reason"] == '"risk" control'
    assert len(json.loads(previews["team"].body)["blocks"]) == 1


def test_the_example_of_a_cloudevent_is_what_is_sent() -> None:
    (hook,) = built_examples("CloudEvents").values()
    (shown,) = re.findall(r"```http\n(.*?)```", FORMATS["CloudEvents"], re.DOTALL)
    head, _, body = shown.partition("\n\n")
    preview = hook.preview(example_notice())
    assert f"Content-Type: {preview.headers['Content-Type']}" in head
    document = json.loads(preview.body)
    assert document.pop("data") == example_notice().as_json()
    assert json.loads(body.replace(',"data":{…}', "")) == document
