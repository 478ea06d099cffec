"""Settings as declared values: what each is called, how its text is read, and its documentation."""

from receiver.environment.setting import Environment, Setting

__all__ = ["Environment", "Setting"]
