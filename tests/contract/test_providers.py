"""The contract of the receiver's provider adapters; all adapters run through the same cases."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import providers
from receiver.config.settings import Settings
from receiver.errors import BadSignature, NotJson, RequestRefused
from receiver.events import Callback, Source
from receiver.ingest import Ingest
from receiver.providers import PROVIDERS, Provider, status_for
from receiver.providers.fields import checked
from receiver.signing.callback_urls import mint
from receiver.stores import Store
from receiver.tasks import Outcome, Status, Trust
from receiver.text.display import HIDDEN
from receiver.web.callbacks import CallbackRequest, admit
from submitter import providers as submitter_providers
from tests.support.providers.base import REASON, samples_of
from tests.support.samples import SECRET, callback

NOW = 1_765_519_851  # Unix seconds
ADAPTERS = list(PROVIDERS.values())
WITH_CALLBACKS = [adapter for adapter in ADAPTERS if adapter.has_callbacks]
SIGNING = [adapter for adapter in ADAPTERS if adapter.verification is not None]


def every(adapters: list[Provider]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("adapter", adapters, ids=lambda adapter: adapter.name)


def message(adapter: Provider, raw: bytes, source: Source) -> Callback:
    return replace(callback(raw, source=source), provider=adapter.name)


@every(ADAPTERS)
def test_an_adapter_is_registered_under_its_name(adapter: Provider) -> None:
    assert PROVIDERS[adapter.name] is adapter
    assert re.fullmatch("[a-z][a-z0-9_]*", adapter.name)  # for URLs and names of settings
    assert samples_of(adapter.name).created


@every(ADAPTERS)
def test_the_submitter_has_an_adapter_with_the_same_facts(adapter: Provider) -> None:
    submitting = submitter_providers.PROVIDERS[adapter.name]
    assert submitting.name == adapter.name
    assert (submitting.callback_place is not None) is adapter.has_callbacks


def test_no_adapter_is_omitted() -> None:
    assert PROVIDERS.problems == []
    assert submitter_providers.PROVIDERS.problems == []


@every(ADAPTERS)
def test_statuses_are_in_lower_case_and_include_both_final_ones(adapter: Provider) -> None:
    assert all(spelling == spelling.lower() for spelling in adapter.statuses)
    assert {Status.SUCCEEDED, Status.FAILED} <= set(adapter.statuses.values())
    assert all(status_for(spelling.upper()) for spelling in adapter.statuses)


@every(ADAPTERS)
def test_a_success_contains_a_picture_and_the_provider(adapter: Provider) -> None:
    event = adapter.parse(message(adapter, samples_of(adapter.name).succeeded, Source.QUERY))
    assert (event.provider, event.status) == (adapter.name, Status.SUCCEEDED)
    assert [media.kind for media in event.media] == ["image"]
    assert event.provider_task_id


@every(ADAPTERS)
def test_a_result_expires_at_the_time_that_the_adapter_states(adapter: Provider) -> None:
    event = adapter.parse(message(adapter, samples_of(adapter.name).succeeded, Source.QUERY))
    ends_at = event.occurred_at + adapter.results_kept_for
    assert adapter.results_kept_for > 0
    assert all(media.expires_at == ends_at for media in event.media)


@every(ADAPTERS)
def test_a_created_task_is_open_and_has_an_id(adapter: Provider) -> None:
    samples = samples_of(adapter.name)
    event = adapter.parse(message(adapter, samples.created, Source.CREATE))
    assert event.provider_task_id == samples.created_id
    assert not event.status.is_terminal


@every(ADAPTERS)
def test_parsing_is_pure(adapter: Provider) -> None:
    received = message(adapter, samples_of(adapter.name).succeeded, Source.QUERY)
    assert adapter.parse(received) == adapter.parse(received)


@every(ADAPTERS)
def test_a_refused_create_ends_the_task_with_the_reason(adapter: Provider) -> None:
    raw = samples_of(adapter.name).refused
    event = adapter.parse(message(adapter, raw, Source.CREATE))
    assert (event.status, event.provider_task_id) == (Status.FAILED, "")
    assert event.reason is not None
    assert event.reason.startswith("refused: ")
    assert REASON in event.reason
    with pytest.raises(RequestRefused):
        adapter.parse(message(adapter, raw, Source.QUERY))


@every(ADAPTERS)
@pytest.mark.parametrize("source", list(Source))
@pytest.mark.parametrize("raw", [b"", b"<html>", b'{"a": nan}', b'{"a": 1, "a"}'])
def test_a_body_that_is_not_json_is_refused(adapter: Provider, source: Source, raw: bytes) -> None:
    with pytest.raises(NotJson):
        adapter.parse(message(adapter, raw, source))


@every(ADAPTERS)
@pytest.mark.parametrize("source", list(Source))
@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b"[]",
        b'{"hello": "world"}',
        b'{"data": {}}',
        b'{"code": 0}',
        b'{"code": 0, "data": null}',
        b'{"code": 0, "data": {"task_id": 1, "task_status": 2, "status": 3}}',
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
    ],
)
def test_a_body_without_a_status_is_refused_or_means_a_refusal(
    adapter: Provider, source: Source, raw: bytes
) -> None:
    try:
        event = adapter.parse(message(adapter, raw, source))
    except RequestRefused:
        return
    assert (source, event.status) == (Source.CREATE, Status.FAILED)


@every(ADAPTERS)
def test_callbacks_are_parsed_only_if_the_provider_sends_them(adapter: Provider) -> None:
    samples = samples_of(adapter.name)
    assert (samples.callback is not None) is adapter.has_callbacks
    if samples.callback is not None:
        event = adapter.parse(message(adapter, samples.callback, Source.CALLBACK))
        assert (event.status, len(event.media)) == (Status.SUCCEEDED, 1)
    else:
        with pytest.raises(RequestRefused):
            adapter.parse(message(adapter, samples.succeeded, Source.CALLBACK))


@every(WITH_CALLBACKS)
def test_a_schema_describes_the_callbacks(adapter: Provider) -> None:
    samples = samples_of(adapter.name)
    assert samples.callback is not None
    dropped: list[str] = []
    document = json.loads(samples.callback)
    matching = [schema for schema in adapter.schemas if not schema().validate(document)]
    assert matching
    assert checked(matching[0](), document, dropped)
    assert dropped == []


@every(ADAPTERS)
def test_a_success_without_a_result_is_queried_immediately(adapter: Provider, store: Store) -> None:
    source = Source.CALLBACK if adapter.has_callbacks else Source.QUERY
    received = message(adapter, samples_of(adapter.name).without_result, source)
    event = adapter.parse(received)
    assert (event.status, event.media) == (Status.SUCCEEDED, ())
    assert Ingest(store).accept(received) is Outcome.CONFIRMING
    task = store.queries.task("task-1")
    assert not task.status.is_terminal
    if source is Source.CALLBACK:
        assert task.deadline_at is not None
        assert task.deadline_at <= received.received_at


@every(ADAPTERS)
@given(raw=st.binary(), source=st.sampled_from(Source))
def test_any_bytes_are_parsed_or_refused(adapter: Provider, raw: bytes, source: Source) -> None:
    try:
        adapter.parse(message(adapter, raw, source))
    except RequestRefused:
        return


@every(ADAPTERS)
def test_the_reference_clock_is_a_url(adapter: Provider) -> None:
    if adapter.clock is not None:
        assert adapter.clock.url.startswith("https://")
        assert adapter.clock.setting.startswith(f"{adapter.name.upper()}_")


# -- verification


@every(SIGNING)
def test_a_signed_callback_is_verified(adapter: Provider) -> None:
    samples = samples_of(adapter.name)
    assert adapter.verification is not None
    assert samples.sign is not None
    assert samples.callback is not None
    headers = samples.sign(samples.callback, NOW)
    secrets = adapter.verification.setting.read(samples.secrets)
    assert all(name == name.lower() for name in headers)
    assert adapter.verification.is_signed(headers)
    adapter.verification.verify(headers, samples.callback, secrets, NOW + 60)
    adapter.verification.verify(headers, samples.callback, (*other(adapter), *secrets), NOW)


@every(SIGNING)
def test_another_body_secret_or_time_is_refused(adapter: Provider) -> None:
    samples = samples_of(adapter.name)
    verification = adapter.verification
    assert verification is not None
    assert samples.sign is not None
    assert samples.callback is not None
    headers = samples.sign(samples.callback, NOW)
    secrets = verification.setting.read(samples.secrets)
    with pytest.raises(BadSignature, match=r".") as caught:
        verification.verify(headers, samples.callback, other(adapter), NOW)
    assert caught.value.kind == "wrong_signature"
    for cut in headers:
        rest = {name: value for name, value in headers.items() if name != cut}
        with pytest.raises(BadSignature):
            verification.verify(rest, samples.callback, secrets, NOW)
    if verification.covers_body:
        with pytest.raises(BadSignature):
            verification.verify(headers, samples.callback + b" ", secrets, NOW)
    if samples.has_signing_time:
        for now in (NOW - 3600, NOW + 3600):
            with pytest.raises(BadSignature) as caught:
                verification.verify(headers, samples.callback, secrets, now)
            assert caught.value.kind == "stale_signature"


def other(adapter: Provider) -> tuple[str, ...]:
    """Return secrets in the adapter's format that signed nothing: the last letter differs."""
    assert adapter.verification is not None
    text = samples_of(adapter.name).secrets
    last = max(index for index, letter in enumerate(text) if letter.isalnum())
    changed = text[: last - 1] + ("A" if text[last - 1] != "A" else "B") + text[last:]
    return adapter.verification.setting.read(changed)


