"""A new user's way, word for word: docs/first-policy.md and "A policy" of README.md, in a home that is empty.

Of docs/first-policy.md: a block that follows 'Save as `FILE`' is written there; each `sh` block is run in one shell, the one that
starts the proxy beside it; a bare block behind one says what comes out, in this order. Ports are moved to free ones.
"""
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from test_examples import BINARY, ROOT, check_found, free_port, ready

BLOCK = re.compile(r"```([a-z]*)\n(.*?)```", re.S)


def wait(what, why, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.02)


class Shell:
    """One bash; what each command says."""

    def __init__(self, cwd, **env):
        self.p = subprocess.Popen(["bash"], cwd=cwd, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)

    def run(self, command):
        self.p.stdin.write(f"{command}\necho \"--done $?\"\n")
        self.p.stdin.flush()
        said = ""
        for line in self.p.stdout:
            done = re.search(r"--done (\d+)\n$", line)
            if done:
                assert done[1] == "0", f"{command}\nended with {done[1]}:\n{said}"
                return said + line[:done.start()]
            said += line
        raise AssertionError(f"the shell ended:\n{said}")

    def end(self):
        self.p.stdin.close()
        self.p.wait(60)
        self.p.stdout.close()


@pytest.fixture
def started():
    """Starts a proxy, its log in a file; ended with the test."""
    all = []

    def one(args, log, admin):
        p = subprocess.Popen(args, stdout=log.open("w"), stderr=subprocess.STDOUT)
        all.append(p)
        wait(lambda: ready(admin) or p.poll() is not None, "the proxy does not start")
        assert p.poll() is None, log.read_text()
        return p
    yield one
    for p in all:
        p.send_signal(signal.SIGTERM)
        assert p.wait(60) == 0


@pytest.mark.skipif(not shutil.which("busted"), reason="needs busted")
def test_docs_first_policy(tmp_path, started):
    text, began = (ROOT / "docs" / "first-policy.md").read_text(), time.monotonic()
    port, admin, log = free_port(), free_port(), tmp_path / "log"

    def moved(s):
        return re.sub(r"\b8080\b", str(port), re.sub(r"\b9090\b", str(admin), s))
    shell, said, at, ran = Shell(ROOT, HOME=str(tmp_path)), "", 0, 0
    try:
        for m in BLOCK.finditer(text):
            kind, block = m[1], moved(m[2])
            before = text[at:m.start()]
            at = m.end()
            save = re.findall(r"[Ss]ave as `([^`]+)`", before)
            if save:
                (tmp_path / "first-policy" / save[-1]).write_text(block)
            elif kind == "sh" and re.fullmatch(r"\S+/openclaw-proxy -config openclaw.yaml\n", block):
                started([BINARY, "-config", str(tmp_path / "first-policy" / "openclaw.yaml")], log, admin)
            elif kind == "sh":
                said, ran = shell.run(block.rstrip("\n").replace("$OPENCLAW/build/release/openclaw-proxy", BINARY)), ran + 1
                if block.startswith("cp draft/policies"):
                    wait(lambda: '"generation":2' in log.read_text(), "it is not taken: " + log.read_text())
            elif kind == "":
                check_found(said, block)
    finally:
        shell.end()
    assert ran >= 8
    print(f"took {time.monotonic() - began:.1f} s")


def test_readme_a_policy(tmp_path, started):
    """From the section's first command to its last claim: dropped in, changed, broken."""
    section = re.search(r"\n## A policy\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.S)[1]
    port, admin, log = free_port(), free_port(), tmp_path / "log"
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "release").symlink_to(os.path.dirname(BINARY))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    commands = re.findall(r"^    ((?:mkdir |build/).*)$", section, re.M)
    assert len(commands) == 2, commands
    subprocess.run(["bash", "-ec", commands[0]], cwd=tmp_path, check=True)
    yaml = tmp_path / "build" / "demo" / "openclaw.yaml"
    yaml.write_text(yaml.read_text().replace("listen_port: 8080", f"listen_port: {port}") + f"\nadmin:\n  listen_port: {admin}\n")
    words = commands[1].split()
    assert words[0] == "build/release/openclaw-proxy"
    started([BINARY, *(str(tmp_path / w) if w.startswith("build/") else w for w in words[1:])], log, admin)
    name = re.search(r"save this as `build/demo/([^`]+)`", section)[1]
    policy, code = yaml.parent / name, re.search(r"```lua\n(.*?)```", section, re.S)[1]
    body = re.search(r"curl … -d '(.*?)'", section)[1]

    def says():
        return subprocess.run(["curl", "-s", "-m", "20", f"http://127.0.0.1:{port}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body],
                              capture_output=True, text=True, check=True).stdout
    policy.write_text(code)
    wait(lambda: '"generation":2' in log.read_text(), "it is not taken: " + log.read_text())
    check_found(says(), re.search(r"^    (\{…\"content\".*)$", section, re.M)[1])
    policy.write_text(code.replace("<email>", "[address]"))
    wait(lambda: '"generation":3' in log.read_text(), "the change is not taken")
    assert "You said: Write to [address]" in says() and "`You said: Write to [address]`" in section
    policy.write_text(code.replace("<email>", "[address]").replace("then\n        if", "\n        if").replace('== "string" then', '== "string"'))
    refused = re.search(r"^    \{…(\"level\":\"error\",\"msg\":\"reload refused\",)…(\"problem\":.*)\}$", section, re.M)
    wait(lambda: "reload refused" in log.read_text(), "the mistake is not told")
    check_found(log.read_text(), f"{refused[1]}…{refused[2]}")
    assert "You said: Write to [address]" in says()
