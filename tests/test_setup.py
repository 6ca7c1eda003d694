"""When set-up fails it says why in one line, leaves nothing half done, and the next run works.

A gateway that is a line long, and wants one small package, stands for the real one.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.made_up import package
from tests.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

INSTALLING = "Installing requirements.txt into .venv\n"
UNREACHABLE = "failed: the package index cannot be reached.\n"
SERVED = "served with wanted 1\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in a path with a space, beside an index that has the packages it needs."""
    root = tmp_path / "a clone"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "gateway").mkdir()
    (root / "gateway/__main__.py").write_text(
        "from importlib.metadata import version\nprint('served with wanted', version('wanted'))"
    )
    (tmp_path / "index").mkdir()
    wants(root, "wanted", "1")
    return root


def wants(checkout: Path, name: str, version: str, file: str = "requirements.txt") -> None:
    (checkout / file).write_text(f"{name}=={version}{package(checkout.parent / 'index', name, version)}")


def start(checkout: Path, *command: str | Path, **environment: str) -> subprocess.Popen[str]:
    """`scripts/run`, or another command, in a process group of its own, with the index beside the checkout."""
    known = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(checkout.parent / "index")}
    return subprocess.Popen(
        command or ["scripts/run"],
        cwd=checkout,
        env=known | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(checkout: Path, *command: str | Path, **environment: str) -> tuple[int, str]:
    """The exit code, and everything that was printed."""
    with start(checkout, *command, **environment) as running:
        said, _ = running.communicate()
    return running.returncode, said


def far(index: str) -> dict[str, str]:
    """The environment variables that point pip at this index only, with a single retry."""
    return {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": index, "PIP_RETRIES": "1"}


@contextmanager
def installing(checkout: Path) -> Iterator[subprocess.Popen[str]]:
    """`scripts/run` while pip waits for an index that takes its connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        address = f"http://127.0.0.1:{index.getsockname()[1]}"
        with start(checkout, **far(address)) as running, index.accept()[0]:
            yield running


def test_without_a_network(checkout: Path, closed_port: str) -> None:
    assert run(checkout, **far(closed_port)) == (1, f"{INSTALLING}Installing requirements.txt {UNREACHABLE}")
    assert run(checkout) == (0, INSTALLING + SERVED)


def test_without_a_network_for_node(checkout: Path, closed_port: str) -> None:
    folder = checkout / "tests/page"
    folder.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests/page" / name, folder)
    environment = {"npm_config_registry": closed_port, "npm_config_fetch_retries": "0", "npm_config_cache": "cache"}
    command = ("bash", "-euc", ". scripts/lib.sh; PYTHON=python3; node_packages tests/page")
    said = f"Installing Node's packages into tests/page\nInstalling Node's packages {UNREACHABLE}"
    assert run(checkout, *command, **environment) == (1, said)


def test_without_python(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "cmp", "dirname", "readlink"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    code, said = run(checkout, PATH=str(tmp_path / "bin"))
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("Python 3.11 or later is needed.")


def test_it_writes_once(checkout: Path) -> None:
    """Without a home, in the C locale, where nobody else may read what is written; and with a disk that is read-only.

    Root may write everywhere, unless it has no capabilities.
    """
    powerless = "setpriv --bounding-set=-all --inh-caps=-all" if os.getuid() == 0 else ""
    command = ("sh", "-c", f"umask 077 && exec {powerless} scripts/run")
    anywhere = {"HOME": "", "LANG": "C", "LC_ALL": "C"}
    checkout.chmod(0o555)
    refused = f"{checkout} cannot be written to, and what is to be installed belongs there.\n"
    assert run(checkout, *command, **anywhere) == (1, refused)
    checkout.chmod(0o755)
    assert run(checkout, *command, **anywhere) == (0, INSTALLING + SERVED)
    checkout.chmod(0o555)
    assert run(checkout, *command, **anywhere) == (0, SERVED)


def test_two_at_once_and_ctrl_c(checkout: Path) -> None:
    """The second run waits, and continues once the first has ended, successfully or not."""
    with installing(checkout) as first, start(checkout) as second:
        assert second.stdout
        assert second.stdout.readline() == "Waiting for another installation to end\n"
        os.killpg(first.pid, signal.SIGINT)
        said, _ = first.communicate()
        assert said == f"{INSTALLING}Installing requirements.txt was interrupted. The next run starts over.\n"
        assert second.communicate()[0] == INSTALLING + SERVED


def test_killed_while_it_installs(checkout: Path) -> None:
    """The half-written environment is removed, because pip takes a half-written package for an installed one."""
    with installing(checkout) as running:
        os.killpg(running.pid, signal.SIGKILL)
    half = checkout / ".venv/half"
    half.touch()
    assert run(checkout) == (0, INSTALLING + SERVED)
    assert not half.exists()


def test_killed_while_it_makes_the_environment(checkout: Path) -> None:
    """The run is interrupted after the old environment was deleted and before the new one has pip."""
    subprocess.run(["python3", "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    shutil.copy(checkout / "requirements.txt", checkout / ".venv")
    assert run(checkout) == (0, INSTALLING + SERVED)


def test_an_environment_holds_what_is_listed(checkout: Path) -> None:
    """An environment grows by a new list. Packages that are no longer listed go, or they would hide a missing pin."""
    freeze = ("bash", "-euc", '. scripts/lib.sh; environment "$0"; "$PYTHON" -m pip freeze --exclude=setuptools')
    assert run(checkout, *freeze, "requirements.txt") == (0, INSTALLING + "wanted==1\n")
    wants(checkout, "more", "1", "requirements-test.txt")
    grown = (0, "Installing requirements-test.txt into .venv\nmore==1\nwanted==1\n")
    assert run(checkout, *freeze, "requirements-test.txt") == grown
    assert run(checkout, PIP_FIND_LINKS="") == (0, SERVED)
    wants(checkout, "wanted", "2")
    assert run(checkout, *freeze, "requirements.txt") == (0, INSTALLING + "wanted==2\n")
