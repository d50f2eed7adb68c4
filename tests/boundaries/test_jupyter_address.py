"""`workshop --no-browser` says where JupyterLab is, however it is secured."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from lab_environment import free_port
from sampled import sampled
from workshop_command import LIMIT, workshop_command

HASH = "argon2:$argon2id$v=19$m=10240,t=10,p=8$AAAAAAAAAAAAAAAAAAAAAA$BBBB"
CONFIGS = {
    "as usual": {},  # which `running_lab` reads as well
    "with a token of one's own": {"IdentityProvider": {"token": "my-secret-token"}},
    "without a token": {"IdentityProvider": {"token": ""}},
    "with a password": {"PasswordIdentityProvider": {"hashed_password": HASH}},
}


@pytest.mark.parametrize("config", sampled(CONFIGS.values(), 1, ids=CONFIGS))
def test_the_address_is_printed(config: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "jupyter_server_config.json").write_text(json.dumps(config))
    port = free_port()
    with workshop_command() as workshop:
        lab = subprocess.Popen(
            ["timeout", str(LIMIT), *workshop.command("--no-browser", "--port", str(port))],
            env=workshop.environment(
                JUPYTER_CONFIG_DIR=str(tmp_path),
                WORKSHOP_WORKSPACE=str(tmp_path / "work"),
                WORKSHOP_TEMPORAL_PORT=str(free_port()),
                WORKSHOP_UI_PORT=str(free_port()),
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert lab.stderr
        said = []
        for line in lab.stderr:
            said.append(line)
            if f"http://127.0.0.1:{port}/lab" in line:
                break
        lab.send_signal(signal.SIGTERM)
        lab.communicate(timeout=LIMIT)
    assert f"http://127.0.0.1:{port}/lab" in said[-1], "".join(said)
    assert "my-secret-token" not in said[-1]
