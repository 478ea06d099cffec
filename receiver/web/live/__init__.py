"""Live events: `GET /api/events`, requests that wait for the end of a task, and dashboard updates.

`feed` follows the record with one thread per process, which runs only while there are listeners.
`listener` collects the text for one client. `web.server.streams` sends that text in the event loop
of our worker, and `on_threads` sends it on a thread of gthread. `routes` and `waits` use Flask.
"""
