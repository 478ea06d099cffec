"""Sends messages to Amazon SQS or a compatible service. Requires botocore, an extra.

botocore finds the credentials and signs the request. Our own HTTP client sends it, because it
has a deadline for the whole exchange and keeps the connection open.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from marshmallow import ValidationError, fields, validate

from receiver.errors import DeliveryFailure, PermanentFailure, SettingsError, TemporaryFailure
from receiver.hooks.brokers.base import (
    BrokerOptions,
    QueueMessage,
    broker_url,
    check_name,
    filled_in,
    quoted,
)
from receiver.hooks.options import NOT_EMPTY
from receiver.outgoing import http
from receiver.outgoing.deadline import Deadline

AWS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
QUEUE = re.compile(r"[A-Za-z0-9_-]{1,80}(\.fifo)?")
FIFO = ".fifo"
ATTRIBUTES = ("id", "type", "content_type")
PARAMETERS = ("QueueUrl", "MessageGroupId", "MessageDeduplicationId")
# The form of message groups and deduplication ids.
TOKEN = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}")
XML_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,80})</Code>")  # in errors of some compatible services
MAX_MESSAGE = 2**20  # bytes, including the attributes; older services may accept less
_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
HINTS = {
    "QueueDoesNotExist": "create the queue, or correct the URL and the region",
    "NonExistentQueue": "create the queue, or correct the URL and the region",
    "InvalidAddress": "correct the URL of the queue",
    "AccessDenied": "allow these credentials to use sqs:SendMessage on the queue",
    "AccessDeniedException": "allow these credentials to use sqs:SendMessage on the queue",
    "InvalidClientTokenId": "AWS_ACCESS_KEY_ID is unknown to the service; set the right one",
    "UnrecognizedClientException": "AWS_ACCESS_KEY_ID is unknown to the service; set the right one",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID",
    "InvalidSignatureException": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID",
    "ExpiredToken": "AWS_SESSION_TOKEN has expired; set a fresh one",
    "ExpiredTokenException": "AWS_SESSION_TOKEN has expired; set a fresh one",
    "RequestExpired": "the clock of this machine is wrong; set it",
}
CONTENTS = "InvalidMessageContents"
PARAMETER = "InvalidParameterValue"


def _check_url(value: str) -> None:
    broker_url("https://sqs.eu-central-1.amazonaws.com/123456789012/orders")(value)
    parts = urlsplit(value)
    if "@" in parts.netloc:
        raise ValidationError("contains a user; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not QUEUE.fullmatch(parts.path.rpartition("/")[2]):
        raise ValidationError("does not end with the name of a queue")


class SqsOptions(BrokerOptions):
    """The keys of a queue hook for SQS."""

    url = fields.String(required=True, validate=_check_url)
    region = fields.String(
        load_default=None,
        validate=validate.Regexp(
            r"[a-z0-9-]+\Z", error="is not a region; use one like eu-central-1"
        ),
    )
    group = fields.String(load_default=None, validate=[NOT_EMPTY, check_name])


class Sqs:
    """A standard queue or a FIFO queue of SQS."""

    schema = SqsOptions

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Raise SettingsError if the region is unknown."""
        self._options = options
        parts = urlsplit(options["url"])
        self._endpoint = f"{parts.scheme}://{parts.netloc}/"
        self._is_fifo = parts.path.endswith(FIFO)
        self._session = Session()
        self._region = options["region"] or _region(parts.hostname or "", self._session)
        if not self._region:
            raise SettingsError(["region: is missing, and the URL does not contain it; set region"])
        self.title = f"SQS at {parts.netloc}"

    def headers(self, message: QueueMessage) -> dict[str, str]:
        found = {
            "QueueUrl": self._options["url"],
            "region": str(self._region),
            "id": message.id,
            "type": message.type,
            "content_type": message.content_type,
        }
        group = self._options["group"]
        if group is not None or self._is_fifo:
            name = filled_in(group, message) if group else message.group
            found["MessageGroupId"] = _token(name)
        if self._is_fifo:
            found["MessageDeduplicationId"] = _token(message.id)
        return found

    def publish(self, message: QueueMessage, clock: Deadline) -> str:
        content = json.dumps(self._parameters(message)).encode()
        if len(message.body) > MAX_MESSAGE:
            raise PermanentFailure(f"{self.title}: the message is larger than {MAX_MESSAGE} bytes")
        try:
            headers = clock.run(lambda: self._signed(content))
        except BotoCoreError as error:
            reason = quoted(error)
            raise TemporaryFailure(f"{self.title}: no usable credentials: {reason}") from error
        response = http.post(
            self._endpoint,
            data=content,
            headers=headers,
            deadline=clock.remaining(),
            allow_private=True,  # the URL is the operator's own
        )
        document = _document(response.body)
        if response.status == 200 and "MessageId" in document:
            return f"{self.title} accepted the message as {quoted(document['MessageId'])}"
        raise self._refused(response, *_error(document, response.body))

    def _parameters(self, message: QueueMessage) -> dict[str, Any]:
        """Return the parameters of SendMessage."""
        headers = self.headers(message)
        attributes = {
            name: {"DataType": "String", "StringValue": headers[name]} for name in ATTRIBUTES
        }
        return {
            "MessageBody": message.body.decode(),
            "MessageAttributes": attributes,
            **{name: headers[name] for name in PARAMETERS if name in headers},
        }

    def _signed(self, content: bytes) -> dict[str, str]:
        """Return the headers of the signed request. botocore may send requests for credentials."""
        credentials = self._session.get_credentials()
        if credentials is None:
            raise TemporaryFailure(f"{self.title}: there are no credentials; {_KEYS}")
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": "AmazonSQS.SendMessage",
        }
        request = AWSRequest("POST", self._endpoint, headers=headers, data=content)
        SigV4Auth(credentials.get_frozen_credentials(), "sqs", self._region).add_auth(request)
        return dict(request.headers.items())

    def _refused(self, response: http.Response, code: str, reason: str) -> DeliveryFailure:
        """Return the failure for a response that is not a success.

        Only a message that SQS cannot store is a permanent failure; an operator can correct
        everything else without losing a message.
        """
        text = f"{self.title} answered {response.status} {quoted(f'{code} {reason}')}".rstrip()
        if http.is_unavailable(response.status):
            return http.failure(response.status, response.headers, text)
        if code == CONTENTS or (code == PARAMETER and "shorter than" in reason):
            return PermanentFailure(text)
        hint = HINTS.get(code)
        return TemporaryFailure(f"{text}; {hint}" if hint else text)


def _region(host: str, session: Any) -> str | None:
    """Return the region in the host name, or that of the environment or of the profile."""
    labels = host.split(".")
    if host.endswith(AWS):
        for service in ("sqs", "sqs-fips"):
            if service in labels:
                return labels[labels.index(service) + 1]
    region: str | None = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return region


def _token(value: str) -> str:
    """Return the value, or its hash if SQS does not accept it as a group or deduplication id."""
    if TOKEN.fullmatch(value):
        return value
    return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()


def _document(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object in a response; an empty one if the response is anything else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _error(document: Mapping[str, Any], body: bytes) -> tuple[str, str]:
    """Return the code and the message of an error in JSON, or the code of an error in XML.

    For any other response, the message is its text.
    """
    if "__type" in document:
        code = re.split("[#.]", str(document["__type"]))[-1]
        return code, str(document.get("message") or document.get("Message") or "")
    found = XML_CODE.search(body)
    return (found[1].decode(), "") if found else ("", body.decode("utf-8", "replace"))
