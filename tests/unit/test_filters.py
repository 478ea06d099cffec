"""The contract of filters: which conditions match which events, and which are rejected."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from receiver.config import hooks_file
from receiver.deliveries import File, Notice, Subscription, Transition
from receiver.errors import SettingsError
from receiver.events import Media
from receiver.filters import conditions, where
from receiver.filters.where import FIELDS, METADATA, UNUSABLE, EventFilter
from receiver.tasks import Status, Task, Trust
from tests.support.steps import grows_linearly

AT = round(datetime(2026, 11, 21, 5, 12, 24, tzinfo=UTC).timestamp() * 1000)
TASK = Task(
    id="01a1fc",
    provider="kling",
    status=Status.SUCCEEDED,
    created_at=AT - 2000,
    updated_at=AT,
    account="shop-2",
    provider_task_id="8283",
    reference="ORDER-7",
    model="kolors-v1",
    cost="2.50",
    cost_unit="units",
    metadata={
        "campaign": "autumn",
        "cart": 7,
        "price": 19.9,
        "is_gift": True,
        "note": None,
        "tags": ["new", "vip", ["nested", 3]],
        "ships": "2026-12-01T08:00:00+01:00",
        "utm.source": "mail",
        "customer": {"country": "DE", "a.b": {"c.d": 1}},
        "lines": [{"sku": "A-1", "count": 1}, {"sku": "B-2", "count": 5}],
        "min": 3,
        "one": 1,
        "rate": "0.1",
    },
)
OUTPUTS = (
    Media("image", "https://cdn.example/0.png", "0"),
    Media("video", "https://cdn.example/1.mp4", "1", expires_at=AT + 3_600_000),
)
SUCCESS = Notice(TASK, Transition("succeeded", AT, AT, Trust.SIGNED), OUTPUTS)
FAILURE = Notice(
    replace(TASK, status=Status.FAILED, reference=None, cost=None, metadata={}, reason="no face"),
    Transition("failed", AT, AT, Trust.TOKEN),
)


def load(table: str, providers: tuple[str, ...] = ("kling", "modellix")) -> EventFilter:
    """Return the filter of a hooks file with this `where` table."""
    text = f'[[hook]]\nname = "shop"\ntype = "webhook"\n{table}\n'
    (entry,) = hooks_file.parse(text, Path("hooks.toml"), lambda _: None, providers)
    assert entry.options == {}
    assert entry.subscription.where is not None
    return entry.subscription.where


def problems(table: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(table)
    prefix = 'hooks.toml: hook "shop": where'
    assert all(line.startswith(prefix) for line in caught.value.problems), caught.value.problems
    return tuple(line.removeprefix(prefix) for line in caught.value.problems)


CASES = [  # the condition, and whether it matches SUCCESS
    # patterns, which are case-sensitive
    ('"task.account" = "shop-2"', True),
    ('"task.account" = "shop-*"', True),
    ('"task.account" = "shop-?"', True),
    ('"task.account" = "shop-[13]"', False),
    ('"task.account" = "shop-[!13]"', True),
    ('"task.account" = "SHOP-*"', False),
    ('"task.account" = "shop"', False),
    ('"task.reference" = "*"', True),
    ('"task.reason" = "*"', False),  # null
    ('id = "01a1fc:succeeded"', True),
    ('type = "task.succeeded"', True),
    ('type = "task.failed"', False),
    ('trust = "signed"', True),
    ('trust = "queried"', False),
    ('"task.id" = "01*"', True),
    ('"task.provider" = "kling"', True),
    ('"task.provider" = "modellix"', False),
    ('"task.provider_task_id" = "8283"', True),
    ('"task.model" = "kolors-*"', True),
    ('"task.status" = "succeeded"', True),
    ('"task.cost_unit" = "units"', True),
    # booleans
    ("corrected = false", True),
    ("corrected = true", False),
    ('"task.metadata.is_gift" = true', True),
    ('"task.metadata.is_gift" = false', False),
    ('"task.metadata.is_gift" = 1', False),
    ('"task.metadata.is_gift" = "true"', False),
    ('"task.metadata.one" = true', False),
    # numbers, which are equal however they are written
    ('"task.cost" = 2.5', True),
    ('"task.cost" = 2', False),
    ('"task.cost" = "2.*"', True),
    ('"task.cost" = [1, 2.5]', True),
    ('"task.metadata.cart" = 7', True),
    ('"task.metadata.cart" = 7.0', True),
    ('"task.metadata.cart" = "7"', False),  # a pattern matches only text
    ('"task.metadata.price" = 19.9', True),
    ('"task.metadata.rate" = 0.1', True),
    ('"task.metadata.campaign" = 7', False),
    # ranges, which include both limits
    ('"task.cost" = { min = 2.5 }', True),
    ('"task.cost" = { min = 2.51 }', False),
    ('"task.cost" = { max = 2.5 }', True),
    ('"task.cost" = { min = 1, max = 2 }', False),
    ('"task.cost" = { min = 1, max = 3 }', True),
    ('"task.cost" = { min = 1, not = 2.5 }', False),
    ('"task.metadata.cart" = { min = 7, max = 7 }', True),
    ('"task.metadata.campaign" = { min = 1 }', False),
    ('"task.metadata.gone" = { max = 1000 }', False),
    # times
    ("occurred_at = { min = 2026-11-21T05:12:24Z }", True),
    ("occurred_at = { min = 2026-11-21T05:12:24.001Z }", False),
    ("occurred_at = { min = 2026-11-21T07:12:24+02:00 }", True),
    ("occurred_at = { min = 2026-11-21T05:12:24, max = 2026-11-21T05:12:24 }", True),  # UTC
    ("occurred_at = { min = 2026-11-21, max = 2026-11-21 }", True),  # the whole day
    ("occurred_at = { max = 2026-11-20 }", False),
    ('occurred_at = { min = "2026-11-21", max = "2026-11-21" }', True),
    ('occurred_at = { min = "2026-11-21T05:00:00Z" }', True),
    ("occurred_at = 2026-11-21", True),
    ("occurred_at = 2026-11-22", False),
    ("occurred_at = [2026-11-20, 2026-11-21]", True),
    ('occurred_at = "2026-11-*"', True),
    ('occurred_at = ["2026-11-20*", "2026-11-21T05:12:24.000Z"]', True),
    ('"task.given_up_at" = "*"', False),
    ('"task.created_at" = { not = { min = 2026-11-21T05:12:23Z } }', True),
    ('"task.given_up_at" = { max = 2030-01-01 }', False),  # null
    ('"task.metadata.ships" = { min = 2026-12-01T07:00:00Z, max = 2026-12-01T07:00:00Z }', True),
    ('"task.metadata.ships" = { max = 2026-11-30 }', False),
    # lists
    ('"task.account" = ["shop-1", "shop-2"]', True),
    ('"task.account" = ["shop-1", "store-*"]', False),
    ('"task.metadata.cart" = ["autumn", 7, true]', True),
    ('"task.metadata.cart" = [{ max = 3 }, { min = 6 }]', True),
    ('"task.metadata.cart" = [{ max = 3 }, { not = { max = 7 } }]', False),
    # not
    ('"task.account" = { not = "shop-*" }', False),
    ('"task.account" = { not = ["shop-1", "store-*"] }', True),
    ('trust = { not = "token" }', True),
    ('"task.reason" = { not = "*" }', True),
    ('"task.reference" = { not = "*" }', False),
    ('"task.reason" = { not = "no face" }', True),
    ('"task.metadata.gone" = { not = "x" }', True),
    ('"task.metadata.note" = { not = "*" }', True),
    # metadata
    ('"task.metadata.campaign" = "aut*"', True),
    ('"task.metadata.campaign.name" = "*"', False),
    ('"task.metadata.customer.country" = "DE"', True),
    ('"task.metadata.customer" = "*"', True),
    ('"task.metadata.customer" = "DE"', False),
    ('"task.metadata.utm.source" = "mail"', True),  # a key with a dot
    ('"task.metadata.customer.a.b.c.d" = 1', True),  # both keys contain a dot
    ('task.metadata.customer."a.b"."c.d" = 1', True),
    ('"task.metadata.tags" = "vip"', True),  # any element
    ('"task.metadata.tags" = 3', True),
    ('"task.metadata.tags" = { not = "vip" }', True),  # any other element
    ('"task.metadata.tags.0" = "new"', False),
    ('"task.metadata.lines.sku" = "B-*"', True),
    ('"task.metadata.lines.count" = { min = 6 }', False),
    ('"task.metadata.min" = 3', True),  # a key in quotes is not part of a range
    # media: any item
    ('"media.kind" = "video"', True),
    ('"media.kind" = "audio"', False),
    ('"media.kind" = { not = "image" }', True),
    ('"media.index" = "1"', True),
    ('"media.url" = "*.mp4"', True),
    ('"media.expires_at" = { min = 2026-11-21T06:00:00Z }', True),
    ('"media.expires_at" = { not = "*" }', True),
    ('"media.kind" = "video"\n"media.index" = "0"', False),  # not the same item
    ('"media.kind" = "video"\n"media.index" = "1"', True),
    # several conditions
    ('"task.account" = "shop-*"\n"task.cost" = { min = 2 }\ntrust = "signed"', True),
    ('"task.account" = "shop-*"\n"task.cost" = { min = 3 }\ntrust = "signed"', False),
]


@pytest.mark.parametrize(("table", "matches"), CASES, ids=[table for table, _ in CASES])
def test_a_condition_matches_an_event(table: str, matches: bool) -> None:
    assert load(f"[hook.where]\n{table}").matches(SUCCESS) is matches


@pytest.mark.parametrize(
    ("table", "matches"),
    [
        ('"task.reference" = "*"', False),
        ('"task.reference" = { not = "TEST-*" }', True),
        ('"task.cost" = { max = 100 }', False),
        ('"task.reason" = "*face*"', True),
        ('"task.metadata.campaign" = "autumn"', False),
        ('"media.kind" = "*"', False),  # without media, no condition for media matches
        ('"media.kind" = { not = "video" }', False),
        ('trust = "token"', True),
    ],
)
def test_a_condition_matches_a_failure(table: str, matches: bool) -> None:
    assert load(f"[hook.where]\n{table}").matches(FAILURE) is matches


def test_a_time_without_an_offset_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the machine is."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        utc, local = (
            load(f"[hook.where]\ntask.metadata.ships = {{ min = {moment}, max = {moment} }}")
            for moment in ("2026-12-01T07:00:00", "2026-12-01T16:00:00")
        )
    finally:
        monkeypatch.undo()
        time.tzset()
    assert utc.matches(SUCCESS)
    assert not local.matches(SUCCESS)


def test_an_event_without_evidence_has_no_trust() -> None:
    given_up = replace(SUCCESS, transition=Transition("given_up", AT, AT, Trust.TOKEN), media=())
    assert not load('where = { trust = "*" }').matches(given_up)
    assert load('where = { trust = { not = "*" }, type = "task.given_up" }').matches(given_up)


SPELLINGS = [
    'where = { "task.account" = "a", "task.metadata.cart.id" = 1 }',
    "where = { task.account = 'a', task.metadata.cart.id = 1 }",
    'where = { task = { account = "a", metadata = { cart = { id = 1 } } } }',
    '[hook.where]\n"task.account" = "a"\ntask.metadata.cart.id = 1',
    '[hook.where.task]\naccount = "a"\n"metadata.cart" = { id = 1 }',
    '[hook.where.task]\naccount = "a"\n[hook.where.task.metadata.cart]\nid = 1',
]


@pytest.mark.parametrize("table", SPELLINGS)
def test_dotted_names_and_tables_are_equivalent(table: str) -> None:
    assert load(table) == load(SPELLINGS[0])
    assert load(table).as_json() == {"task.account": "a", "task.metadata.cart.id": 1}


def test_a_table_with_min_max_or_not_is_a_condition() -> None:
    assert load("where = { task.metadata.size.min = 3 }").as_json() == {
        "task.metadata.size": {"min": 3}
    }
    assert load('where = { "task.metadata.size.min" = 3 }').as_json() == {
        "task.metadata.size.min": 3
    }


@pytest.mark.parametrize("table", ["where = {}", "[hook.where]"])
def test_an_empty_table_is_refused(table: str) -> None:
    expected = ": is empty; name a condition, or leave it out for every event"
    assert problems(table) == (expected,)


@pytest.mark.parametrize(
    "field", ["task", "task.metadata", "media", "outputs", "outputs.cutout", "task.metadata.size"]
)
def test_an_empty_table_in_place_of_a_condition_is_refused(field: str) -> None:
    (line,) = problems(f'where = {{ "task.account" = "shop-2", {field} = {{}} }}')
    assert line.startswith(f".{field}: ")


def fields_of(document: dict[str, Any], prefix: str = "") -> set[str]:
    """Return the names of all fields of an event, except those below the metadata."""
    names = set()
    for key, value in document.items():
        name = f"{prefix}{key}"
        inner = value[0] if name == "media" else value
        if isinstance(inner, dict) and name != "task.metadata":
            names |= fields_of(inner, f"{name}.")
        else:
            names.add(name)
    return names


def test_the_fields_are_those_of_the_event() -> None:
    found = fields_of(replace(SUCCESS, is_test=True).as_json())
    assert found == {*FIELDS, *UNUSABLE, ".".join(METADATA)}


def shown(document: Any, name: str) -> list[Any]:
    """Return the values of a field in an event as a webhook receives it."""
    for part in name.split("."):
        document = [one[part] for one in document] if isinstance(document, list) else document[part]
    return document if isinstance(document, list) else [document]


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_has_the_value_of_the_event(name: str) -> None:
    condition = "false" if name == "corrected" else '"*"'
    (one,) = load(f'where = {{ "{name}" = {condition} }}').conditions
    given_up = replace(SUCCESS, transition=Transition("given_up", AT, AT, Trust.TOKEN, revision=2))
    given_up = replace(given_up, task=replace(TASK, given_up_at=AT, callback_task_id="7"))
    for notice in (SUCCESS, FAILURE, given_up):
        subjects: list[Any] = [notice]
        if name.startswith("media."):
            subjects = list(notice.media)
        values = [value for subject in subjects for value in one.values(subject)]
        assert values == shown(notice.as_json(), name)


WRONG = [  # the table, and the line of the error after "where"
    ('"task.acount" = "a"', ".task.acount: is not a field of an event; did you mean task.account?"),
    ('account = "a"', ".account: is not a field of an event; did you mean task.account?"),
    ("metadata = {}", ".metadata: is not a field of an event; did you mean task.metadata.…?"),
    ('"metadata.a" = 1', ".metadata.a: is not a field of an event; did you mean task.metadata.a?"),
    ('"media.size" = 1', ".media.size: is not known when the filter is evaluated, because files"),
    ("test = true", ".test: exists only in test events, to which filters do not apply"),
    ('nothing = "a"', ".nothing: is not a field of an event; use id, type, occurred_at, "),
    ('"media.foo" = "a"', ".media.foo: is not a field of an event; use media.kind, media.index, "),
    ('"task.account.name" = "a"', ".task.account.name: is not a field of an event; "),
    ('"task..account" = "a"', ".task..account: is not a field of an event; "),
    ('task = "a"', ".task: is a table; name one of its fields: task.id, task.provider, "),
    ('media = "video"', ".media: is a table; name one of its fields: media.kind, "),
    ('"task.metadata" = "a"', ".task.metadata: is an object; name one of its keys, as in "),
    ('"task.metadata." = "a"', ".task.metadata: has an empty part; write a name after each dot"),
    ('"task.account" = 7', '.task.account: is text; use a pattern such as "shop-*"'),
    ('"task.account" = true', ".task.account: is text; use a pattern"),
    ('"task.account" = { min = 1 }', ".task.account: is text; use a pattern"),
    ('"task.account" = ["a", 7]', ".task.account: is text; use a pattern"),
    ('"task.account" = { not = 7 }', ".task.account: is text; use a pattern"),
    ('"task.cost" = true', ".task.cost: is a number; use 1, a list"),
    ('"task.cost" = { min = 2026-11-01 }', ".task.cost: is a number; use 1, a list"),
    ("occurred_at = 5", ".occurred_at: is a time; use a date, or { min = 2026-11-01, "),
    ("occurred_at = { min = 5 }", ".occurred_at: is a time; use a date"),
    ("occurred_at = 07:30:00", ".occurred_at: is a time; use a date"),
    ('corrected = "true"', ".corrected: is true or false; use one of them, without quotes"),
    ("corrected = 1", ".corrected: is true or false; use one of them"),
    ('trust = "sinned"', '.trust: "sinned" matches none of token, signed, queried'),
    ('trust = { not = "sinned" }', '.trust: "sinned" matches none of token, signed, queried'),
    ('"task.status" = "succeed"', '.task.status: "succeed" matches none of created, submitted, '),
    ('"task.provider" = "klng"', '.task.provider: "klng" matches none of kling, modellix'),
    ('type = "succeeded"', '.type: "succeeded" matches none of task.submitted, task.processing'),
    ('"task.account" = ""', ".task.account: is empty; for a field without a value, use { not = "),
    ('"task.account" = []', ".task.account: is an empty list, which no event can match"),
    ('"task.account" = {}', ".task.account: is an empty table; use min, max or not"),
    ('"task.cost" = { from = 1 }', '.task.cost: "from" is not a condition; use min, max or not'),
    ('"task.cost" = { min = 2, max = 1 }', ".task.cost: min is greater than max, so no event"),
    ('"task.cost" = { min = nan }', ".task.cost: nan is not a finite number"),
    ('"task.cost" = inf', ".task.cost: inf is not a finite number"),
    ('"task.cost" = 0x1' + "0" * 5000, ".task.cost: is an integer of more than 40 digits"),
    ('"task.cost" = { max = -1' + "0" * 41 + " }", ".task.cost: is an integer of more than 40"),
    ("value = 1", ".value: is not a field of an event"),
    ("key = 1", ".key: is not a field of an event"),
    ('"task.cost" = { min = "1" }', ".task.cost: min is neither a number nor a time such as 2026-"),
    ('"task.cost" = { max = true }', ".task.cost: max is neither a number nor a time"),
    ('"task.metadata.a" = { min = 1, max = 2026-11-01 }', ".task.metadata.a: min and max are a "),
    ('"task.metadata.a" = 07:30:00', ".task.metadata.a: use a pattern in quotes, a number, "),
    ('"task.metadata.a" = "${CAMPAIGN}"', '.task.metadata.a: "${CAMPAIGN}" contains a variable'),
    ('"task.account" = "a"\ntask.account = "b"', ".task.account: is used twice; use a list"),
]


@pytest.mark.parametrize(("table", "problem"), WRONG, ids=[table[:80] for table, _ in WRONG])
def test_a_mistake_is_reported_with_its_field_and_a_remedy(table: str, problem: str) -> None:
    (line,) = problems(f"[hook.where]\n{table}")
    assert line.startswith(problem), line


def test_a_key_of_the_hook_in_the_filter_is_explained() -> None:
    """In TOML, a key below the header of a table belongs to that table."""
    (line,) = problems("[hook.where]\nallow_private = true")
    assert line.endswith("; a key of the hook itself has to be above [hook.where]"), line


@pytest.mark.parametrize("value", ["7", '"a"', "[]", "true"])
def test_the_filter_has_to_be_a_table(value: str) -> None:
    example = 'where = { "task.account" = "shop-*" }'
    assert problems(f"where = {value}") == (f": is not a table; write one such as {example}",)


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(SettingsError) as caught:
        load('on = ["done"]\nwhere = { "task.acount" = "a", trust = "none" }')
    assert [line.split(": ")[2] for line in caught.value.problems] == [
        "on", "where.task.acount", "where.trust",
    ]  # fmt: skip


def nested(levels: int, opening: str, closing: str, inner: str = '"a"') -> str:
    return f'[hook.where]\n"task.account" = {opening * levels}{inner}{closing * levels}'


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (nested(9, "[", "]"), ".task.account: is nested more than 8 levels deep"),
        (nested(9, "{ not = ", " }"), ".task.account: is nested more than 8 levels deep"),
        (nested(200, "[", "]"), ".task.account: is nested more than 8 levels deep"),
        (
            f'where = {{ "task.account" = "{"*a" * 101}" }}',
            f'.task.account: "{"*a" * 40}…" has 202 characters; use at most 200',
        ),
        (
            f'where = {{ "task.account" = {["a"] * 1001} }}',
            ".task.account: has 1,001 values; use at most 1,000",
        ),
        (
            "[hook.where]\n" + "\n".join(f'"task.metadata.k{n}" = 1' for n in range(101)),
            ": has more than 100 conditions",
        ),
        (
            "[hook.where]\n" + "\n".join(f"k{n} = 1" for n in range(20_000)),
            ": has more than 100 conditions",
        ),
        (
            f'where = {{ "task.account" = {["a*"] * 101} }}',
            ".task.account: has 101 values that are not plain strings; use at most 100",
        ),
        (
            f'where = {{ "task.metadata{".a" * 15}" = 1 }}',
            f".task.metadata{'.a' * 15}: has more than 16 parts",
        ),
        (
            f'where = {{ "{"a" * 100_000}" = 1 }}',
            f".{'a' * 80}: is not a field of an event; use id",
        ),
    ],
    ids=[
        "lists",
        "nots",
        "many lists",
        "pattern",
        "list",
        "patterns",
        "conditions",
        "fields",
        "parts",
        "name",
    ],
)
def test_a_filter_has_limits(table: str, problem: str) -> None:
    (line,) = problems(table)
    assert line.startswith(problem), line[:200]


def test_a_filter_within_the_limits_is_accepted() -> None:
    for table in (
        nested(8, "[", "]"),
        f'where = {{ "task.account" = "{"*a" * 100}" }}',
        f'where = {{ "task.account" = {["a"] * 1000} }}',
        f'where = {{ "task.metadata{".a" * 14}" = 1 }}',
    ):
        assert len(load(table).conditions) == 1


def test_a_long_value_is_compared_up_to_a_limit() -> None:
    reason = "a" * conditions.LONGEST_TEXT
    filter_ = load('where = { "task.reason" = "*b" }')
    for text, matches in ((f"{reason[1:]}b", True), (f"{reason}b", False), (f"{reason}c", False)):
        failure = replace(FAILURE, task=replace(FAILURE.task, reason=text))
        assert filter_.matches(failure) is matches


DOCUMENTS: list[Callable[[int], dict[str, Any]]] = [  # metadata of a given size
    lambda size: {"a": ["x"] * size},
    lambda size: {"a": [{"a": "x"}] * size},
    lambda size: {f"k{number}": number for number in range(size)},
    lambda size: {"a": {"a": ["x" * size, [1] * size]}},
    lambda size: {"a.a": [[["x"]]] * size, "a": {"a": size}},
    lambda size: {"a": "9" * size},
    lambda size: {"a": int("9" * min(size, 100))},
    lambda size: {"a": "2026-11-21T05:12:24Z" * size},
]


@pytest.mark.parametrize("number", range(len(DOCUMENTS)))
def test_the_steps_grow_linearly_with_the_event(number: int) -> None:
    table = '"task.metadata.a" = ["*b*c", 1, { min = 2 }, { max = 2020-01-01 }]\n'
    table += '"task.metadata.a.a" = { not = ["y", "z?"] }'
    filter_ = load(f"[hook.where]\n{table}")

    def read(size: int) -> None:
        notice = replace(SUCCESS, task=replace(TASK, metadata=DOCUMENTS[number](size)))
        filter_.matches(notice)

    assert grows_linearly(read, 150)


def test_the_steps_grow_linearly_with_the_media() -> None:
    filter_ = load('where = { media.url = ["*.mp3", { not = "*" }], media.kind = "audio" }')

    def read(size: int) -> None:
        outputs = (Media("image", f"https://cdn.example/{'a' * size}"),) * size
        assert not filter_.matches(replace(SUCCESS, media=outputs))

    assert grows_linearly(read, 150)


def test_nested_metadata_is_read_without_recursion() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    for metadata in ({"a": deep}, {"a": [{"a": deep}]}):
        notice = replace(SUCCESS, task=replace(TASK, metadata=metadata))
        assert load('where = { "task.metadata.a" = ["x", "*"] }').matches(notice)


@pytest.mark.parametrize(
    "value",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-W01-1", "20261121", "a" * 30,
     "2026-11-21T05:12:24" + "0" * 30, "1e999999999", "9" * 43, "-", "٣", 1e308, -0.0,
     float("inf"), 10**99, None, {}, [], [[]], True],
)  # fmt: skip
def test_no_value_makes_a_filter_fail(value: object) -> None:
    notice = replace(SUCCESS, task=replace(TASK, metadata={"a": value}, cost=str(value)))
    limits = ("{ min = 5 }", "{ max = 5.5 }", "7", "2026-11-21", "{ max = 2026-11-21 }", '"*x*"')
    for limit in limits:
        load(f'where = {{ "task.metadata.a" = {limit} }}').matches(notice)
    load('where = { "task.cost" = { min = -1e300, max = 5 } }').matches(notice)


def test_a_filter_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    filter_ = load('where = { "task.account" = ["shop-*", "b"], "task.cost" = { min = 1 } }')
    monkeypatch.delattr(where, "compiled")
    monkeypatch.delattr(conditions, "compiled")
    assert filter_.matches(SUCCESS)


def test_files_do_not_change_the_result() -> None:
    """A filter has the same result before and after files are downloaded."""
    file = File("0", "/files/0.png", "00", 1, "image/png")
    filter_ = load('where = { "media.url" = "*.png" }')
    assert filter_.matches(SUCCESS.with_files((file,)))


ONS = [frozenset({"succeeded"}), frozenset({"failed", "given_up"})]
PROVIDERS = [frozenset[str](), frozenset({"kling"}), frozenset({"modellix"})]
MATCHES = ["*", "ORDER-*", "GIFT-*"]
WHERES = [None, 'where = { trust = "signed" }', 'where = { trust = "queried" }']


def test_the_checks_explain_the_decision() -> None:
    for on, providers, match, table in product(ONS, PROVIDERS, MATCHES, WHERES):
        filter_ = None if table is None else load(table)
        subscription = Subscription("shop", on, providers, match, where=filter_)
        fires = subscription.includes(
            status="succeeded", provider="kling", reference="ORDER-7"
        ) and subscription.matches(SUCCESS)
        checks = list(subscription.checks(SUCCESS))
        assert fires == all(check.holds for check in checks), subscription
        assert [check.key for check in checks] == [
            "on",
            *(["providers"] if providers else []),
            *(["match"] if match != "*" else []),
            *(["where.trust"] if filter_ else []),
        ]


def test_a_check_has_the_values_of_the_event() -> None:
    filter_ = load(
        '[hook.where]\n"task.cost" = { min = 5 }\n"task.metadata.tags" = "vip"\n'
        '"media.kind" = "video"\n"media.index" = "0"'
    )
    found = [(check.key, check.value, check.holds) for check in filter_.checks(SUCCESS)]
    assert found == [
        ("where.task.cost", "2.50", False),
        ("where.task.metadata.tags", ["new", "vip", "nested", 3], True),
        ("where.media.kind", ["image", "video"], True),
        ("where.media.index", ["0", "1"], True),
        ("where.media", 2, False),  # no item meets both conditions
    ]


def test_a_filter_is_shown_as_in_the_file() -> None:
    table = (
        '{ trust = { not = "token" }, task.cost = { min = 1, max = 2.5 }, '
        'media.kind = ["image", "video"], occurred_at = { min = 2026-11-01T00:00:00Z } }'
    )
    filter_ = load(f"where = {table}")
    assert filter_ == load(f"where = {{ {filter_} }}")
    assert str(filter_).startswith('trust = { not = "token" }, task.cost = { min = 1, max = 2.5 }')
    assert filter_.as_json()["occurred_at"] == {"min": "2026-11-01T00:00:00Z"}


def test_on_star_subscribes_to_every_status_change() -> None:
    for on in ('["*"]', '["failed", "*"]'):
        text = f'[[hook]]\nname = "all"\ntype = "webhook"\non = {on}\n'
        (entry,) = hooks_file.parse(text, Path("hooks.toml"), lambda _: None)
        assert entry.subscription.on == set(hooks_file.HEARABLE)
