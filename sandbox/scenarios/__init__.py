"""Scenarios: how a task ends, and the faults that can be injected on the way."""
