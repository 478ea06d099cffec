"""The main job, from submission to delivered hooks, run with real processes on this machine."""

from sandbox.demo.main_job import tell
from sandbox.demo.progress_deadline import StepError

__all__ = ["StepError", "tell"]
