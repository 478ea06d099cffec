"""A local stand-in for the providers, a mail server and Slack; it shares no code with the rest."""

__version__ = "0.1.0"  # that of `receiver`, which the sandbox does not import
