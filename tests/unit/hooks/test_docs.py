"""docs/hooks.md documents every key of every type, and its examples load and build."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from receiver import hooks
from receiver.config import hooks_file
from receiver.errors import PermanentFailure, TemporaryFailure
from receiver.hooks import apprise, command, download, email, python, slack, webhook
from receiver.hooks.base import Alerting
from receiver.hooks.brokers.rabbitmq import RabbitMqOptions
from receiver.hooks.brokers.redis import RedisOptions
from receiver.hooks.brokers.sqs import SqsOptions
from receiver.hooks.options import Options

DOCS = (Path(__file__).parents[3] / "docs" / "hooks.md").read_text()
SECTIONS = dict(re.findall(r"^## ([a-z]+)\n(.*?)(?=^## |\Z)", DOCS, re.MULTILINE | re.DOTALL))
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
ENVIRONMENT = {
    "SMTP_PASSWORD": "secret",
    "SLACK_WEBHOOK_URL": "https://hooks.example/x",
    "WEBHOOK_SECRET": "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=",
    "RABBITMQ_URL": "amqps://user:password@rabbitmq.example.com/vhost",
    "REDIS_URL": "rediss://user:password@redis.example.com/0",
    "PHONES_URL": "json://example.com/",
}


def test_every_type_has_a_section() -> None:
    assert SECTIONS.keys() == hooks.TYPES.keys() == SCHEMAS.keys()


@pytest.mark.parametrize("type_", SCHEMAS)
def test_every_key_is_documented(type_: str) -> None:
    fields = SCHEMAS[type_]().fields
    keys = {field.data_key or name for name, field in fields.items()}
    assert {key for key in keys if not re.search(rf"\b{key}\b", SECTIONS[type_])} == set()


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
