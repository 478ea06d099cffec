"""The demo: from submission to delivered hooks, with real processes on this machine."""

from sandbox.demo.main_job import tell
from sandbox.demo.progress_deadline import StepError

__all__ = ["StepError", "tell"]
