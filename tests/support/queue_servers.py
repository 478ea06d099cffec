"""Real brokers for hooks of type queue, read by clients that share no code with the product.

RabbitMQ is read with amqpstorm, Redis through a socket, and SQS (moto) with plain HTTP requests.
Each test uses queues of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import requests
from amqpstorm.channel import Channel
from amqpstorm.connection import Connection

from tests.support.patience import PATIENCE
from tests.support.real_servers import Place, place, rabbitmq_node, redis
from tests.support.s3_server import KEYS, S3Server, s3_server
from tests.support.unprivileged_user import process_user

REGION = "eu-central-1"
PROVIDER = "kling"  # in the events that tests send
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Received:
    """A message, as a consumer receives it."""

    id: str
    type: str
    content_type: str
    body: bytes

    @classmethod
    def of(cls, properties: Iterable[str | bytes], body: bytes) -> Received:
        id_, type_, content_type = (
            value.decode() if isinstance(value, bytes) else value for value in properties
        )
        return cls(id_, type_, content_type, body)

    @property
    def event(self) -> Any:
        return json.loads(self.body)


def _new_name(by_provider: bool = False) -> str:
    return f"queue-{next(_numbers)}" + ("-{provider}" if by_provider else "")


def _name(template: str) -> str:
    return template.replace("{provider}", PROVIDER)


def set_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set credentials for SQS, and disable all other sources of credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**KEYS, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)


class QueueServer(Protocol):
    """A running broker."""

    port: int

    def options(self, *, by_provider: bool = False) -> dict[str, Any]:
        """Return the options of a hook for a new queue.

        With `by_provider`, the queue of an event depends on its provider, if the broker can do so.
        """
        ...

    def received(self, options: Mapping[str, Any]) -> list[Received]:
        """Take the messages out of the queue of a hook."""
        ...

    def spoil(self, options: Mapping[str, Any]) -> None:
        """Make the broker refuse messages for the queue."""
        ...

    def repair(self, options: Mapping[str, Any]) -> None:
        """Undo `spoil`."""
        ...


class RabbitMqServer:
    """RabbitMQ. The queue of a hook has the name of the routing key."""

    def __init__(self, server: Place, port: int, environment: Mapping[str, str]) -> None:
        self.server, self.port, self._environment = server, port, environment
        self.connection = Connection("127.0.0.1", "guest", "guest", port=port)

    @property
    def channel(self) -> Channel:
        """Return a new channel, because an error closes a channel."""
        return self.connection.channel()

    def options(self, *, by_provider: bool = False) -> dict[str, Any]:
        template = _new_name(by_provider)
        self.declare(_name(template))
        return {"url": f"amqp://guest:guest@127.0.0.1:{self.port}", "routing_key": template}

    def declare(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        with self.channel as channel:
            channel.queue.declare(name, durable=True, arguments=arguments)

    def received(self, options: Mapping[str, Any]) -> list[Received]:
        found = []
        with self.channel as channel:
            while message := channel.basic.get(
                _name(options["routing_key"]), no_ack=True, to_dict=True, auto_decode=False
            ):
                assert isinstance(message, dict)
                properties = message["properties"]
                names = ("message_id", "message_type", "content_type")
                found.append(Received.of((properties[name] for name in names), message["body"]))
        return found

    def spoil(self, options: Mapping[str, Any]) -> None:
        with self.channel as channel:
            channel.queue.delete(_name(options["routing_key"]))

    def repair(self, options: Mapping[str, Any]) -> None:
        self.declare(_name(options["routing_key"]))

    def control(self, expression: str) -> None:
        """Evaluate an expression in the broker with its command-line tool."""
        script = self.server.program.path.resolve().with_name("rabbitmqctl")
        command = [str(script), "eval", expression]
        subprocess.run(
            command,
            env=self._environment,
            check=True,
            timeout=PATIENCE,
            capture_output=True,
            **process_user(),
        )

    def close(self) -> None:
        self.connection.close()


class RedisServer:
    """Redis."""

    def __init__(self, port: int) -> None:
        self.port = port

    def call(self, *command: str) -> Any:
        """Send a command; return the reply, or raise RuntimeError for an error."""
        parts = [part.encode("utf-8", "surrogatepass") for part in command]
        request = b"*%d\r\n" % len(parts)
        request += b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as lines:
                return _reply(lines)

    def options(self, *, by_provider: bool = False) -> dict[str, Any]:
        return {"url": f"redis://127.0.0.1:{self.port}/0", "stream": _new_name(by_provider)}

    def received(self, options: Mapping[str, Any]) -> list[Received]:
        found = []
        for number, pairs in self.call("XRANGE", _name(options["stream"]), "-", "+"):
            entry = dict(zip(pairs[::2], pairs[1::2], strict=True))
            names = (b"id", b"type", b"content_type")
            found.append(Received.of((entry[name] for name in names), entry[b"body"]))
            self.call("XDEL", _name(options["stream"]), number.decode())
        return found

    def spoil(self, options: Mapping[str, Any]) -> None:
        self.call("SET", _name(options["stream"]), "not a stream")

    def repair(self, options: Mapping[str, Any]) -> None:
        self.call("DEL", _name(options["stream"]))


def _reply(lines: Any) -> Any:
    line = lines.readline().rstrip(b"\r\n")
    kind, text = line[:1], line[1:]
    if kind == b"-":
        raise RuntimeError(text.decode())
    if kind == b"$":
        return lines.read(int(text) + 2)[:-2] if int(text) >= 0 else None
    if kind == b"*":
        return [_reply(lines) for _ in range(int(text))]
    return int(text) if kind == b":" else text


class SqsServer:
    """moto's SQS. It requires a signature, but verifies it only within `check_signatures`."""

    def __init__(self, moto: S3Server) -> None:
        self.moto, self.port = moto, moto.port

    @contextmanager
    def check_signatures(self) -> Iterator[dict[str, str]]:
        """Accept only signed requests in the block; yield the keys of a user who may send."""
        iam = self.moto.client("iam")
        iam.create_user(UserName="shop")
        statement = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName="shop", PolicyName="send", PolicyDocument=policy)
        keys = iam.create_access_key(UserName="shop")["AccessKey"]
        self.moto.ask_for_keys()
        try:
            yield {
                "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            }
        finally:
            self.moto.accept_every_key()

    def call(self, action: str, **parameters: Any) -> Any:
        """Call an action of SQS; return the JSON of the response."""
        scope = f"AKIATESTS/20261129/{REGION}/sqs/aws4_request"
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"AmazonSQS.{action}",
            "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host",
        }
        url = f"http://127.0.0.1:{self.port}/"
        response = requests.post(url, json=parameters, headers=headers, timeout=PATIENCE)
        assert response.ok, response.text
        return response.json() if response.content else None

    def options(self, *, by_provider: bool = False, fifo: bool = False) -> dict[str, Any]:  # noqa: ARG002
        name = _new_name() + (".fifo" if fifo else "")
        self.call("CreateQueue", QueueName=name, Attributes={"FifoQueue": "true"} if fifo else {})
        return {"url": f"http://127.0.0.1:{self.port}/123456789012/{name}", "region": REGION}

    def messages(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the messages in the queue of a hook, and delete them."""
        found: list[dict[str, Any]] = []
        while page := self.call(
            "ReceiveMessage",
            QueueUrl=options["url"],
            MaxNumberOfMessages=10,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages"):
            for message in page:
                handle = message["ReceiptHandle"]
                self.call("DeleteMessage", QueueUrl=options["url"], ReceiptHandle=handle)
            found += page
        return found

    def received(self, options: Mapping[str, Any]) -> list[Received]:
        found = []
        for message in self.messages(options):
            attributes = message["MessageAttributes"]
            names = ("id", "type", "content_type")
            values = (attributes[name]["StringValue"] for name in names)
            found.append(Received.of(values, message["Body"].encode()))
        return found

    def spoil(self, options: Mapping[str, Any]) -> None:
        self.call("DeleteQueue", QueueUrl=options["url"])

    def repair(self, options: Mapping[str, Any]) -> None:
        self.call("CreateQueue", QueueName=options["url"].rpartition("/")[2])


@contextmanager
def rabbitmq_server() -> Iterator[RabbitMqServer]:
    with place("rabbitmq-server") as server, rabbitmq_node(server) as (port, environment):
        started = RabbitMqServer(server, port, environment)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    with place("redis-server") as server, redis(server) as port:
        yield RedisServer(port)


@contextmanager
def sqs_server() -> Iterator[SqsServer]:
    with s3_server() as server:
        yield SqsServer(server)


SERVERS: Mapping[str, Callable[[], AbstractContextManager[QueueServer]]] = {
    "rabbitmq": rabbitmq_server,
    "redis": redis_server,
    "sqs": sqs_server,
}
