"""The system of record: takes callbacks, keeps tasks, delivers hooks."""

__version__ = "0.1.0"
