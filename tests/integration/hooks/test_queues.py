"""Hooks of type queue with real brokers: messages, connections and failures."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from receiver import hooks
from receiver.config.hook_secrets import secrets
from receiver.config.hooks_file import HookEntry
from receiver.deliveries import State, Subscription
from receiver.delivery.attempt import DeliveryWorker
from receiver.delivery.dispatcher import dispatcher
from receiver.endpoints import Alert, AlertKind, Breaker
from receiver.errors import (
    ContentFailure,
    DeliveryFailure,
    PermanentFailure,
    SettingsError,
    TemporaryFailure,
    TimedOut,
)
from receiver.hooks import brokers
from receiver.hooks.base import Done
from receiver.hooks.brokers import base
from receiver.hooks.queue import Queue
from receiver.ingest import Ingest
from receiver.outgoing import connections
from receiver.outgoing.retry import RetryPolicy
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.text.display import hiding
from tests.support.dispatching import Calls
from tests.support.hook_servers import CERT, Endless, dripping, notice
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port
from tests.support.postgres_proxy import Between
from tests.support.queue_servers import (
    QueueServer,
    RabbitMqServer,
    RedisServer,
    SqsServer,
    set_credentials,
)
from tests.support.samples import body, callback, subscription
from tests.support.tls_front import tls_front

DEADLINE = 0.5  # seconds, for brokers that do not answer
WORKER_THREADS = 16

Servers = Callable[[str], QueueServer]
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    set_credentials(monkeypatch)
    yield
    base.close_idle()
    connections.close_idle()


@pytest.fixture(params=brokers.BROKERS)
def server(request: pytest.FixtureRequest, queue_servers: Servers) -> QueueServer:
    return queue_servers(request.param)


@pytest.fixture(params=["rabbitmq", "redis"])
def lasting(request: pytest.FixtureRequest, queue_servers: Servers) -> QueueServer:
    """A broker that keeps connections; moto closes each one after its response."""
    return queue_servers(request.param)


@pytest.fixture
def rabbitmq(queue_servers: Servers) -> RabbitMqServer:
    return _of(queue_servers("rabbitmq"), RabbitMqServer)


@pytest.fixture
def redis(queue_servers: Servers) -> RedisServer:
    return _of(queue_servers("redis"), RedisServer)


@pytest.fixture
def sqs(queue_servers: Servers) -> SqsServer:
    return _of(queue_servers("sqs"), SqsServer)


def _of(server: QueueServer, type_: type[T]) -> T:
    assert isinstance(server, type_)
    return server


def at(options: Mapping[str, Any], port: int, **more: Any) -> dict[str, Any]:
    """Return the options for the same queue, reached at another port."""
    scheme, _, rest = options["url"].partition("://")
    authority, slash, path = rest.partition("/")
    host = authority.rpartition(":")[0]
    return {**options, "url": f"{scheme}://{host}:{port}{slash}{path}", **more}


def failure(options: Mapping[str, Any]) -> DeliveryFailure:
    with pytest.raises(DeliveryFailure) as caught:
        Queue("shop", options).send(notice())
    return caught.value


def test_a_consumer_gets_the_json_of_a_webhook_and_the_id_of_the_event(server: QueueServer) -> None:
    options = server.options()
    sent = notice(reference="Äpfel", metadata={"cart": 7})
    assert Queue("shop", options).send(sent).answer
    (message,) = server.received(options)
    assert message.event == sent.as_json()
    assert message.id == message.event["id"] == sent.id
    assert (message.type, message.content_type) == ("task.succeeded", "application/json")
    assert message.body.isascii()


def test_an_alert_is_sent_as_the_json_of_a_webhook(server: QueueServer) -> None:
    options = server.options()
    alert = Alert(7, "mail", AlertKind.PAUSED, 1_765_519_850_000, "it is down")
    Queue("shop", options).alert(alert)
    (message,) = server.received(options)
    assert (message.id, message.type) == ("alert:7", "endpoint.paused")
    assert message.event["said"] == "it is down"


def test_the_body_may_be_a_template(server: QueueServer) -> None:
    options = server.options()
    template = {"body": "{{ task.reference }} {{ type }}", "content_type": "text/plain"}
    hook = Queue("shop", {**options, **template})
    hook.send(notice())
    (message,) = server.received(options)
    assert message.body == b"ORDER-7 task.succeeded"
    assert (message.content_type, message.id) == ("text/plain", notice().id)
    preview = hook.preview(notice())
    assert preview.body == "ORDER-7 task.succeeded"
    assert notice().id in preview.headers.values()
    assert str(server.port) in preview.destination


def test_a_connection_stays_open_for_the_next_message(lasting: QueueServer) -> None:
    proxy, options = Between(lasting.port), lasting.options()
    hook = Queue("shop", at(options, proxy.port))
    for number in range(5):
        hook.send(notice(id=f"task-{number}"))
    assert len(proxy.clients) == 1
    assert len(lasting.received(options)) == 5
    proxy.close()


def test_hooks_with_one_broker_share_its_connections(lasting: QueueServer) -> None:
    proxy, first, second = Between(lasting.port), lasting.options(), lasting.options()
    for options in (first, second, first):
        Queue("shop", at(options, proxy.port)).send(notice())
    assert len(proxy.clients) == 1
    assert (len(lasting.received(first)), len(lasting.received(second))) in ((2, 1), (1, 1))
    proxy.close()


def test_a_connection_is_used_only_for_its_own_address(lasting: QueueServer) -> None:
    options = lasting.options()
    proxies = [Between(lasting.port), Between(lasting.port)]
    for proxy in proxies * 2:
        Queue("shop", at(options, proxy.port)).send(notice())
    assert [len(proxy.clients) for proxy in proxies] == [1, 1]
    for proxy in proxies:
        proxy.close()


def test_each_thread_has_its_own_connection(lasting: QueueServer) -> None:
    proxy, options = Between(lasting.port), lasting.options()
    hook = Queue("shop", at(options, proxy.port))
    tasks = [f"task-{number}" for number in range(5 * WORKER_THREADS)]
    with ThreadPoolExecutor(WORKER_THREADS) as threads:
        sent = [threads.submit(hook.send, notice(id=task)) for task in tasks]
        assert all(isinstance(one.result(PATIENCE), Done) for one in sent)
    received = lasting.received(options)
    assert sorted(message.id for message in received) == sorted(f"{t}:succeeded" for t in tasks)
    assert all(message.event["id"] == message.id for message in received)
    assert 1 < len(proxy.clients) <= WORKER_THREADS
    proxy.close()


def test_a_connection_that_ended_is_replaced(lasting: QueueServer) -> None:
    proxy, options = Between(lasting.port), lasting.options()
    hook = Queue("shop", at(options, proxy.port))
    hook.send(notice(id="task-1"))
    proxy.cut()
    hook.send(notice(id="task-2"))
    assert len(proxy.clients) == 2
    assert len(lasting.received(options)) == 2
    proxy.close()


def test_a_connection_is_closed_when_it_has_been_idle(
    lasting: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MAX_IDLE_SECONDS", 0.01)
    proxy = Between(lasting.port)
    Queue("shop", at(lasting.options(), proxy.port)).send(notice())
    wait_until(lambda: all(client.fileno() < 0 for client in proxy.clients))
    proxy.close()


def test_a_forked_process_uses_no_connection_of_its_parent(lasting: QueueServer) -> None:
    proxy, options = Between(lasting.port), lasting.options()
    hook = Queue("shop", at(options, proxy.port))
    hook.send(notice(id="parent-1"))
    child = os.fork()
    if not child:
        with suppress(BaseException):  # the child must not continue with pytest
            hook.send(notice(id="child"))
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    hook.send(notice(id="parent-2"))
    assert len(proxy.clients) == 2
    assert len(lasting.received(options)) == 3
    proxy.close()


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a server that accepts connections, and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_broker_that_does_not_answer_is_a_timeout(server: QueueServer, mute: int) -> None:
    proxy, options = Between(mute), server.options()
    assert isinstance(failure(at(options, proxy.port, deadline=DEADLINE)), TimedOut)
    proxy.server_port = server.port
    Queue("shop", at(options, proxy.port)).send(notice())
    assert len(server.received(options)) == 1
    proxy.close()


def test_a_broker_that_stops_answering_is_a_timeout(lasting: QueueServer) -> None:
    proxy, options = Between(lasting.port), lasting.options()
    hook = Queue("shop", at(options, proxy.port))
    hook.send(notice())
    proxy.is_silent.set()
    assert isinstance(failure(at(options, proxy.port, deadline=DEADLINE)), TimedOut)
    proxy.is_silent.clear()
    hook.send(notice())
    proxy.pause = DEADLINE / 5
    assert isinstance(failure(at(options, proxy.port, deadline=DEADLINE)), TimedOut)
    proxy.pause = 0
    hook.send(notice(id="task-2"))  # on a new connection
    assert "task-2:succeeded" in [message.id for message in lasting.received(options)]
    proxy.close()


@pytest.mark.parametrize("broker", brokers.BROKERS)
@pytest.mark.parametrize("byte", [b"+", b"A", b"\x00"])
def test_a_reply_that_arrives_very_slowly_ends_at_the_deadline(broker: str, byte: bytes) -> None:
    with dripping(Endless(byte)) as port:
        assert isinstance(failure({**unreachable(broker, port), "deadline": DEADLINE}), TimedOut)


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_a_reply_that_does_not_end_is_refused(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_REPLY", 100)
    with dripping(Endless(b"\x01"), pause=0) as port:
        error = failure({**unreachable(broker, port), "deadline": PATIENCE})
    assert "the reply does not end" in str(error)
    assert isinstance(error, TemporaryFailure)


def unreachable(broker: str, port: int) -> dict[str, Any]:
    """Return options for a port at which there is no such broker."""
    return {
        "rabbitmq": {"url": f"amqp://127.0.0.1:{port}", "routing_key": "q"},
        "redis": {"url": f"redis://127.0.0.1:{port}", "stream": "q"},
        "sqs": {"url": f"http://127.0.0.1:{port}/1/q", "region": "eu-central-1"},
    }[broker]


@pytest.mark.parametrize("broker", brokers.BROKERS)
def test_a_broker_that_does_not_run_is_a_temporary_failure(broker: str) -> None:
    error = failure(unreachable(broker, free_port()))
    assert isinstance(error, TemporaryFailure)
    assert not isinstance(error, TimedOut)
    assert "Connection refused" in str(error)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 50, b"*3\r\n"]
)
@pytest.mark.parametrize("broker", brokers.BROKERS)
def test_a_server_of_another_kind_is_a_temporary_failure(broker: str, answer: bytes) -> None:
    with dripping(answer, pause=0) as port:
        error = failure({**unreachable(broker, port), "deadline": PATIENCE})
    assert isinstance(error, TemporaryFailure)
    assert str(error).isprintable()


@pytest.mark.parametrize(("broker", "scheme"), [("rabbitmq", "amqps"), ("redis", "rediss")])
def test_a_certificate_is_verified(
    queue_servers: Servers, monkeypatch: pytest.MonkeyPatch, broker: str, scheme: str
) -> None:
    server = queue_servers(broker)
    options = server.options()
    with tls_front(server.port) as port:
        encrypted = at(options, port)
        encrypted["url"] = f"{scheme}://{encrypted['url'].partition('://')[2]}"
        error = failure(encrypted)
        assert isinstance(error, TemporaryFailure)
        assert "the certificate is not trusted" in str(error)
        monkeypatch.setenv("SSL_CERT_FILE", str(CERT))
        Queue("shop", encrypted).send(notice())
        Queue("shop", encrypted).send(notice())
        base.close_idle()
    assert len(server.received(options)) == 2


def test_rabbitmq_stores_the_message_on_disk(rabbitmq: RabbitMqServer) -> None:
    options = rabbitmq.options()
    Queue("shop", options).send(notice())
    with rabbitmq.channel as channel:
        message: Any = channel.basic.get(options["routing_key"], no_ack=True, to_dict=True)
    assert message["properties"]["delivery_mode"] == 2
    assert message["properties"]["app_id"] == "callback-receiver"


def test_a_message_without_a_queue_is_a_failure(rabbitmq: RabbitMqServer) -> None:
    url = rabbitmq.options()["url"]
    error = failure({"url": url, "routing_key": "nobody"})
    assert isinstance(error, TemporaryFailure)
    assert 'the default exchange has no queue for the routing key "nobody"' in str(error)
    error = failure({"url": url, "exchange": "amq.topic", "routing_key": "nobody.{status}"})
    assert isinstance(error, ContentFailure)  # there may be queues for other statuses
    assert 'exchange "amq.topic" has no queue for the routing key "nobody.succeeded"' in str(error)
    assert isinstance(failure({"url": url, "exchange": "amq.fanout"}), TemporaryFailure)


def test_a_topic_depends_on_the_event(rabbitmq: RabbitMqServer) -> None:
    options = rabbitmq.options()
    queue = options["routing_key"]
    with rabbitmq.channel as channel:
        channel.queue.bind(queue, "amq.topic", "tryon.*.succeeded")
    topic = {"exchange": "amq.topic", "routing_key": "tryon.{provider}.{status}"}
    Queue("shop", {**options, **topic}).send(notice())
    (message,) = rabbitmq.received(options)
    assert message.id == notice().id


def test_a_full_queue_is_a_temporary_failure(rabbitmq: RabbitMqServer) -> None:
    options = {**rabbitmq.options(), "routing_key": "full"}
    rabbitmq.declare("full", {"x-max-length": 1, "x-overflow": "reject-publish"})
    Queue("shop", options).send(notice())
    error = failure(options)
    assert isinstance(error, TemporaryFailure)
    assert "a queue refused the message; it may be full" in str(error)
    assert rabbitmq.received(options)
    Queue("shop", options).send(notice())
    assert rabbitmq.received(options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"url": "amqp://guest:wrong-password@127.0.0.1:{port}"}, "answered 403 ACCESS_REFUSED"),
        ({"url": "amqp://127.0.0.1:{port}/nowhere"}, "answered 530 NOT_ALLOWED - vhost nowhere"),
        ({"exchange": "nowhere"}, "answered 404 NOT_FOUND - no exchange 'nowhere'"),
    ],
)
def test_an_error_of_rabbitmq_includes_the_remedy(
    rabbitmq: RabbitMqServer, options: dict[str, Any], expected: str
) -> None:
    values = {key: value.replace("{port}", str(rabbitmq.port)) for key, value in options.items()}
    error = failure({**rabbitmq.options(), **values})
    assert isinstance(error, TemporaryFailure)
    assert expected in str(error)
    assert "; correct" in str(error) or "; declare" in str(error)
    assert "wrong-password" not in str(error)


def test_rabbitmq_that_is_short_of_disk_is_a_temporary_failure(rabbitmq: RabbitMqServer) -> None:
    options = {**rabbitmq.options(), "deadline": PATIENCE}
    alarm = "{{resource_limit, disk, node()}, []}"
    rabbitmq.control(f"rabbit_alarm:set_alarm({alarm}).")
    try:
        error = failure(options)
        assert isinstance(error, TemporaryFailure)
        assert not isinstance(error, TimedOut)  # the broker announces it
        assert "the broker accepts no messages at the moment: low on disk" in str(error)
    finally:
        rabbitmq.control(f"rabbit_alarm:clear_alarm({alarm[1:].partition(', []')[0]}).")
    Queue("shop", options).send(notice())
    assert rabbitmq.received(options)


def test_a_stream_keeps_at_most_about_maxlen_entries(redis: RedisServer) -> None:
    options = {**redis.options(), "maxlen": 100}
    hook = Queue("shop", options)
    for _ in range(300):
        hook.send(notice())
    assert 100 <= redis.call("XLEN", options["stream"]) < 300


def test_a_consumer_group_gets_every_message(redis: RedisServer) -> None:
    options = {**redis.options(), "group": "shop"}
    Queue("shop", {key: options[key] for key in ("url", "stream")}).send(notice())
    Queue("shop", options).send(notice())
    base.close_idle()
    Queue("shop", options).send(notice())
    read = ("XREADGROUP", "GROUP", "shop", "worker-1", "STREAMS", options["stream"], ">")
    ((_, entries),) = redis.call(*read)
    assert len(entries) == 3


def test_a_group_belongs_to_its_hook_even_if_connections_are_shared(redis: RedisServer) -> None:
    options = redis.options()
    for group in ("one", "two"):
        Queue(group, {**options, "group": group}).send(notice())
    assert len(redis.call("XINFO", "GROUPS", options["stream"])) == 2


def test_redis_without_memory_is_a_temporary_failure(redis: RedisServer) -> None:
    options = redis.options()
    redis.call("CONFIG", "SET", "maxmemory", "1")
    try:
        error = failure(options)
    finally:
        redis.call("CONFIG", "SET", "maxmemory", "0")
    assert isinstance(error, TemporaryFailure)
    assert "answered OOM" in str(error)
    Queue("shop", options).send(notice())


def test_an_error_of_redis_includes_the_remedy(redis: RedisServer) -> None:
    options = redis.options()
    redis.call("ACL", "SETUSER", "shop", "on", ">the-password", f"~{options['stream']}", "+xadd")
    refused = {
        "redis://shop:wrong-password@127.0.0.1:{port}": "answered WRONGPASS",
        "redis://shop:the-password@127.0.0.1:{port}/1": "answered NOPERM",
        "redis://127.0.0.1:{port}/99": "DB index is out of range",
    }
    for url, expected in refused.items():
        error = failure({**options, "url": url.replace("{port}", str(redis.port))})
        assert isinstance(error, TemporaryFailure)
        assert expected in str(error)
        assert "wrong-password" not in str(error)
    url = f"redis://shop:the-password@127.0.0.1:{redis.port}"
    Queue("shop", {**options, "url": url}).send(notice())
    redis.spoil(options)
    assert "the key is not a stream" in str(failure(options))


def test_a_password_that_redis_repeats_is_hidden() -> None:
    password = "s3cret-p/ssword"
    answer = b"-ERR unknown command 'AUTH', with args beginning with: '%b'\r\n" % password.encode()
    with dripping(answer, pause=0) as port:
        options = {"url": f"redis://:s3cret-p%2Fssword@127.0.0.1:{port}", "stream": "q"}
        error = str(failure(options))
    assert password in error  # the worker hides it before it stores or logs anything
    entry = HookEntry("shop", "queue", Subscription("shop", frozenset({"succeeded"})), options)
    assert password not in hiding(secrets([entry], {}))(error)


def test_a_fifo_queue_keeps_the_order_of_a_task_and_drops_repeated_messages(sqs: SqsServer) -> None:
    options = sqs.options(fifo=True)
    hook = Queue("shop", options)
    for status in ("processing", "succeeded", "succeeded"):
        hook.send(notice(status))
    messages = sqs.messages(options)
    assert [json.loads(message["Body"])["type"] for message in messages] == [
        "task.processing",
        "task.succeeded",
    ]
    assert {message["Attributes"]["MessageGroupId"] for message in messages} == {"0199f1a2"}
    hook.send(notice("failed", id="x" * 200))
    Queue("shop", {**options, "group": "{provider}"}).send(notice(id="task-2"))
    names = [message["Attributes"]["MessageGroupId"] for message in sqs.messages(options)]
    assert (len(names[0]), names[1]) == (64, "kling")  # a group that SQS does not accept is hashed


def test_sqs_checks_our_signature(sqs: SqsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    options = sqs.options()
    with sqs.check_signatures() as keys:
        assert "AWS_ACCESS_KEY_ID is unknown to the service" in str(failure(options))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AWS_ACCESS_KEY_ID"])
        error = failure(options)
        assert isinstance(error, TemporaryFailure)
        assert "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID" in str(error)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["AWS_SECRET_ACCESS_KEY"])
        Queue("shop", options).send(notice())
    for name in keys:
        monkeypatch.delenv(name)
    assert "there are no credentials; set AWS_ACCESS_KEY_ID" in str(failure(options))
    assert len(sqs.messages(options)) == 1


def test_a_missing_queue_of_sqs_may_be_created_later(sqs: SqsServer) -> None:
    options = sqs.options()
    sqs.spoil(options)
    error = failure(options)
    assert isinstance(error, TemporaryFailure)
    assert "create the queue, or correct the URL and the region" in str(error)
    sqs.repair(options)
    Queue("shop", options).send(notice())


@pytest.mark.parametrize("broker", ["rabbitmq", "sqs"])
def test_a_message_that_is_too_large_is_a_permanent_failure(
    queue_servers: Servers, broker: str
) -> None:
    hook = Queue("shop", queue_servers(broker).options())
    with pytest.raises(PermanentFailure, match="larger than"):
        hook.send(notice(reference="a" * 1_100_000))
    assert hook.send(notice()).answer


OUTAGES = ("stopped", "hanging", "refusing")


@pytest.fixture(params=["sqlite", "postgres"])
def any_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Each store, and with it each dispatcher: leases and Procrastinate."""
    if request.param == "sqlite":
        yield request.getfixturevalue("store")
        return
    monkeypatch.setattr("receiver.delivery.procrastinate.EVERY", "* * * * * *")
    monkeypatch.setattr("receiver.delivery.procrastinate.FETCH_EVERY", 0.05)
    made = PostgresStore(request.getfixturevalue("fresh")())
    yield made
    made.close()


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_loses_nothing_and_delays_no_other_hook(
    server: QueueServer, any_store: Store, mute: int, outage: str
) -> None:
    store = any_store
    direct, port = server.options(), free_port()
    proxy = Between(server.port, port) if outage != "stopped" else None
    if outage == "refusing":
        server.spoil(direct)
    elif proxy:
        proxy.server_port = mute
    deadline = DEADLINE if outage == "hanging" else PATIENCE
    shop = Queue("shop", at(direct, port, deadline=deadline))
    mail = Calls(lambda _: Done("sent"))
    policy, breaker = RetryPolicy(delays=(0.1,) * 500), Breaker(3, 0.2, (0.1,))
    worker = DeliveryWorker(
        store, {"shop": shop, "mail": mail}, policy=policy, breaker=breaker, concurrency=4
    )
    for number in range(6):
        message = callback(body(), f"task-{number}")
        Ingest(store, [subscription("shop"), subscription("mail")]).accept(message)
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher(worker).run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: delivered(store, "mail") == 6)
        wait_until(lambda: any(found.attempts for found in store.lists.deliveries(hook="shop")))
        assert delivered(store, "shop") == 0
        if outage == "refusing":
            server.repair(direct)
        elif proxy:
            proxy.server_port = server.port
        else:
            proxy = Between(server.port, port)
        wait_until(lambda: delivered(store, "shop") == 6)
    finally:
        stop.set()
        thread.join(PATIENCE)
        if proxy:
            proxy.close()
    # Redis and RabbitMQ may have received a message whose confirmation was lost.
    assert {message.id.partition(":")[0] for message in server.received(direct)} >= {
        f"task-{number}" for number in range(6)
    }


