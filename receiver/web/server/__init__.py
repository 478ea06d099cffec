"""The server behind `gunicorn wsgi:app`: uvicorn for HTTP, an ASGI app for callbacks, and Flask.

`gunicorn` contains the settings. `worker` runs uvicorn in a gunicorn worker. `protocol` extends
uvicorn's HTTP protocol with limits for slow clients, `request_parser` with limits for requests.
`callback_app` handles callbacks in the event loop, and `flask_bridge` passes every other request to
Flask.
"""