@every(SIGNING)
def test_headers_of_other_requests_are_not_a_signature(adapter: Provider) -> None:
    assert adapter.verification is not None
    headers = {"content-type": "application/json", "user-agent": "x", "authorization": "Bearer x"}
    assert not adapter.verification.is_signed({})
    assert not adapter.verification.is_signed(headers)


@every(SIGNING)
def test_the_error_for_an_unusable_secret_does_not_contain_it(adapter: Provider) -> None:
    assert adapter.verification is not None
    setting = adapter.verification.setting
    assert setting.name.startswith(f"{adapter.name.upper()}_")
    assert setting.is_secret
    assert setting.summary.endswith(".")
    with pytest.raises(ValueError, match=r".") as caught:
        setting.read("se€ret")
    assert "se€ret" not in str(caught.value)


@every(WITH_CALLBACKS)
def test_a_callback_is_accepted_with_the_trust_that_it_proves(adapter: Provider) -> None:
    samples = samples_of(adapter.name)
    verification = adapter.verification
    assert samples.callback is not None
    secrets = verification.setting.read(samples.secrets) if verification else ()
    settings = Settings("sqlite:///x.db", (SECRET,), webhook_secrets={adapter.name: secrets})
    token = mint(SECRET, adapter.name, "task-1")
    headers = {"Content-Type": "application/json"}
    if verification is None or not verification.is_mandatory:
        sent = CallbackRequest(adapter.name, "task-1", token, headers)
        assert admit(settings, sent, samples.callback, NOW * 1000).trust is Trust.TOKEN
    if verification is None or samples.sign is None:
        return
    for name, value in samples.sign(samples.callback, NOW).items():
        headers["-".join(part.capitalize() for part in name.split("-"))] = value
    sent = CallbackRequest(adapter.name, "task-1", token, headers)
    trust = admit(settings, sent, samples.callback, NOW * 1000).trust
    assert trust is (Trust.SIGNED if verification.covers_body else Trust.TOKEN)
    without_token = replace(sent, task_id=None, token=None)
    if verification.covers_body:
        assert admit(settings, without_token, samples.callback, NOW * 1000).trust is Trust.SIGNED
    else:
        with pytest.raises(RequestRefused):
            admit(settings, without_token, samples.callback, NOW * 1000)


@every(ADAPTERS)
def test_secret_fields_are_not_stored(adapter: Provider) -> None:
    samples = samples_of(adapter.name)
    assert bool(adapter.secret_fields) is bool(samples.secret)
    messages = [(samples.created, Source.CREATE)]
    if samples.callback is not None:
        messages.append((samples.callback, Source.CALLBACK))
    for raw, source in messages:
        received = message(adapter, raw, source)
        stored = providers.without_secrets(received)
        assert adapter.parse(stored) == adapter.parse(received)
        if adapter.secret_fields:
            assert samples.secret.encode() in raw
            assert samples.secret.encode() not in stored.body
            assert HIDDEN in json.dumps(json.loads(stored.body), ensure_ascii=False)
        else:
            assert stored is received


def test_a_status_is_recognised_in_any_spelling() -> None:
    assert status_for("succeed") == status_for("SUCCESS") == status_for("succeeded") == "succeeded"
    assert status_for("pending") == "submitted"
    assert status_for("nonsense") is None
