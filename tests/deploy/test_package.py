"""The Debian package, and the systemd unit in it."""
import os
import re
import shutil

import pytest

from conftest import ROOT, fine, run

# What is the packager's to say: who maintains it (DEBEMAIL), and the license.
THEIRS = {"bogus-mail-host", "bogus-mail-host-in-debian-changelog", "copyright-without-copyright-notice"}
pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg")


@pytest.fixture(scope="module")
def deb():
    return ROOT / fine("make", "-s", "deb", timeout=600).splitlines()[-1]


@pytest.fixture(scope="module")
def root(deb, tmp_path_factory):
    to = tmp_path_factory.mktemp("root")
    fine("dpkg-deb", "-R", deb, to)
    return to


def test_what_it_holds(root, version):
    control = (root / "DEBIAN/control").read_text()
    assert re.search(rf"^Version: {re.escape(version)}$", control, re.M)
    depends = re.search(r"^Depends: (.*)$", control, re.M)[1]
    for package in ("libc6", "libuv1", "libluajit-5.1-2", "libmbedtls14", "libsqlite3-0", "lua-cjson", "ca-certificates", "adduser"):
        assert re.search(rf"\b{re.escape(package)}\b", depends), package
    assert (root / "DEBIAN/conffiles").read_text() == "/etc/openclaw/openclaw.yaml\n"
    assert (root / "etc/openclaw/policies").is_dir()
    for script in ("postinst", "prerm", "postrm"):
        fine("sh", "-n", root / "DEBIAN" / script)
    assert "not stripped" not in run("file", root / "usr/bin/openclaw-proxy").stdout
    assert f"openclaw-proxy {version}" in fine(root / "usr/bin/openclaw-proxy", "-version")


def test_the_same_source_makes_the_same_package(deb):
    before = deb.read_bytes()
    fine("make", "-s", "deb", timeout=600)
    assert deb.read_bytes() == before


@pytest.mark.skipif(not shutil.which("lintian"), reason="no lintian")
def test_lintian_has_nothing_to_say(deb):
    said = run("lintian", "--allow-root", deb, timeout=120).stdout
    assert not [line for line in said.splitlines() if line[:2] in ("E:", "W:") and line.split()[2] not in THEIRS], said


analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")


@analyze
def test_the_unit_is_one(root, tmp_path):
    def verify(name, text):
        unit = tmp_path / name
        unit.write_text(text.replace("/usr/bin/openclaw-proxy", str(root / "usr/bin/openclaw-proxy")))
        r = run("systemd-analyze", "verify", "--man=no", unit)
        return r.stdout + r.stderr
    text = (root / "usr/lib/systemd/system/openclaw.service").read_text()
    assert verify("openclaw.service", text) == ""
    assert "Unknown key" in verify("wrong.service", text.replace("WatchdogSec", "WatchdogSeconds"))


@analyze
def test_the_unit_lets_little_in(root):
    said = fine("systemd-analyze", "security", "--offline=yes", f"--root={root}", "openclaw.service")
    assert float(re.search(r"Overall exposure level for openclaw.service: ([\d.]+)", said)[1]) <= 1.5, said


def allowed(unit):
    """The system calls that the unit's filter leaves."""
    def members(name):
        calls = set()
        for line in fine("systemd-analyze", "syscall-filter", name).splitlines()[1:]:
            word = line.strip()
            if word.startswith("@"):
                calls |= members(word)
            elif word and not word.startswith("#"):
                calls.add(word)
        return calls
    calls = set()
    for words in re.findall(r"^SystemCallFilter=(.*)$", unit, re.M):
        named = set().union(*(members(w) if w.startswith("@") else {w} for w in words.lstrip("~").split()))
        calls = calls - named if words.startswith("~") else calls | named
    return calls | members("@default")


@analyze
@pytest.mark.skipif(not shutil.which("strace"), reason="no strace")
def test_the_unit_lets_the_proxy_do_its_work(root, tmp_path):
    """Every system call of a life with requests, TLS, a ledger, a reload and a drain is one that the filter leaves."""
    from certs import Authority
    from client import Raw, chat, client_tls, eventually, request
    from proxy import Proxy
    calls = tmp_path / "calls"
    ca = Authority(tmp_path)
    cert, key = ca.issue("localhost")
    up = {"type": "mock", "cost_per_million_input_tokens": 1, "cost_per_million_output_tokens": 1}
    p = Proxy({"server": {"tls": {"cert": str(cert), "key": str(key)}}, "upstreams": {"mock": up}, "caching": {"enabled": True},
               "clients": [{"name": "a", "key": "key-of-a", "budget": {"usd": 1, "per": "day"}}],
               "routes": [{"id": "all", "match": {"path": "*"}, "strategy": {"type": "first_available", "upstreams": ["mock"]}}]},
              wrapper=["strace", "-D", "-f", "-q", "-o", str(calls), "-e", "signal=none"])
    with Raw(p.port, tls=client_tls(ca.path)) as c:
        for stream in (False, True, True):
            c.send(request(body=chat("mock-gpt", stream=stream), headers=[("authorization", "Bearer key-of-a")]))
            assert c.response().status == 200
    p.drop_policy("one.lua", 'return { name = "one", api = 1 }')
    p.wait_generation(1)
    assert p.admin("/spend")[0] == 200
    pid = p.pid
    p.stop()
    assert eventually(lambda: f"{pid} +++ exited with 0" in re.sub(" +", " ", calls.read_text()), timeout=20), "strace goes on"
    used = set(re.findall(r"^\d+ (?:<\.\.\. )?(\w+)[( ]", calls.read_text(), re.M)) - {"resumed"}
    assert len(used) > 30
    if os.geteuid() == 0:
        used.discard("fchown")      # SQLite gives its files away only where it is root
    denied = used - allowed((root / "usr/lib/systemd/system/openclaw.service").read_text())
    assert not denied, denied
