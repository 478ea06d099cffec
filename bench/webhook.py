"""Settings of adnanh/webhook: one hook that responds when its command has ended."""

from __future__ import annotations

import json
from pathlib import Path

TOKEN = "a-secret-for-the-hook"  # noqa: S105 - made up; it has no token for each task
PREFIX = f"/hooks/tryon?token={TOKEN}&path="


def hooks_file(folder: Path, command: Path) -> Path:
    hook = {
        "id": "tryon",
        "execute-command": str(command),
        # otherwise it responds before the command has run
        "include-command-output-in-response": True,
        "pass-environment-to-command": [{"source": "raw-request-body", "envname": "BENCH_BODY"}],
        "trigger-rule": {
            "match": {
                "type": "value",
                "value": TOKEN,
                "parameter": {"source": "url", "name": "token"},
            }
        },
        "trigger-rule-mismatch-http-response-code": 404,
    }
    file = folder / "hooks.json"
    file.write_text(json.dumps([hook]))
    return file
