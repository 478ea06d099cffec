"""The files of deploy/ for nginx and Caddy, adapted to this machine.

Only the parts that name another machine are changed: the ports, the certificate, the socket of
syslog and the receiver's address.
"""

from __future__ import annotations

import re
import shutil
import socket
import ssl
from pathlib import Path

from tests.support.clean_venv import ROOT
from tests.support.patience import PATIENCE
from tests.support.real_servers import Place
from tests.support.unprivileged_user import give

NAME = "callbacks.example.com"


def adapted_nginx(folder: Path, port: int, plain_port: int, upstream: int) -> str:
    """Return deploy/nginx.conf for this machine."""
    text = (ROOT / "deploy/nginx.conf").read_text()
    loopback = "[::1]" if has_ipv6() else "127.0.0.2"
    for public, ours in ((443, port), (80, plain_port)):
        text = text.replace(f"listen {public}", f"listen 127.0.0.1:{ours}")
        text = text.replace(f"listen [::]:{public}", f"listen {loopback}:{ours}")
    text = re.sub(rf"/etc/letsencrypt/live/{NAME}/fullchain\.pem", f"'{folder}/cert.pem'", text)
    text = re.sub(rf"/etc/letsencrypt/live/{NAME}/privkey\.pem", f"'{folder}/key.pem'", text)
    text = text.replace("unix:/dev/log", f"unix:{folder}/syslog")
    return text.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")


def adapted_caddyfile(folder: Path, port: int, plain_port: int, upstream: int) -> str:
    """Return deploy/Caddyfile for this machine, with a certificate, so that none is requested."""
    text = re.sub(r"\{\$\w+:(.*?)\}", r"\1", (ROOT / "deploy/Caddyfile").read_text())
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    options = f"admin off\nauto_https disable_certs\nhttp_port {plain_port}\nhttps_port {port}\n"
    text = re.sub(r"^\{\n", f"{{\n{options}", text, count=1, flags=re.MULTILINE)
    certificate = f"\tbind 127.0.0.1\n\ttls `{folder}/cert.pem` `{folder}/key.pem`\n"
    return text.replace(f"{NAME} {{\n", f"{NAME} {{\n{certificate}")


def has_ipv6() -> bool:
    """Return whether this machine has the loopback address of IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def certificate(server: Place) -> None:
    """Copy the tests' certificate and its key into the server's folder."""
    for name in ("cert.pem", "key.pem"):
        shutil.copy(ROOT / "tests/data/tls" / name, server.folder)
        give(server.folder / name)


def connect_by_tls(port: int, *protocols: str) -> ssl.SSLSocket:
    """Return a TLS connection to a proxy on this machine, as a provider would open it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([*protocols, "http/1.1"])
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return context.wrap_socket(plain, server_hostname=NAME)
