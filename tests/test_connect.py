"""Connecting: which server is meant, and what a person reads when it does not work."""

import json
import os
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from lab_environment import free_port, lab, listening, set_env

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.server.lifecycle import ensure_server
from workshop_lib.temporal import connect
from workshop_lib.temporal.failures import DATA_CONVERTER
from workshop_lib.temporal.own_server import NoServer

SECRET = "sk-very-secret-0123456789"


@pytest.fixture
def patch(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    with lab(tmp_path) as patch:
        yield patch


def note_server(folder: Path, **changes: object) -> None:
    """A `server.json` that names a living process. The lab ends it, as it would end a server."""
    idle = "import time; print('up', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", idle]
    process = psutil.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout.readline()  # before, it may have no command line yet
    record: dict[str, object] = {
        "address": "127.0.0.1:7999",
        "ui_url": "http://localhost:8999",
        "pid": process.pid,
        "create_time": process.create_time(),
        "command": process.cmdline(),
    }
    (folder / "server.json").write_text(json.dumps(record | changes))


def profile(patch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    file = folder / "temporal.toml"
    file.write_text(text)
    set_env(patch, TEMPORAL_CONFIG_FILE=file)


async def refused(**options: Any) -> str:
    with pytest.raises(WorkshopError) as caught:
        await connect.connect(**options)
    assert caught.value.fix
    return str(caught.value)


# Which server


def no_server() -> None:
    """Nobody is meant: no address is taken by default, for whoever listens there is somebody else's."""
    with pytest.raises(NoServer, match="does not run"):
        connect.server_address()


def test_nothing_set_and_nothing_running_is_nobody(patch: pytest.MonkeyPatch) -> None:
    no_server()
    assert connect.ui_url() is None
    assert not connect.address_is_users()


def test_the_state_folders_living_server_is_meant(
    patch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    note_server(tmp_path)
    assert connect.server_address() == "127.0.0.1:7999"
    assert connect.ui_url() == "http://localhost:8999"
    assert not connect.address_is_users()


def test_a_dead_or_reused_pid_is_no_server(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note_server(tmp_path)
    record = json.loads((tmp_path / "server.json").read_text())
    reused = record | {"create_time": 1.0, "command": ["something", "else"]}
    (tmp_path / "server.json").write_text(json.dumps(reused))
    no_server()
    (tmp_path / "server.json").write_text(json.dumps(record))
    psutil.Process(record["pid"]).kill()
    psutil.Process(record["pid"]).wait()
    no_server()


def test_a_clock_that_was_set_does_not_hide_a_living_server(
    patch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    note_server(tmp_path, create_time=1.0)
    assert connect.server_address() == "127.0.0.1:7999"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": null}'])
def test_a_broken_note_is_no_server(patch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "server.json").write_text(text)
    no_server()


def test_what_the_user_set_wins(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note_server(tmp_path)
    set_env(patch, TEMPORAL_ADDRESS="there:7000")
    assert connect.server_address() == "there:7000"
    assert connect.address_is_users()
    assert connect.ui_url() is None  # our server's UI would show other workflows
    set_env(patch, TEMPORAL_UI_URL="http://there:8080/")
    assert connect.ui_url() == "http://there:8080"


def test_a_profile_names_the_server(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile(patch, tmp_path, '[profile.default]\naddress="a:1"\n[profile.cloud]\naddress="b:2"\n')
    assert connect.server_address() == "a:1"
    set_env(patch, TEMPORAL_PROFILE="cloud")
    assert connect.server_address() == "b:2"


def test_temporal_address_in_dotenv_counts(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dotenv").write_text("TEMPORAL_ADDRESS=from-file:7233\n")
    patch.setenv("TEMPORAL_ADDRESS", "")  # so that it is taken away again
    patch.delenv("TEMPORAL_ADDRESS")
    set_env(patch, WORKSHOP_ENV_FILE=tmp_path / "dotenv")
    assert connect.server_address() == "from-file:7233"
    patch.delenv("TEMPORAL_ADDRESS")


# Configuration that cannot be used


def test_an_unknown_profile_is_named(patch: pytest.MonkeyPatch) -> None:
    set_env(patch, TEMPORAL_PROFILE="nope")
    with pytest.raises(WorkshopError, match="Profile 'nope' not found"):
        connect.server_address()


def test_a_broken_profile_file_is_not_quoted(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile(patch, tmp_path, f'[profile.default]\naddress="a:1"\napi_key="{SECRET}\n')
    with pytest.raises(WorkshopError, match="line 3") as caught:
        connect.server_address()
    assert SECRET not in str(caught.value)


def test_a_key_without_an_address_is_an_error(patch: pytest.MonkeyPatch) -> None:
    set_env(patch, TEMPORAL_API_KEY=SECRET)
    with pytest.raises(WorkshopError, match="TEMPORAL_ADDRESS is not") as caught:
        connect.server_address()
    assert SECRET not in str(caught.value)


def test_a_missing_certificate_is_named(patch: pytest.MonkeyPatch) -> None:
    set_env(
        patch,
        TEMPORAL_TLS_CLIENT_CERT_PATH="/no/such/cert.pem",
        TEMPORAL_TLS_CLIENT_KEY_PATH="/no/such/key.pem",
    )
    with pytest.raises(WorkshopError, match=r"/no/such/cert\.pem"):
        connect.connect_config()


# Servers that do not answer as they should


async def test_nothing_listens(patch: pytest.MonkeyPatch) -> None:
    set_env(patch, TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}")
    said = await refused()
    assert "TEMPORAL_ADDRESS" in said
    assert "nothing answers" in said


async def test_the_own_server_does_not_run(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note_server(tmp_path, address=f"127.0.0.1:{free_port()}")
    assert "workshop up" in await refused()


async def test_a_server_that_never_answers(patch: pytest.MonkeyPatch) -> None:
    with listening() as port:
        set_env(patch, TEMPORAL_ADDRESS=f"127.0.0.1:{port}")
        assert "no answer within 0.3 s" in await refused(timeout=0.3)


async def test_an_address_that_is_none(patch: pytest.MonkeyPatch) -> None:
    set_env(patch, TEMPORAL_ADDRESS="127.0.0.1:79333")
    assert "host:port" in await refused()


async def test_tls_to_a_server_without_it(patch: pytest.MonkeyPatch) -> None:
    with grpc_server(status=0) as port:
        set_env(
            patch, TEMPORAL_ADDRESS=f"localhost:{port}", TEMPORAL_API_KEY=SECRET
        )  # a key implies TLS
        said = await refused()
    assert "TLS" in said
    assert SECRET not in said


async def test_a_private_key_that_is_none(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    (tmp_path / "key.pem").write_text(SECRET)
    set_env(
        patch,
        TEMPORAL_ADDRESS=f"localhost:{free_port()}",
        TEMPORAL_TLS_CLIENT_CERT_PATH=tmp_path / "cert.pem",
        TEMPORAL_TLS_CLIENT_KEY_PATH=tmp_path / "key.pem",
    )
    said = await refused()
    assert "private key in PEM format" in said
    assert SECRET not in said


@pytest.mark.parametrize("status", [16, 7])
async def test_a_refused_key(patch: pytest.MonkeyPatch, status: int) -> None:
    with grpc_server(status=status) as port:
        set_env(
            patch,
            TEMPORAL_ADDRESS=f"127.0.0.1:{port}",
            TEMPORAL_API_KEY=SECRET,
            TEMPORAL_TLS="false",
        )
        said = await refused()
    assert "refused the credentials" in said
    assert "TEMPORAL_API_KEY" in said
    assert SECRET not in said


async def test_another_program_answers(patch: pytest.MonkeyPatch) -> None:
    with grpc_server(status=12) as port:
        set_env(patch, TEMPORAL_ADDRESS=f"127.0.0.1:{port}")
        assert "not a Temporal server" in await refused()
    with http_server() as port:
        set_env(patch, TEMPORAL_ADDRESS=f"127.0.0.1:{port}")
        assert "No Temporal server" in await refused()


# A server that does


async def test_a_client_of_the_namespace_asked_for(patch: pytest.MonkeyPatch) -> None:
    ensure_server()
    assert (await connect.connect()).namespace == "default"
    set_env(patch, TEMPORAL_NAMESPACE="team-a")
    assert (await connect.connect()).namespace == "team-a"
    client = await connect.connect("team-b", identity="me")
    assert client.namespace == "team-b"
    assert client.identity == "me"
    assert client.data_converter is DATA_CONVERTER
    assert await client.service_client.check_health()


def test_a_runtime_that_is_already_set_is_kept() -> None:
    code = """
from temporalio.runtime import Runtime, TelemetryConfig
mine = Runtime(telemetry=TelemetryConfig())
Runtime.set_default(mine)
from workshop_lib.temporal.connect import quiet_runtime
quiet_runtime(); quiet_runtime()
assert Runtime.default() is mine
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


# Servers made of a socket


@contextmanager
def served(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def http_server() -> Any:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    return served(Handler)


def grpc_server(status: int) -> Any:
    """The least of HTTP/2 that answers every gRPC call with one status."""

    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        return (
            struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
        )

    def header(name: bytes, value: bytes) -> bytes:  # HPACK: literal, not indexed, not compressed
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    headers = header(b":status", b"200") + header(b"content-type", b"application/grpc")
    headers += header(b"grpc-status", str(status).encode())
    headers += header(b"grpc-message", SECRET.encode())  # a server might quote what it got

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if not self.rfile.read(24).startswith(b"PRI * HTTP/2.0"):
                return
            self.wfile.write(frame(4, 0, 0))  # SETTINGS
            while len(head := self.rfile.read(9)) == 9:
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                payload = self.rfile.read(int.from_bytes(head[:3], "big"))
                if kind == 4 and not flags & 1:
                    self.wfile.write(frame(4, 1, 0))  # its acknowledgement
                elif kind == 6 and not flags & 1:
                    self.wfile.write(frame(6, 1, 0, payload))  # PING
                elif kind == 1:
                    self.wfile.write(
                        frame(1, 5, stream, headers)
                    )  # HEADERS, the last of the stream

    return served(Handler)
