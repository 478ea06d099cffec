"""What long-running processes share: start, shutdown, the current hooks, and clock steps."""