def delivered(store: Store, hook: str) -> int:
    return len(store.lists.deliveries(hook=hook, state=State.DELIVERED))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "url: is not the URL of a broker"),
    ({"url": "kafka://127.0.0.1"}, "url: is not the URL of a broker"),
    ({"url": 5}, "url: is not the URL of a broker"),
    ({"url": "amqp://", "routing_key": "q"}, "url: is not a URL; use one like amqps://"),
    ({"url": "amqp://host:99999", "routing_key": "q"}, "url: is not a URL; use one like amqps://"),
    ({"url": "amqp://host?heartbeat=5", "routing_key": "q"}, 'url: ends with "?…"'),
    (
        {"url": "amqp://host"},
        "routing_key: is missing; set it to the name of the queue, or set exchange",
    ),
    ({"url": "amqp://host", "routing_key": "{task}"}, "routing_key: use {status}, {provider} or"),
    ({"url": "amqp://host", "stream": "q"}, "stream: is not an option of this type; use"),
    ({"url": "redis://host"}, "stream: Missing data for required field"),
    ({"url": "redis://host/x", "stream": "q"}, "url: ends with a database that is not a number"),
    ({"url": "redis://host", "stream": "q", "maxlen": 0}, "maxlen: use 1 or more"),
    ({"url": "redis://host", "stream": "q", "exchange": "x"}, "exchange: is not an option"),
    ({"url": "https://queue.example/1/q"}, "region: is missing, and the URL does not contain it"),
    ({"url": "https://queue.example/1/"}, "url: does not end with the name of a queue"),
    ({"url": "https://a:b@queue.example/1/q"}, "url: contains a user; set AWS_ACCESS_KEY_ID"),
    ({"url": "https://h/1/q", "region": "EU"}, "region: is not a region"),
    ({"url": "redis://host", "stream": "q", "deadline": 0}, "deadline: use 0.5 to 3600 seconds"),
    ({"url": "redis://host", "stream": "q", "body": "{{ nonsense }}"}, "body: "),
    ({"url": "redis://host", "stream": "q", "content_type": "text/plain"}, "requires body"),
    ({"url": "redis://h", "stream": "q", "body": "x", "content_type": "x"}, "is not a content ty"),
]


