"""The contract of the submitter's provider adapters; all run through the same cases."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from receiver import providers as receiver_providers
from receiver.config.settings import Settings
from receiver.deliveries import GIVEN_UP, Subscription
from receiver.events import Callback, Source
from receiver.ingest import Ingest
from receiver.stores import Store
from receiver.tasks import Status, Task, Trust
from submitter import InputError, queries
from submitter.accounts import accounts_with_keys
from submitter.client import ONCE, Client, Patience
from submitter.errors import (
    ConfigurationError,
    NeverReached,
    NotFoundAtProvider,
    OutcomeUnknown,
    ProviderError,
    TryLater,
    UnexpectedAnswer,
    WrongAccount,
    WrongInput,
)
from submitter.pictures.inputs import TryOnInputs
from submitter.providers import PROVIDERS, Provider
from submitter.providers.base import PictureForm
from submitter.task_creation import TaskCreator, was_not_accepted
from tests.support.log_records import LogRecords
from tests.support.providers.base import Reply as ReplySample
from tests.support.providers.base import Samples, samples_of
from tests.support.scripted_provider import TOKEN, Asked, Reply, Scripted, once_reached, serving

# The clock is stopped, so that a busy machine does not reduce the number of attempts.
QUICK = Patience(delays=(0.01, 0.02), total=5, clock=lambda: 0.0)
PERSON, GARMENT = "https://x.example/human.jpg", "https://x.example/garment.jpg"
PICTURE = "iVBORw0KGgpoZWxsbw=="  # the beginning of a PNG, as Base64
PUBLIC_URL = "https://callbacks.example.com"


Adapters = Callable[..., Provider]
Creators = Callable[..., TaskCreator]


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serving() as scripted:
        yield scripted


@pytest.fixture(params=PROVIDERS)
def samples(request: pytest.FixtureRequest) -> Samples:
    return samples_of(request.param)


@pytest.fixture
def adapter(server: Scripted, samples: Samples) -> Adapters:
    def make(url: str | None = None, **limits: float) -> Provider:
        patient = QUICK if samples.repeats_creates else ONCE
        return samples.open(Client(url or server.url, patient=patient, brisk=QUICK, **limits))

    return make


@pytest.fixture
def make_creator(store: Store, adapter: Adapters, tmp_path: Path) -> Creators:
    def make(public_url: str | None = None, **more: Any) -> TaskCreator:
        settings = Settings(f"sqlite:///{tmp_path / 'receiver.db'}", ("a-secret",), public_url)
        hears = Subscription("mail", frozenset({"failed", GIVEN_UP}))
        return TaskCreator(Ingest(store, [hears]), adapter(**more), settings, sleep=lambda _: None)

    return make


def inputs_for(provider: Provider) -> TryOnInputs:
    """Return inputs whose garment is not at a URL, if the provider accepts that."""
    garment = GARMENT if provider.pictures is PictureForm.URL_ONLY else PICTURE
    return TryOnInputs(PERSON, garment, reference="ORDER-7")


def send(creator: TaskCreator) -> Task:
    inputs = inputs_for(creator.adapter)
    return creator.send(creator.record_task(inputs), inputs)


def replied(server: Scripted, sample: ReplySample, **headers: str) -> Reply:
    return server.say(sample.body, sample.status, **headers)


def query(server: Scripted, samples: Samples, **headers: str) -> list[Reply]:
    """Return the responses to the requests of one query."""
    return [server.say(body, 200, **headers) for body in samples.queried]


def callback_url(provider: Provider, request: Asked) -> str | None:
    """Return the callback URL in a create request, from the place that the adapter states."""
    place = provider.callback_place
    if place is None:
        return None
    if place.parameter:
        (url,) = parse_qs(urlsplit(request.path).query).get(place.parameter, [None])
        return url
    found: Any = request.json
    for key in place.keys:
        found = found.get(key, {})
    return found or None


def fetched_id(provider: Provider, samples: Samples) -> str:
    """Return the provider's id in the body that a query returns."""
    body = provider.fetch(provider_task_id=samples.queried_id).body
    received = Callback(provider.name, "task-1", body, 1, source=Source.QUERY)
    return receiver_providers.parse(received).provider_task_id


def only_task(store: Store) -> Task:
    (task,) = store.lists.tasks()
    return task


def heard(store: Store) -> list[str]:
    return [delivery.status for delivery in store.lists.deliveries()]


