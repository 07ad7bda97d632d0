"""Real servers on free ports: PostgreSQL and Redis in a temporary folder, an S3 API in process.

On loopback, or on the address of a virtual network that no other host can reach.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import httpx
import psycopg
import pytest
from moto.server import ThreadedMotoServer
from upath import UPath

from search.location import open_place

PASSWORD = "open-sesame"  # noqa: S105
BUCKET = "studies"
LOOPBACK = "127.0.0.1"


@contextmanager
def postgres(host: str = LOOPBACK) -> Iterator[str]:
    """The URL, with user and password, of an empty database on a new PostgreSQL server.

    The test is skipped where PostgreSQL is not installed.
    """
    account = pwd.getpwnam("nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
    programs, port = _postgres_programs(), free_port(host)
    with tempfile.TemporaryDirectory(prefix="consilium-pg-") as name:
        folder, data = Path(name), Path(name) / "data"
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            os.chown(path, account.pw_uid, account.pw_gid)
        # The C locale brings no encoding: the poorest server there is.
        rules = ["--auth=scram-sha-256", "--username=consilium", f"--pwfile={folder / 'password'}"]
        _as(account, programs / "initdb", "-D", data, "--no-sync", "--locale=C", *rules).wait(60)
        with (data / "pg_hba.conf").open("a") as rules_of_hosts:
            rules_of_hosts.write("host all all samenet scram-sha-256\n")
        server = _as(
            account,
            *(programs / "postgres", "-D", data, "-p", str(port), "-c", "fsync=off"),
            *("-c", f"listen_addresses={host}", "-c", "unix_socket_directories="),
        )
        try:
            url = f"postgresql://consilium:{PASSWORD}@{host}:{port}/postgres"
            _await(server, url)
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # its fast shutdown
            server.wait(30)


@contextmanager
def s3(host: str = LOOPBACK) -> Iterator[str]:
    """The URL of an empty bucket, with endpoint and credentials in the environment."""
    server = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        with patch.dict(os.environ, s3_environment(endpoint)), fresh_connections():
            open_place(f"s3://{BUCKET}").mkdir()
            yield f"s3://{BUCKET}"
    finally:
        httpx.post(f"{endpoint}/moto-api/reset")
        server.stop()


def s3_environment(endpoint: str) -> dict[str, str]:
    """All that botocore takes from the environment; nothing of this machine's own is read."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Object stores connected within know the environment of now, and nothing after that does."""
    kind = type(UPath("s3://any").fs)
    kind.clear_instance_cache()
    try:
        yield
    finally:
        kind.clear_instance_cache()


@contextmanager
def redis(folder: Path, host: str = LOOPBACK) -> Iterator[str]:
    """host:port of an empty Redis that keeps what it is told; it asks for PASSWORD.

    The test is skipped where Redis is not installed.
    """
    program, port = shutil.which("redis-server"), free_port(host)
    if program is None:
        pytest.skip("Redis is not installed")
    rules = ["--bind", host, "--port", str(port), "--dir", str(folder), "--appendonly", "yes"]
    server = subprocess.Popen(
        [program, *rules, "--requirepass", PASSWORD], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with suppress(OSError):
                socket.create_connection((host, port), timeout=1).close()
                break
            time.sleep(0.1)
        yield f"{host}:{port}"
    finally:
        server.terminate()
        server.wait(30)


def free_port(host: str = LOOPBACK) -> int:
    with closing(socket.create_server((host, 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def _postgres_programs() -> Path:
    """The folder of initdb and postgres; Debian keeps it out of the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("PostgreSQL is not installed")
    return folders[-1]


def _as(account: pwd.struct_passwd, *command: str | Path) -> "subprocess.Popen[bytes]":
    """Start a program; PostgreSQL's refuse to be root."""
    other = account.pw_uid != os.geteuid()
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=account.pw_uid if other else None,
        group=account.pw_gid if other else None,
    )


def _await(server: "subprocess.Popen[bytes]", url: str) -> None:
    for _ in range(200):
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert server.poll() is None, "PostgreSQL ended as it started"
            time.sleep(0.1)
        else:
            return
    pytest.fail("PostgreSQL does not answer")
