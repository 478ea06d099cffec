"""The main job, from submission to delivered hooks, run with real processes on this machine."""

from sandbox.demo.processes import StepError
from sandbox.demo.story import tell

__all__ = ["StepError", "tell"]
