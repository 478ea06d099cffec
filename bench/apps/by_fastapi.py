"""The same with FastAPI; in its thread pool, as a blocking driver wants it."""

import event_table
from fastapi import FastAPI, HTTPException, Request
from starlette.concurrency import run_in_threadpool

app = FastAPI()


@app.post("/callbacks/{provider}/{task_id}/{token}")
async def callback(provider: str, task_id: str, token: str, request: Request) -> dict[str, str]:
    if not event_table.is_ours(provider, task_id, token):
        raise HTTPException(404)
    body = await request.body()
    return {"outcome": await run_in_threadpool(event_table.keep, task_id, body)}
