"""The system of record: accepts callbacks, stores tasks, and delivers events to hooks."""

__version__ = "0.1.0"
