"""On CI a test that is skipped proves nothing, so it counts as failed there, with its reason."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ALONE = {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
FILES = {
    "body": "import pytest\ndef test_it(): pytest.skip('no browser')\n",
    "fixture": "import pytest\n@pytest.fixture\ndef page(): pytest.skip('no browser')\n"
    "def test_it(page): pass\n",
    "mark": "import pytest\n@pytest.mark.skip(reason='no browser')\ndef test_it(): pass\n",
    "module": "import pytest\npytest.skip('no browser', allow_module_level=True)\n",
    "known": "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_it(): assert False\n",
}


def run(folder: Path, ci: str) -> str:
    """Run a test of each kind with that plugin and no other; returns what pytest says."""
    for name, text in FILES.items():
        (folder / f"test_{name}.py").write_text(text)
    options = ["-p", "no_skips", "-p", "no:cacheprovider", "-c", os.devnull]
    options += [f"--rootdir={folder}", "--continue-on-collection-errors"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-rA", str(folder)],
        cwd=folder,
        env=os.environ | {"CI": ci, "PYTHONPATH": str(HERE)} | ALONE,
        capture_output=True,
        text=True,
        timeout=90,
    )
    return done.stdout


def test_skips_fail_on_ci_and_say_why(tmp_path: Path) -> None:
    said = run(tmp_path, ci="true")
    for name in ("body", "fixture", "mark", "module"):
        assert re.search(rf"^(FAILED|ERROR) test_{name}\.py", said, re.MULTILINE), said
    assert said.count("skipped, which CI does not allow: ") >= 4
    assert said.count("no browser") >= 4
    assert "XFAIL test_known.py" in said  # a failure that is known is no skip


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path) -> None:
    said = run(tmp_path, ci="")
    assert re.search(r"4 skipped, 1 xfailed", said), said


def test_the_project_uses_it(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.has_plugin("no_skips")
