"""The main job, from submission to delivered hooks, run with real processes on this machine."""

from sandbox.demo.deadline import StepError
from sandbox.demo.story import tell

__all__ = ["StepError", "tell"]
