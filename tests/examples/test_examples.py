"""Every example folder is started with the real binary and driven by the commands of its own README.

A README's fenced blocks that begin with `curl ` are run (the ports are the file's own, moved to free ones). A fenced
block directly behind one says what comes back: its lines, and what stands between the "…" of a line, are found in the
answer in this order. The answer is a 200 unless that block begins with another status line. An example that needs
something else has a `drive.py` with a function `drive(port, admin_port)`. What an example has in spec/ is run by busted.
"""
import importlib.util
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("CLAW_BINARY", str(ROOT / "build/release/openclaw-proxy"))
OWN = {"shared"}  # needs a Redis and another instance: test_shared.py
CASES = sorted(p.parent for p in (ROOT / "examples").glob("*/openclaw.yaml") if p.parent.name not in OWN)


def free_port():
    """Below those that connections get by themselves."""
    while True:
        port = random.SystemRandom().randrange(10240, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def ready(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).status == 200
    except OSError:
        return False


@pytest.fixture(params=CASES, ids=lambda p: p.name)
def example(request, tmp_path):
    case, port, admin = request.param, free_port(), free_port()
    for f in case.rglob("*"):
        if f.is_file():
            to = tmp_path / f.relative_to(case)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(f.read_bytes())
    text = (tmp_path / "openclaw.yaml").read_text()
    text = re.sub(r"listen_port: 8080\b", f"listen_port: {port}", text)
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    text = re.sub(r"listen_port: 9090\b", f"listen_port: {admin}", text)
    if "admin:" not in text:
        text += f"\nadmin:\n  listen_port: {admin}\n"
    (tmp_path / "openclaw.yaml").write_text(text)
    env = dict(os.environ, OPENAI_API_KEY="sk-example", ANTHROPIC_API_KEY="sk-example")
    p = subprocess.Popen([BINARY, "-config", str(tmp_path / "openclaw.yaml")], env=env, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while not ready(admin):
        assert p.poll() is None and time.monotonic() < end, "the example does not start"
    yield case, port, admin
    p.send_signal(signal.SIGTERM)
    assert p.wait(timeout=60) == 0


def commands(readme, port, admin):
    """Each command of a README and what it says will come back."""
    block = r"```[a-z]*\n(curl .*?)```(?:\n```\n(.*?)```)?"
    for command, expected in re.findall(block, readme, re.S):
        yield command.replace(":8080", f":{port}").replace(":9090", f":{admin}"), expected


def check_found(answer, expected):
    at = 0
    for part in filter(None, re.split(r"…|\n", expected)):
        found = answer.find(part, at)
        assert found >= 0, f"{part!r} is not in the answer, or not there:\n{answer}"
        at = found + len(part)


def test_example(example):
    case, port, admin = example
    drive = case / "drive.py"
    if drive.exists():
        spec = importlib.util.spec_from_file_location("drive", drive)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.drive(port, admin)
        return
    ran = 0
    for command, expected in commands((case / "README.md").read_text(), port, admin):
        words = shlex.split(command.replace("\\\n", " "))
        out = subprocess.run(words + ["-s", "-m", "20", "-w", "\n%{http_code}"], capture_output=True, text=True, check=True).stdout
        answer, status = out.replace("\r\n", "\n").rsplit("\n", 1)
        told = re.match(r"HTTP/1\.1 (\d+)", expected)
        assert status == (told.group(1) if told else "200"), answer
        check_found(answer, expected)
        ran += 1
    assert ran > 0, "the README has no curl command"


@pytest.mark.parametrize("case", [c for c in CASES if (c / "spec").is_dir()], ids=lambda p: p.name)
def test_spec(case):
    subprocess.run(["busted", str((case / "spec").relative_to(ROOT))], cwd=ROOT, check=True, timeout=60)
