"""A receiver with FastAPI, with commits in its thread pool, as documented, or in its event loop.

In the event loop, other requests wait for each commit, but none waits for SQLite's lock.
"""

import os

import event_table
from fastapi import FastAPI, HTTPException, Request
from starlette.concurrency import run_in_threadpool

IN_ITS_LOOP = os.environ.get("BENCH_IN_ITS_LOOP") == "1"
app = FastAPI()


@app.post("/callbacks/{provider}/{task_id}/{token}")  # type: ignore[untyped-decorator]
async def callback(provider: str, task_id: str, token: str, request: Request) -> dict[str, str]:
    if not event_table.is_ours(provider, task_id, token):
        raise HTTPException(404)
    body = await request.body()
    if IN_ITS_LOOP:
        return {"outcome": event_table.keep(task_id, body)}
    return {"outcome": await run_in_threadpool(event_table.keep, task_id, body)}
