"""examples/shared: a Redis, two instances, and the commands of the README, which change from one to the other."""
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from test_examples import BINARY, ROOT, check_found, commands, free_port, ready

sys.path.insert(0, str(ROOT / "tests/system"))
from proxy import SLOW  # noqa: E402
from redis_server import Redis  # noqa: E402

CASE = ROOT / "examples/shared"


@pytest.fixture
def instances(tmp_path):
    (tmp_path / "openclaw.yaml").write_bytes((CASE / "openclaw.yaml").read_bytes())
    server, ports, running = Redis(), [(free_port(), free_port()) for _ in range(2)], []
    try:
        for i, (port, admin) in enumerate(ports):
            env = dict(os.environ, PORT=str(port), ADMIN_PORT=str(admin), REDIS_URL=server.url(), LEDGER=f"{i}.db")
            running.append(subprocess.Popen([BINARY, "-config", str(tmp_path / "openclaw.yaml")], env=env, stdout=subprocess.DEVNULL))
        end = time.monotonic() + 20 * SLOW
        while not all(ready(admin) for _, admin in ports):
            assert time.monotonic() < end and all(p.poll() is None for p in running), "the example does not start"
        yield ports
    finally:
        for p in running:
            p.send_signal(signal.SIGTERM)
        statuses = [p.wait(timeout=20 * SLOW) for p in running]
        server.stop()
    assert statuses == [0, 0]


def told(words, expected):
    out = subprocess.run(words + ["-s", "-m", "20", "-w", "\n%{http_code}"], capture_output=True, text=True, check=True).stdout
    answer, status = out.replace("\r\n", "\n").rsplit("\n", 1)
    assert status == ("429" if expected.startswith("HTTP/1.1 429") else "200"), answer
    check_found(answer, expected)


def test_both_count_together(instances):
    (port, admin), (other, _) = instances
    ran = 0
    for command, expected in commands((CASE / "README.md").read_text(), port, admin):
        words = shlex.split(command.replace(":8081", f":{other}"))
        end = time.monotonic() + 10 * SLOW
        while "instances" in expected or "insufficient" in expected:     # what the other one hears some tenths later
            try:
                told(words, expected)
                break
            except AssertionError:
                if time.monotonic() > end:
                    raise
        else:
            told(words, expected)
        ran += 1
    assert ran == 7
