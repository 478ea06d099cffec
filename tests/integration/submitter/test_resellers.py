"""The protocols and settings that are specific to Modellix and Appy Pie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from receiver.config.settings import Settings
from receiver.errors import NotTheProtocol, StoreUnavailable
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.stores import Store
from receiver.tasks import Outcome, Status
from submitter.cli import main
from submitter.client import Client, Patience
from submitter.errors import (
    ConfigurationError,
    NotFoundAtProvider,
    OutcomeUnknown,
    ProviderError,
    TryLater,
    UnexpectedAnswer,
    WrongAccount,
    WrongInput,
)
from submitter.pictures.inputs import TryOnInputs
from submitter.providers import modellix
from submitter.providers.appypie import AppyPie
from submitter.providers.base import TryOn
from submitter.providers.modellix import Modellix
from submitter.task_creation import TaskCreator, was_not_accepted
from tests.support.scripted_provider import PAYLOADS, TOKEN, Scripted

ORDER = TryOn("https://x.example/human.jpg", "aGVsbG8=", external_task_id="our-own-id")
QUICK = Patience(delays=(0.01,), total=5, clock=lambda: 0.0)
SHORT_PATH = "/api/v1/kling/{model}/async"  # the spelling in newer pages of the vendor


def payload(name: str) -> bytes:
    return (PAYLOADS.parent / name).read_bytes()


@pytest.fixture
def client(server: Scripted) -> Client:
    return Client(server.url, patient=QUICK, brisk=QUICK)


def sent(server: Scripted) -> tuple[str, str, Any]:
    (asked,) = server.asked
    return asked.method, asked.path, asked.json


@pytest.mark.parametrize("path", [modellix.CREATE_PATH, SHORT_PATH])
@pytest.mark.parametrize("model", [None, "kolors-virtual-try-on-v1"])
def test_modellix_receives_two_pictures_and_nothing_else(
    server: Scripted, client: Client, path: str, model: str | None
) -> None:
    server.will(server.say(payload("modellix/create.json")))
    inputs = TryOn(ORDER.human, ORDER.cloth, "our-own-id", model, callback_url="https://c.example")
    Modellix(client, TOKEN, path).create(inputs)
    spelled = path.replace("{model}", model or "kolors-virtual-try-on-v1-5")
    body = {"human_image": ORDER.human, "cloth_image": ORDER.cloth}
    assert sent(server) == ("POST", spelled, body)
    assert server.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_modellix_is_queried_by_its_id(server: Scripted, client: Client) -> None:
    server.will(server.say(payload("modellix/query-pending.json")))
    answer = Modellix(client, TOKEN).fetch(provider_task_id="task-abc123")
    assert answer.body == payload("modellix/query-pending.json")
    assert (server.asked[0].method, server.asked[0].path) == ("GET", "/api/v1/tasks/task-abc123")


@pytest.mark.parametrize(
    ("code", "on_create", "on_fetch"),
    [
        (400, WrongInput, WrongInput),
        (401, WrongAccount, WrongAccount),
        (402, WrongAccount, WrongAccount),
        (403, WrongAccount, WrongAccount),
        (404, WrongInput, NotFoundAtProvider),
        (408, OutcomeUnknown, UnexpectedAnswer),
        (422, WrongInput, WrongInput),
        (429, TryLater, TryLater),
        (500, OutcomeUnknown, TryLater),
        (503, OutcomeUnknown, TryLater),
    ],
)
def test_each_code_of_modellix_has_one_meaning(
    server: Scripted,
    client: Client,
    code: int,
    on_create: type[ProviderError],
    on_fetch: type[ProviderError],
) -> None:
    server.will(server.say({"code": code, "message": "Category: what it says"}, code))
    adapter = Modellix(client, TOKEN)
    calls: list[tuple[Callable[[], object], type[ProviderError]]] = [
        (lambda: adapter.create(ORDER), on_create),
        (lambda: adapter.fetch(provider_task_id="8"), on_fetch),
    ]
    for call, kind in calls:
        with pytest.raises(ProviderError, match="Category: what it says") as caught:
            call()
        assert type(caught.value) is kind


def test_an_unknown_code_leaves_the_outcome_of_a_create_open(
    server: Scripted, client: Client
) -> None:
    server.will(server.say({"code": 1001, "message": "odd"}))
    with pytest.raises(OutcomeUnknown):
        Modellix(client, TOKEN).create(ORDER)


def test_appy_pie_receives_its_headers_and_klings_names(server: Scripted, client: Client) -> None:
    server.will(server.say(payload("appypie/create.json")))
    inputs = TryOn(ORDER.human, ORDER.cloth, "our-own-id", None, "https://c.example/callback")
    AppyPie(client, TOKEN).create(inputs)
    body = {
        "human_image": ORDER.human,
        "cloth_image": ORDER.cloth,
        "callback_url": "https://c.example/callback",
    }
    assert sent(server) == ("POST", "/kling-ai-vton/v1/getVirtualTryOnTask", body)
    headers = server.asked[0].headers
    assert headers["Ocp-Apim-Subscription-Key"] == TOKEN
    assert (headers["Cache-Control"], headers["Content-Type"]) == ("no-cache", "application/json")
    assert "Authorization" not in headers


def test_appy_pie_is_queried_by_post(server: Scripted, client: Client) -> None:
    server.will(server.say(payload("appypie/query-succeed.json")))
    AppyPie(client, TOKEN).fetch(provider_task_id="ChBRS2c7DlgAAAAAAAXXXX")
    assert sent(server) == (
        "POST",
        "/kling-ai-polling/v1/getVirtualTryOnStatus",
        {"task_id": "ChBRS2c7DlgAAAAAAAXXXX"},
    )


@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_task_not_found_is_an_error_of_the_query_with_any_status(
    server: Scripted, client: Client, status: int
) -> None:
    server.will(server.say(payload("appypie/task-not-found.json"), status))
    with pytest.raises(NotFoundAtProvider, match="task not found"):
        AppyPie(client, TOKEN).fetch(provider_task_id="8")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "on_create", "on_fetch"),
    [
        (400, {"error": "no"}, WrongInput, WrongInput),
        (401, {"error": "no"}, WrongAccount, WrongAccount),
        (401, {"statusCode": 401, "message": "no"}, WrongAccount, WrongAccount),
        (403, {"error": "no"}, WrongAccount, WrongAccount),
        (404, {"error": "no"}, WrongInput, NotFoundAtProvider),
        (429, {"error": "no"}, TryLater, TryLater),
        (429, {"statusCode": 429, "message": "no"}, TryLater, TryLater),
        (500, {"error": "no"}, OutcomeUnknown, TryLater),
        (200, {"error": "no"}, OutcomeUnknown, UnexpectedAnswer),
        (200, {"code": 1303, "message": "no"}, TryLater, TryLater),
        (200, {"code": 1102, "message": "no"}, WrongAccount, WrongAccount),
        (200, {"task_status": "failed"}, OutcomeUnknown, NotFoundAtProvider),
    ],
)
def test_both_error_formats_of_appy_pie_mean_the_same(
    server: Scripted,
    client: Client,
    status: int,
    body: dict[str, Any],
    on_create: type[ProviderError],
    on_fetch: type[ProviderError],
) -> None:
    server.will(server.say(body, status))
    adapter = AppyPie(client, TOKEN)
    calls: list[tuple[Callable[[], object], type[ProviderError]]] = [
        (lambda: adapter.create(ORDER), on_create),
        (lambda: adapter.fetch(provider_task_id="8"), on_fetch),
    ]
    for call, kind in calls:
        with pytest.raises(ProviderError) as caught:
            call()
        assert type(caught.value) is kind


NAMES = ("MODELLIX_API_KEY", "MODELLIX_CREATE_PATH", "APPYPIE_SUBSCRIPTION_KEY")


@pytest.mark.parametrize(
    ("provider", "given", "named"),
    [
        ("modellix", {}, "MODELLIX_API_KEY: not set"),
        ("appypie", {}, "APPYPIE_SUBSCRIPTION_KEY: not set"),
        ("modellix", {"MODELLIX_API_KEY": "a b"}, "MODELLIX_API_KEY: the value contains a space"),
        (
            "modellix",
            {"MODELLIX_API_KEY": "k", "MODELLIX_CREATE_PATH": "/api/v1/x/async"},
            "MODELLIX_CREATE_PATH: /api/v1/x/async is not a path that contains {model}",
        ),
    ],
)
def test_each_invalid_setting_is_one_line(provider: str, given: dict[str, str], named: str) -> None:
    environment = {**dict.fromkeys(NAMES), **given}
    result = CliRunner().invoke(main, ["list", "--provider", provider], env=environment)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert result.stderr.startswith(f"submitter: {named}")


@pytest.mark.parametrize(
    ("provider", "key"),
    [("modellix", "MODELLIX_SHOP2_API_KEY"), ("appypie", "APPYPIE_SHOP2_SUBSCRIPTION_KEY")],
)
def test_a_provider_without_a_list_is_reported(provider: str, key: str) -> None:
    words = ["list", "--provider", provider, "--account", "shop2"]
    result = CliRunner().invoke(main, words, env={key: TOKEN})
    assert result.exit_code == 2
    assert "has no list of tasks; see those on record: receiver tasks" in result.stderr


def test_both_spellings_of_the_path_can_be_set_per_account(
    monkeypatch: pytest.MonkeyPatch, server: Scripted
) -> None:
    monkeypatch.setenv("MODELLIX_API_KEY", TOKEN)
    monkeypatch.setenv("MODELLIX_SHOP2_API_KEY", TOKEN)
    monkeypatch.setenv("MODELLIX_BASE_URL", server.url)
    monkeypatch.setenv("MODELLIX_SHOP2_CREATE_PATH", SHORT_PATH)
    server.will(server.say(payload("modellix/create.json")))
    for account in ("default", "shop2"):
        Modellix.from_environment(account).create(ORDER)
    paths = [asked.path for asked in server.asked]
    name = "kolors-virtual-try-on-v1-5"
    assert paths == [f"/api/v1/image-to-image/kling/{name}/async", f"/api/v1/kling/{name}/async"]
    monkeypatch.delenv("MODELLIX_API_KEY")
    with pytest.raises(ConfigurationError, match="MODELLIX_API_KEY: not set"):
        Modellix.from_environment("default")


def test_submit_and_status_follow_a_modellix_task_to_its_picture(
    server: Scripted, store: Store, database: Path, tmp_path: Path
) -> None:
    (tmp_path / "hooks.toml").touch()
    environment = {
        "DATABASE_URL": f"sqlite:///{database}",
        "HOOKS_FILE": str(tmp_path / "hooks.toml"),
        "MODELLIX_API_KEY": TOKEN,
        "MODELLIX_BASE_URL": server.url,
        "PUBLIC_URL": "https://callbacks.example.com",
    }
    picture = "https://x.example/a.png"
    words = ["submit", "--provider", "modellix", "--human", picture, "--cloth", picture]
    server.will(server.say(payload("modellix/create.json")))
    assert CliRunner().invoke(main, words, env=environment).exit_code == 0
    (task,) = store.lists.tasks()
    assert (task.status, task.expects_callback) == (Status.SUBMITTED, False)
    server.will(server.say(payload("modellix/query-success.json")))
    result = CliRunner().invoke(main, ["status", task.id], env=environment)
    assert result.exit_code == 0
    assert "https://cdn.example.com/images/abc123.png" in result.stdout
    assert store.queries.task(task.id).status is Status.SUCCEEDED


class Stumbling(Ingest):
    """An `Ingest` that fails at the first call."""

    knocks: ClassVar[list[int]] = []

    def accept(self, callback: Callback) -> Outcome:
        self.knocks.append(1)
        if len(self.knocks) == 1:
            raise StoreUnavailable("the disk is full")
        return super().accept(callback)


def test_the_only_id_of_a_paid_task_is_recorded_at_the_second_try(
    server: Scripted, store: Store, client: Client, database: Path
) -> None:
    server.will(server.say(payload("modellix/create.json")))
    settings = Settings(f"sqlite:///{database}", ("a-callback-secret",))
    slept: list[float] = []
    creator = TaskCreator(Stumbling(store), Modellix(client, TOKEN), settings, sleep=slept.append)
    inputs = TryOnInputs(ORDER.human, ORDER.cloth)
    assert (
        creator.send(creator.record_task(inputs), inputs).provider_task_id == "task-vto-v15-abc123"
    )
    assert (len(slept), len(server.asked)) == (1, 1)


class Puzzled(Ingest):
    """An `Ingest` that cannot parse a refusal."""

    def accept(self, callback: Callback) -> Outcome:
        raise NotTheProtocol(f"what does {callback.body!r} mean?")


def test_an_unparsable_refusal_ends_the_task_nevertheless(
    server: Scripted, store: Store, client: Client, database: Path
) -> None:
    server.will(server.say(payload("modellix/error-400.json"), 400))
    settings = Settings(f"sqlite:///{database}", ("a-callback-secret",))
    creator = TaskCreator(Puzzled(store), Modellix(client, TOKEN), settings)
    inputs = TryOnInputs(ORDER.human, ORDER.cloth)
    with pytest.raises(WrongInput):
        creator.send(creator.record_task(inputs), inputs)
    (task,) = store.lists.tasks()
    assert (task.status, was_not_accepted(task)) == (Status.FAILED, True)
