"""Declared settings: the name, the reader, the default and the documentation of each."""

from receiver.environment.setting import Environment, Setting

__all__ = ["Environment", "Setting"]
