"""Live events: `GET /api/events`, requests that wait for the end of a task, and dashboard updates.

`feed` follows the record with one thread per process, and only while somebody listens. `listener`
contains what one listener has to receive. `web.server.streams` sends it in the event loop of our
worker, and `on_threads` on a thread of gthread. `routes` and `waits` are the parts that use Flask.
"""
