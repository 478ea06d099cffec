"""TLS contexts of clients, one for each set of root certificates in the process.

A context takes about 30 ms of CPU, because it loads about 140 certificates. A set that has changed
on disk is read when the process starts again.
"""

from __future__ import annotations

import ssl
from functools import lru_cache

MAX_SETS = 8  # usually two are in use: those of `requests` and of OpenSSL


@lru_cache(MAX_SETS)
def context_with(roots: str) -> ssl.SSLContext:
    """Return the context of HTTP requests. `roots` is the path of a bundle."""
    from urllib3.util.ssl_ import create_urllib3_context  # noqa: PLC0415 - slow; SMTP needs none

    context = create_urllib3_context()
    context.load_verify_locations(roots)
    context.set_alpn_protocols(["http/1.1"])
    return context


def system_context() -> ssl.SSLContext:
    """Return the context with OpenSSL's roots, or those in SSL_CERT_FILE and SSL_CERT_DIR."""
    return _default_context(ssl.get_default_verify_paths())


@lru_cache(MAX_SETS)
def _default_context(_: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    return ssl.create_default_context()
