"""The types of numeric options. In errors and in help, click calls them "integer range"."""

from __future__ import annotations

import click


class WholeNumber(click.IntRange):
    """A whole number in a range."""

    name = "whole number"


class Number(click.FloatRange):
    """A number in a range."""

    name = "number"
