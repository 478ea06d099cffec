"""Settings as declared values: what each is called, and how its text is read."""

from receiver.environment.setting import Setting

__all__ = ["Setting"]
