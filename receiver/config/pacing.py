"""The keys of a hook that set its retries and its limits."""

from __future__ import annotations

import re
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from receiver.config import durations
from receiver.endpoints import PERIODS, Rate

LONGEST_DELAY = 86_400  # seconds
LONGEST_RETRIES = 90 * 86_400  # seconds
MOST_RETRIES = 100
MOST_PER_PERIOD = 100_000
MOST_AT_A_TIME = 1_000
SHOWN = 40  # characters of a wrong value in an error


class Seconds(fields.Field[float]):
    """A duration of up to `longest` seconds, such as `"5m"` or a number of seconds.

    `problem` is the error message for any other value, which is inserted for `{value}`.
    """

    def __init__(self, longest: float, problem: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._longest, self._problem = longest, problem

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> float:  # noqa: ARG002
        try:
            seconds = durations.parse(value) if isinstance(value, str) else value
        except ValueError:
            seconds = None
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is None or not is_number or not 0 < seconds <= self._longest:
            raise ValidationError(self._problem.format(value=str(value)[:SHOWN]))
        return float(seconds)


class _RateField(fields.Field[Rate]):
    """A number of deliveries per second, minute or hour, such as `"10/s"`."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Rate:  # noqa: ARG002
        found = re.fullmatch(rf"\s*([0-9]{{1,6}})\s*/\s*([{''.join(PERIODS)}])\s*", str(value))
        if found is None or not 0 < int(found[1]) <= MOST_PER_PERIOD:
            raise ValidationError(
                f'"{str(value)[:SHOWN]}" is not a rate; write a whole number from 1 to '
                f'{MOST_PER_PERIOD:,} per second, minute or hour, such as "10/s", "60/m" or "500/h"'
            )
        return Rate(int(found[1]), found[2])


class PacingKeys(Schema):
    """The keys `retry`, `retry_for`, `rate` and `concurrency`."""

    retry = fields.List(
        Seconds(LONGEST_DELAY, '"{value}" is not a delay of at most 1d; use one like "5s" or "1h"'),
        load_default=None,
        validate=validate.Length(max=MOST_RETRIES, error=f"use at most {MOST_RETRIES} delays"),
        error_messages={"invalid": 'is not a list of delays; use one like ["5s", "1m", "1h"]'},
    )
    retry_for = Seconds(
        LONGEST_RETRIES,
        '"{value}" is not a duration of at most 90d; use one like "12h" or "3d"',
        load_default=None,
    )
    rate = _RateField(load_default=None)
    concurrency = fields.Integer(
        strict=True,
        load_default=None,
        validate=validate.Range(1, MOST_AT_A_TIME, error=f"use 1 to {MOST_AT_A_TIME}"),
        error_messages={"invalid": f"is not a number; use 1 to {MOST_AT_A_TIME}"},
    )

    @validates_schema(skip_on_field_errors=False)
    def _check_retries(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("retry") is not None and data.get("retry_for") is not None:
            raise ValidationError(
                "cannot be combined with retry; remove one of them", field_name="retry_for"
            )
