"""Simulates the providers, a mail server and Slack locally; shares no code with the rest."""

__version__ = "0.1.0"  # that of `receiver`, which the sandbox does not import
