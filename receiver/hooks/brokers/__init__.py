"""The registry of brokers; the scheme of a URL selects one of them."""

from __future__ import annotations

from collections.abc import Mapping

from receiver.config.plugins import BuiltIn
from receiver.errors import SettingsError
from receiver.hooks.brokers.base import BrokerType

BROKERS: Mapping[str, BrokerType] = BuiltIn(
    rabbitmq="receiver.hooks.brokers.rabbitmq:RabbitMq",
    redis="receiver.hooks.brokers.redis:Redis",
    sqs="receiver.hooks.brokers.sqs:Sqs",
)
SCHEMES = {
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "redis": "redis",
    "rediss": "redis",
    "https": "sqs",
    "http": "sqs",
}
INSTALL = {  # the error if the package of a broker is missing
    "rabbitmq": "pika is not installed: pip install 'pika>=1.4'",
    "redis": "redis is not installed: pip install 'redis>=8'",
    "sqs": "botocore is not installed: pip install 'botocore>=1.40'",
}


def broker_type(url: object) -> BrokerType:
    """Return the type of the broker for this URL. Raises SettingsError."""
    scheme = url.partition("://")[0].lower() if isinstance(url, str) else ""
    if scheme not in SCHEMES:
        known = "amqp, amqps, redis, rediss or https"
        raise SettingsError([f"url: is not the URL of a broker; use one that begins with {known}"])
    name = SCHEMES[scheme]
    try:
        return BROKERS[name]
    except ImportError as error:
        if error.name is not None and error.name.startswith("receiver"):
            raise
        raise SettingsError([f"url: {INSTALL[name]}"]) from None
