"""nginx, Caddy, PgBouncer, Redis and RabbitMQ, each in a temporary folder, on loopback.

None runs as root. Each is stopped at the end of its block, by its own process id.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.orphans import never_orphaned
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port
from tests.support.programs import Program, find_or_skip
from tests.support.unprivileged_user import give, process_user, readable

NGINX = """\
daemon off;
master_process off;
pid nginx.pid;
error_log nginx-errors.log;
events {{}}
http {{
    access_log nginx-access.log;
    client_body_temp_path temporary-body;
    proxy_temp_path temporary-proxy;
    fastcgi_temp_path temporary-fastcgi;
    scgi_temp_path temporary-scgi;
    uwsgi_temp_path temporary-uwsgi;
    include '{site}';
}}
"""
AMQP_HEADER = b"AMQP\x00\x00\x09\x01"  # AMQP 0-9-1, section 4.2.2
MAX_AMQP_MESSAGE = 1_000_000  # bytes; by default, it would take too long to send a larger message
CONNECTION_START = b"\x00\x0a\x00\x0a"  # class 10, method 10


@dataclass(frozen=True)
class Place:
    """A program, and a temporary folder of the user that runs it."""

    program: Program
    folder: Path

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file that the server's user owns."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        give(path)
        return path

    def environment(self) -> dict[str, str]:
        homes = ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "TMPDIR")
        return self.program.environment() | dict.fromkeys(homes, str(self.folder))

    def run(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the program, with `more` variables, until it ends by itself."""
        return subprocess.run(
            [self.program.path, *arguments],
            cwd=self.folder,
            env=self.environment() | more,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            **process_user(),
        )

    @contextmanager
    def running(
        self,
        *arguments: str | Path,
        is_ready: Callable[[], bool],
        program: str | Path | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run the program, or another one of its package, during the block."""
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                [program or self.program.path, *arguments],
                cwd=self.folder,
                env=self.environment() | dict(more or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **process_user(),
            )
        try:
            with never_orphaned(process, signal.SIGTERM):
                # RabbitMQ needs several seconds of CPU time, and a busy machine gives it little.
                wait_until(
                    lambda: process.poll() is not None or is_ready(),
                    self.output,
                    limit=3 * PATIENCE,
                )
                assert process.poll() is None, self.output()
                yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
                process.wait()

    def output(self) -> str:
        """Return everything that the servers of this folder have logged."""
        logs = [self.folder / "output", *self.folder.glob("*.log")]
        return "\n".join(log.read_text(errors="replace") for log in logs)


@contextmanager
def place(name: str) -> Iterator[Place]:
    """Find a program and create a folder for it; skip the test if it is not available."""
    program = find_or_skip(name)
    with tempfile.TemporaryDirectory(prefix=f"{name}-of-the-tests-") as created:
        folder = Path(created)
        give(folder)
        if program.folder is not None:
            program = program.moved(readable(program.folder, folder / "package"))
        yield Place(program, folder)


@contextmanager
def nginx(server: Place, site: str, port: int) -> Iterator[None]:
    """Run nginx with a file like those in /etc/nginx/conf.d."""
    with server.running(*nginx_arguments(server, site), is_ready=lambda: accepts(port)):
        yield


def nginx_arguments(server: Place, site: str) -> list[str | Path]:
    """Write nginx's files, and return the arguments that make nginx read them."""
    main = NGINX.format(site=server.write("site.conf", site))
    errors = server.folder / "nginx-errors.log"
    return ["-p", server.folder, "-e", errors, "-c", server.write("nginx.conf", main)]


@contextmanager
def caddy(server: Place, configuration: str, port: int) -> Iterator[None]:
    """Run Caddy with a Caddyfile."""
    file = server.write("Caddyfile", configuration)
    arguments = ("run", "--adapter", "caddyfile", "--config", file)
    with server.running(*arguments, is_ready=lambda: accepts(port)):
        yield


@contextmanager
def pgbouncer(server: Place, url: str, mode: str, *, settings: str = "") -> Iterator[str]:
    """Run PgBouncer in a pool mode in front of this database; yield the URL of the pooler."""
    port, parts = free_port(), urlsplit(url)
    configuration = (
        f"[databases]\n* = host={parts.hostname} port={parts.port} user={parts.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\nmax_client_conn = 200\n{settings}\n"
    )
    file = server.write("pgbouncer.ini", configuration)
    with server.running(file, is_ready=lambda: accepts(port)):
        yield parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}").geturl()


@contextmanager
def redis(server: Place) -> Iterator[int]:
    """Run Redis without persistence; yield its port."""
    port = free_port()
    options = ("--save", "", "--appendonly", "no", "--dir", server.folder)
    with server.running(
        *("--bind", "127.0.0.1", "--port", str(port)), *options, is_ready=lambda: accepts(port)
    ):
        yield port


@contextmanager
def rabbitmq(server: Place) -> Iterator[int]:
    """Run RabbitMQ; yield its port for AMQP."""
    with rabbitmq_node(server) as (port, _):
        yield port


@contextmanager
def rabbitmq_node(server: Place) -> Iterator[tuple[int, dict[str, str]]]:
    """Run RabbitMQ; yield its port for AMQP, and the environment of its commands.

    The node's name server (epmd) is our own process as well, because Erlang would start one that
    outlives the node.
    """
    port, name_port = free_port(), free_port()
    more = _rabbitmq_environment(server, port) | {
        "ERL_EPMD_PORT": str(name_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    script = server.program.path.resolve()
    if script.name == "rabbitmq-script-wrapper":  # Debian's script, which only two users may run
        script = script.with_name("rabbitmq-server")
    epmd = shutil.which("epmd", path=more["PATH"])
    assert epmd, "RabbitMQ is here, but Erlang's epmd is not"
    with (
        server.running(program=epmd, more=more, is_ready=lambda: accepts(name_port)),
        server.running("-noinput", program=script, more=more, is_ready=lambda: _has_amqp(port)),
    ):
        yield port, server.environment() | more


def _rabbitmq_environment(server: Place, port: int) -> dict[str, str]:
    folder = server.folder
    path = server.environment()["PATH"]
    if server.program.folder is not None:  # the package's own `erl` refers to /usr/lib/erlang
        erlang = server.program.folder / "usr/lib/erlang"
        binaries = next(erlang.glob("erts-*/bin"))
        server.write(
            "erl",
            "#!/bin/sh\n"
            f"export ROOTDIR='{erlang}' BINDIR='{binaries}' EMU=beam PROGNAME=erl\n"
            f"exec '{binaries}/erlexec' \"$@\"\n",
            0o755,
        )
        path = f"{folder}{os.pathsep}{path}"
    return {
        "PATH": path,
        "RABBITMQ_ALLOW_INPUT": "1",  # the script then becomes the server, with the same process id
        "RABBITMQ_NODENAME": "tests@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_CONFIG_FILE": str(
            server.write(
                "rabbitmq.conf",
                f"listeners.tcp.1 = 127.0.0.1:{port}\nmax_message_size = {MAX_AMQP_MESSAGE}\n",
            )
        ),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(server.write("plugins", "[].\n")),
        "RABBITMQ_MNESIA_BASE": str(folder / "database"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
    }


def accepts(port: int) -> bool:
    """Return whether a server listens at the port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
        return True
    return False


def exchange(port: int, sent: bytes, length: int = 4096) -> bytes:
    """Return the first bytes that a server sends after it has received these."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        return connection.recv(length)


def _has_amqp(port: int) -> bool:
    with suppress(OSError):
        return CONNECTION_START in exchange(port, AMQP_HEADER)
    return False
