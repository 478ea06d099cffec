"""The server under `gunicorn wsgi:app`: uvicorn for HTTP, an ASGI app for callbacks, and Flask.

`gunicorn` has the settings. `worker` runs uvicorn in a gunicorn worker. `protocol` is uvicorn's
HTTP protocol with limits for slow clients. `app` takes callbacks, and gives Flask the rest.
"""
