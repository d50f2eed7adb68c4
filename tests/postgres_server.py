"""A PostgreSQL server of its own for the tests: Debian's package, a fresh cluster, a port on 127.0.0.1."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab_environment import free_port

PASSWORD = "s3cret-in-tests"
MISSING = "PostgreSQL is not installed (Debian and Ubuntu: apt-get install postgresql)"


def postgres_programs() -> Path | None:
    """The folder with `initdb` and `postgres`, which Debian keeps off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A running server; yields its SQLAlchemy URL."""
    folder = Path(tempfile.mkdtemp(prefix="wpg-"))
    owner = _owner()
    try:
        password = folder / "password"
        password.write_text(PASSWORD)
        for path in (folder, password):
            if owner:
                os.chown(path, owner.pw_uid, owner.pw_gid)
        _run(
            [programs / "initdb", "-D", folder / "data", "-U", "workshop", "--pwfile", password,
             "--auth", "scram-sha-256", "--no-sync", "--no-locale", "-E", "UTF8"],
            owner,
        )  # fmt: skip
        port = free_port()
        # `pg_ctl -w` returns when the server takes connections.
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
        control = [programs / "pg_ctl", "-D", folder / "data", "-w", "-t", "30"]
        _run([*control, "-l", folder / "log", "-o", options, "start"], owner)
        try:
            yield f"postgresql://workshop:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"], owner)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str | Path], owner: pwd.struct_passwd | None) -> None:
    """Run as the user that PostgreSQL may run as; root it refuses."""
    as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        timeout=60,
        cwd="/",
        env={**os.environ, "LC_ALL": "C"},
        check=False,
        **as_user,  # type: ignore[arg-type]
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed with {done.returncode}")


def _owner() -> pwd.struct_passwd | None:
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _version(initdb: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in initdb.parent.parent.name.split(".") if part.isdigit())