@pytest.mark.parametrize(("options", "expected"), WRONG)
def test_a_wrong_option_is_refused_when_the_file_is_loaded(
    options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Queue("shop", options)
    assert expected in "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://sqs.eu-central-1.amazonaws.com/1/q", "eu-central-1"),
        ("https://vpce-1-2.sqs.us-gov-west-1.vpce.amazonaws.com/1/q", "us-gov-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1"),
        ("https://sqs-fips.us-east-1.amazonaws.com/1/q", "us-east-1"),
        ("https://sqs.eu-west-1.api.aws/1/q", "eu-west-1"),
        ("http://127.0.0.1:9324/1/q", "eu-north-1"),
    ],
)
def test_the_region_is_read_from_the_url_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: str
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    preview = Queue("shop", {"url": url}).preview(notice())
    assert preview.headers["region"] == expected


@pytest.mark.parametrize(
    ("broker", "package"), [("rabbitmq", "pika"), ("redis", "redis"), ("sqs", "botocore")]
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, broker: str, package: str
) -> None:
    monkeypatch.delitem(sys.modules, f"receiver.hooks.brokers.{broker}", raising=False)
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    entry = HookEntry(
        "shop", "queue", Subscription("shop", frozenset({"succeeded"})), unreachable(broker, 1)
    )
    with pytest.raises(SettingsError) as caught:
        hooks.build(entry, {})
    (problem,) = caught.value.problems
    expected = f'hooks.toml: hook "shop": url: {package} is not installed: pip install '
    assert problem.startswith(expected)
