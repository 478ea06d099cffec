"""How a task ends, and every fault that can be ordered on its way."""
