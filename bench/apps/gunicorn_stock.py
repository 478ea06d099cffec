"""gunicorn's defaults, with as many threads and connections as ours; imports nothing of ours."""

threads = 16
worker_connections = 512
keepalive = 5
accesslog = None
loglevel = "warning"
control_socket_disable = True
