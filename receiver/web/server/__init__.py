"""The server behind `gunicorn wsgi:app`: uvicorn for HTTP, an ASGI app for callbacks, and Flask.

`gunicorn` contains the settings. `worker` runs uvicorn in a gunicorn worker. `protocol` extends
uvicorn's HTTP protocol with limits for slow clients. `app` handles callbacks in the event loop and
passes every other request to Flask.
"""
