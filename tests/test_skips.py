"""On CI a test that is skipped proves nothing, so it counts as failed there, with its reason."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SKIPS = {
    "a test": "import pytest\ndef test_it(): pytest.skip('no browser here')\n",
    "a fixture": "import pytest\n@pytest.fixture\ndef page(): pytest.skip('no browser here')\n"
    "def test_it(page): pass\n",
    "a mark": "import pytest\n@pytest.mark.skip(reason='no browser here')\ndef test_it(): pass\n",
    "a module": "import pytest\npytest.skip('no browser here', allow_module_level=True)\n",
}
XFAIL = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_it(): assert False\n"


def run(text: str, folder: Path, ci: str) -> "subprocess.CompletedProcess[str]":
    """Run one test file under the project's `conftest.py`."""
    (folder / "test_one.py").write_text(text)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    options = ["-p", "conftest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", folder]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-q", "test_one.py"],
        cwd=folder,
        env=os.environ | {"CI": ci, "PYTHONPATH": os.pathsep.join(paths), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("text", SKIPS.values(), ids=SKIPS)
def test_a_skip_fails_on_ci_and_says_why(text: str, tmp_path: Path) -> None:
    done = run(text, tmp_path, ci="true")
    assert done.returncode not in (0, 5), done.stdout
    assert "skipped, which CI does not allow: " in done.stdout
    assert "no browser here" in done.stdout


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path) -> None:
    done = run(SKIPS["a test"], tmp_path, ci="")
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout


def test_a_known_failure_is_no_skip(tmp_path: Path) -> None:
    done = run(XFAIL, tmp_path, ci="true")
    assert done.returncode == 0, done.stdout
    assert "1 xfailed" in done.stdout
