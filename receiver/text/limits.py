"""All limits on requests: sizes, numbers and times.

`docs/`, `deploy/nginx.conf` and `deploy/Caddyfile` state some of them as well, and
`tests/unit/test_request_limits.py` compares them with these.
"""

KIB = 1024

# Bodies, in bytes. A body of exactly this size is accepted.
MAX_BODY = 256 * KIB  # as received, and after decompression; real callbacks have a few kB
MAX_API_BODY = 30 * KIB * KIB  # for creating a task: two pictures of 10 MB each as Base64
MAX_PARSED_IN_LOOP = 32 * KIB  # a longer callback is parsed on a thread, not in the event loop
MAX_CODINGS = 4  # how often a body may be compressed; real bodies are compressed once
MAX_GZIP_MEMBERS = 100  # each member copies the remaining bytes

# Heads. The request line of a callback has 150 bytes, that of an API list with every filter 2,000.
# A proxy adds a dozen headers, and up to 8 kB of cookies and tokens.
MAX_REQUEST_LINE = 4094  # bytes
MAX_HEADERS = 64
MAX_HEADER = 8190  # bytes of a name and its value
MAX_HEAD = 32 * KIB  # bytes
MAX_TRAILERS = 8 * KIB  # bytes
MAX_OVERHEAD = 512 * KIB  # bytes received that are not part of a body, such as chunk sizes

# Headers that are stored with a callback.
MAX_STORED_HEADERS = 50
MAX_STORED_HEADER = 1_000  # characters of a value; a longer header is not stored
MAX_STORED_CHARACTERS = 8_000  # of all names and values

# Times in seconds that a client may take.
REQUEST_TIMEOUT = 20.0  # to send a request; enough for 256 KB at 100 kbit/s
LONG_REQUEST_TIMEOUT = 120.0  # to send a body of up to 30 MB, with a valid API token
WRITE_TIMEOUT = 10.0  # to read a short response
CLOSE_TIMEOUT = 2.0  # to finish sending, after an error response and during a shutdown
STALL_TIMEOUT = 1.0  # without reading; then its connection is the first to be closed for another
KEEP_ALIVE = 5  # between two requests
MIN_READ_RATE = 12_500  # bytes per second that the client of a long response has to read

# One web process.
MAX_CONNECTIONS = 512  # with files and database, fewer than 1,024 descriptors, a common limit
MAX_THREADS = 16  # for requests that Flask handles
WORKER_TIMEOUT = 60  # seconds without a heartbeat, after which gunicorn replaces the process
SHUTDOWN_TIMEOUT = 25  # seconds for current requests; hosts kill a process 30 s after SIGTERM

# Live events. Their connections do not count towards MAX_CONNECTIONS.
MAX_LISTENERS = 100  # listeners and waiting requests of one process; they use no threads
MAX_THREAD_LISTENERS = 4  # the same with gthread, where each of them occupies a thread
MAX_BEHIND = 256 * KIB  # unread bytes after which a listener is disconnected
MAX_EVENT_BATCH = 64 * KIB  # bytes of events that are passed to the listeners together
HEARTBEAT = 15.0  # seconds between heartbeats; many proxies close silent connections after 60 s
MAX_WAIT = 55  # seconds that a request may wait for the end of a task; less than those 60 s

# Rejected requests of one sender: this many in a burst, and then this many per second.
MAX_REJECTED_AT_ONCE = 60  # as many as one misconfigured task causes in a day
MAX_REJECTED_PER_SECOND = 1.0
