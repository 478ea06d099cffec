"""`POST /api/tasks`: creates a task over HTTP, once for each Idempotency-Key."""

from submitter.api.errors import STATUS
from submitter.api.route import LONGEST_BODY, blueprint

__all__ = ["LONGEST_BODY", "STATUS", "blueprint"]