def test_an_adapter_agrees_with_that_of_the_receiver(adapter: Adapters) -> None:
    provider = adapter()
    receiving = receiver_providers.get(provider.name)
    assert provider.has_callbacks is receiving.has_callbacks
    assert 0 < provider.usual_seconds * 1000 < receiving.results_kept_for
    assert provider.default_model is not None or not provider.combining


def test_keys_are_read_from_the_settings_that_the_adapter_names(
    adapter: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = type(adapter())
    prefix = provider.name.upper()
    for key in provider.key_settings:
        monkeypatch.delenv(f"{prefix}_{key}", raising=False)
    with pytest.raises(ConfigurationError, match=f"{prefix}_({'|'.join(provider.key_settings)})"):
        provider.from_environment("default")
    monkeypatch.setenv(f"{prefix}_BASE_URL", "https://api.x.example/")
    for key in provider.key_settings:
        monkeypatch.setenv(f"{prefix}_SHOP2_{key}", TOKEN)
    assert provider.from_environment("shop2").base_url == "https://api.x.example"
    assert (
        "default"
        in dict(accounts_with_keys({f"{prefix}_{provider.key_settings[0]}": TOKEN})).values()
    )


def test_an_accepted_create_is_submitted(
    server: Scripted, make_creator: Creators, samples: Samples
) -> None:
    server.will(server.say(samples.created))
    creator = make_creator()
    task = send(creator)
    assert (task.status, task.trust) == (Status.SUBMITTED, Trust.QUERIED)
    assert (task.provider_task_id, task.reference) == (samples.created_id, "ORDER-7")
    (request,) = server.asked
    assert request.method == "POST"
    inputs = inputs_for(creator.adapter)
    for picture in (inputs.human, inputs.cloth):
        assert json.dumps(creator.adapter.pictures.encoded(picture)) in request.body.decode()


def test_pictures_are_sent_in_the_form_that_the_provider_accepts(adapter: Adapters) -> None:
    form = adapter().pictures
    assert form.encoded(PERSON) == PERSON
    form.check("human", PERSON)
    if form is PictureForm.URL_ONLY:
        with pytest.raises(InputError, match=r"^cloth: the provider accepts URLs only"):
            form.check("cloth", PICTURE)
        return
    form.check("cloth", PICTURE)
    prefix = "data:image/png;base64," if form is PictureForm.DATA_URI else ""
    assert form.encoded(PICTURE) == prefix + PICTURE


def test_the_callback_url_is_at_the_place_that_the_adapter_states(
    server: Scripted, make_creator: Creators, samples: Samples
) -> None:
    server.will(server.say(samples.created))
    public = make_creator(public_url=PUBLIC_URL)
    task = send(public)
    sent = callback_url(public.adapter, server.asked[0])
    begins = f"{PUBLIC_URL}/callbacks/{public.adapter.name}/{task.id}/"
    assert (sent or "").startswith(begins) is public.adapter.has_callbacks
    assert task.expects_callback is public.adapter.has_callbacks
    server.asked.clear()
    assert not send(make_creator()).expects_callback
    assert callback_url(public.adapter, server.asked[0]) is None
    assert "/callbacks/" not in unquote(server.asked[0].path) + server.asked[0].body.decode()


def test_the_first_query_waits_until_no_create_can_be_running(
    server: Scripted, make_creator: Creators, samples: Samples
) -> None:
    """Otherwise, a task that is known only by the provider's id would be given up too soon."""
    server.will(server.say(samples.created))
    behind_nat = make_creator()
    inputs = inputs_for(behind_nat.adapter)
    created = behind_nat.record_task(inputs)
    assert created.deadline_at is not None
    if not behind_nat.adapter.finds_by_our_id:
        assert created.deadline_at - created.created_at > 600_000
    submitted = behind_nat.send(created, inputs)
    assert submitted.deadline_at is not None
    assert submitted.deadline_at - created.created_at < 30_000


def test_wrong_input_is_refused_and_the_task_fails(
    server: Scripted, make_creator: Creators, store: Store, samples: Samples
) -> None:
    server.will(replied(server, samples.wrong_input))
    with pytest.raises(WrongInput) as caught:
        send(make_creator())
    task = only_task(store)
    assert caught.value.task_id == task.id
    assert caught.value.http_status == 400
    assert (task.status, (task.reason or "")[:9]) == (Status.FAILED, "refused: ")
    assert was_not_accepted(task)
    assert (len(server.asked), heard(store)) == (1, ["failed"])


def test_the_error_for_a_wrong_key_names_the_setting_and_is_not_retried(
    server: Scripted, make_creator: Creators, adapter: Adapters, store: Store, samples: Samples
) -> None:
    server.will(replied(server, samples.wrong_key))
    with pytest.raises(WrongAccount, match=rf"check {adapter().name.upper()}_"):
        send(make_creator())
    assert len(server.asked) == 1
    assert was_not_accepted(only_task(store))
    with pytest.raises(WrongAccount):
        adapter().fetch(provider_task_id="8")


def test_a_rate_limited_create_is_refused_in_the_end(
    server: Scripted, make_creator: Creators, store: Store, samples: Samples
) -> None:
    server.will(replied(server, samples.limited))
    with pytest.raises(TryLater) as caught:
        send(make_creator())
    assert caught.value.retry_after is None
    assert len(server.asked) == (3 if samples.repeats_creates else 1)
    assert was_not_accepted(only_task(store))


def test_a_requested_delay_is_passed_to_the_caller(
    server: Scripted, adapter: Adapters, samples: Samples
) -> None:
    reset = int(time.time()) + 4000
    for headers, wait in (
        ({"Retry_After": "70"}, lambda _: 70.0),
        (
            {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": str(reset)},
            lambda now: reset - now,
        ),
    ):
        asked_at = time.time()
        server.asked.clear()
        server.will(replied(server, samples.limited, **headers))
        with pytest.raises(TryLater) as caught:
            adapter().fetch(provider_task_id="8")
        assert caught.value.retry_after is not None
        assert wait(time.time()) <= caught.value.retry_after <= wait(asked_at)
        assert len(server.asked) == 1  # the delay is longer than the patience of a query


def test_a_rate_limited_query_is_repeated(
    server: Scripted, adapter: Adapters, samples: Samples
) -> None:
    server.will(replied(server, samples.limited), *query(server, samples))
    assert fetched_id(adapter(), samples) == samples.queried_id
    assert len(server.asked) == 1 + len(samples.queried)


def test_the_quota_is_passed_to_the_caller(
    server: Scripted, adapter: Adapters, samples: Samples
) -> None:
    left: dict[str, Any] = {"X_RateLimit_Limit": "100", "X_RateLimit_Remaining": "7"}
    server.will(*query(server, samples, **left, X_RateLimit_Reset="1765519848"))
    quota = adapter().fetch(provider_task_id=samples.queried_id).quota
    assert quota is not None
    assert (quota.remaining, quota.reset_at) == (7, 1_765_519_848_000)
    for odd in ("soon", "-1", "1e9", "9" * 20, ""):
        server.will(*query(server, samples, **left, X_RateLimit_Reset=odd))
        assert adapter().fetch(provider_task_id=samples.queried_id).quota is None


@pytest.mark.parametrize("lost", ["server_error", "hang_up", "hang_up_within_the_body", "drip"])
def test_a_create_with_a_lost_outcome_is_never_sent_twice(
    server: Scripted, make_creator: Creators, store: Store, samples: Samples, lost: str
) -> None:
    reply = (
        replied(server, samples.server_error) if lost == "server_error" else getattr(server, lost)
    )
    server.will(reply, replied(server, samples.unknown_id))
    creator = make_creator(create_within=0.5)
    with pytest.raises(OutcomeUnknown, match="do not submit it again without checking") as caught:
        send(creator)
    creates = [request for request in server.asked if PERSON.encode() in request.body]
    task = only_task(store)
    assert (len(creates), caught.value.task_id) == (1, task.id)
    assert task.status is Status.CREATED
    assert not was_not_accepted(task)
    # When no response or callback can report the outcome any more, the record shows it.
    assert (task.given_up_at is None) is creator.adapter.finds_by_our_id
    assert heard(store) == ([] if creator.adapter.finds_by_our_id else [GIVEN_UP])


def test_a_task_is_not_given_up_while_a_callback_may_report_its_outcome(
    server: Scripted, make_creator: Creators, store: Store, samples: Samples
) -> None:
    server.will(server.hang_up, replied(server, samples.unknown_id))
    public = make_creator(public_url=PUBLIC_URL)
    with pytest.raises(OutcomeUnknown):
        send(public)
    assert (only_task(store).given_up_at is None) is public.adapter.has_callbacks


def test_a_refused_connection_means_never_reached(make_creator: Creators, store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NeverReached, match="Connection refused"):
        send(make_creator(url=f"http://127.0.0.1:{port}"))
    task = only_task(store)
    assert (task.status, task.reason) == (Status.FAILED, "never reached")
    assert was_not_accepted(task)


def test_an_unknown_id_is_an_error_of_the_query_and_changes_nothing(
    server: Scripted, make_creator: Creators, store: Store, samples: Samples
) -> None:
    server.will(server.say(samples.created), replied(server, samples.unknown_id))
    creator = make_creator()
    task = send(creator)
    with pytest.raises(NotFoundAtProvider):
        queries.query(creator.ingest, creator.adapter, task)
    assert store.queries.task(task.id) == task


def test_a_provider_is_queried_by_our_own_id_if_it_supports_that(
    server: Scripted, adapter: Adapters, samples: Samples
) -> None:
    server.will(replied(server, samples.unknown_id))
    one = adapter()
    with pytest.raises(NotFoundAtProvider):
        one.fetch(external_task_id="our-own-id")
    assert len(server.asked) == (1 if one.finds_by_our_id else 0)


def test_a_response_about_another_task_is_refused(
    server: Scripted, adapter: Adapters, samples: Samples
) -> None:
    server.will(*query(server, samples))
    with pytest.raises(UnexpectedAnswer, match="described another one"):
        adapter().fetch(provider_task_id="not-this-one")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"code": "0"}', b'{"code": NaN}', b""])
def test_an_unexpected_response_is_reported(
    server: Scripted, adapter: Adapters, make_creator: Creators, body: bytes
) -> None:
    server.will(server.say(body))
    with pytest.raises(UnexpectedAnswer, match="_BASE_URL"):
        adapter().fetch(provider_task_id="8")
    with pytest.raises(OutcomeUnknown):  # a create with such a response may have been accepted
        send(make_creator())
    server.will(server.say(body, 404))
    for call in (lambda: adapter().fetch(provider_task_id="8"), lambda: send(make_creator())):
        with pytest.raises(UnexpectedAnswer, match="_BASE_URL"):
            call()


@pytest.mark.parametrize("drip", ["drip", "drip_a_whole_answer"])
def test_a_slow_response_cannot_block_a_query(
    server: Scripted, adapter: Adapters, drip: str
) -> None:
    server.will(getattr(server, drip))

    def fetch(within: float) -> None:
        with pytest.raises(TryLater, match=rf"no answer within {within:g} s"):
            adapter(answer_within=within).fetch(provider_task_id="8")

    once_reached(fetch)


def test_a_query_is_repeated_after_5xx_and_without_a_response(
    server: Scripted, adapter: Adapters, samples: Samples
) -> None:
    server.will(replied(server, samples.server_error), server.hang_up, *query(server, samples))
    assert fetched_id(adapter(), samples) == samples.queried_id


def test_the_providers_id_is_escaped_in_the_request(
    server: Scripted, adapter: Adapters, samples: Samples
) -> None:
    server.will(replied(server, samples.unknown_id))
    with pytest.raises(NotFoundAtProvider):
        adapter().fetch(provider_task_id="a/b?c#d")
    request = server.asked[0]
    assert "a%2Fb%3Fc%23d" in request.path or '"a/b?c#d"' in request.body.decode()


def test_the_list_is_returned_or_refused_before_any_request(
    server: Scripted, adapter: Adapters, samples: Samples
) -> None:
    server.will(server.say(samples.empty_list))
    if samples.empty_list is not None:
        assert adapter().list(1, 30).tasks == ()
        return
    with pytest.raises(InputError, match="has no list of tasks"):
        adapter().list(1, 30)
    assert server.asked == []


def test_the_keys_are_in_one_header_and_in_no_error_log_or_row(
    server: Scripted,
    make_creator: Creators,
    store: Store,
    samples: Samples,
    log_records: LogRecords,
) -> None:
    errors = []
    for reply in (server.hang_up, replied(server, samples.wrong_key), server.say(b"<", 502)):
        server.will(reply)
        with pytest.raises(ProviderError) as caught:
            send(make_creator(answer_within=0.3))
        link: BaseException | None = caught.value
        while link is not None:
            errors.append(repr(link) + str(link) + repr(vars(link)))
            link = link.__cause__ or link.__context__
    rows = repr([(stored.callback, stored.problem) for stored in store.lists.callbacks()])
    assert TOKEN not in "".join(errors) + log_records.text + rows + repr(store.lists.tasks())
    for request in server.asked:
        assert sum(TOKEN in value for value in request.headers.values()) == 1
        assert TOKEN not in request.path + request.body.decode()
