"""Shared by long-running processes: start, shutdown, the current hooks, and clock steps."""
