"""Z: a service among others: what the service manager is told, what health checks see, and what an installed binary needs."""
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from client import eventually
from proxy import BINARY, INSTRUMENTED, ROOT, SLOW, WRAPPER, Proxy, free_port, run

CONFIG = {"upstreams": {"mock": {"type": "mock", "models": ["mock-*"]}},
          "routes": [{"id": "all", "match": {"path": "/v1/*"}, "strategy": {"type": "first_available", "upstreams": ["mock"]}}]}
ASK = (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s")
HELLO = b'{"model":"mock-gpt","messages":[{"role":"user","content":"Hello"}]}'


class Manager:
    """A service manager's socket: `@name` is abstract."""

    def __init__(self, at):
        self.at = str(at)
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.s.bind("\0" + self.at[1:] if self.at.startswith("@") else self.at)

    def next(self, timeout=10):
        """The next message, as a dict; who sent it is in `pid`."""
        self.s.settimeout(timeout * SLOW)
        data, ancillary, _, _ = self.s.recvmsg(4096, socket.CMSG_SPACE(12))
        said = dict(line.split("=", 1) for line in data.decode().split("\n"))
        said["pid"] = struct.unpack("iII", ancillary[0][2])[0]
        return said

    def silent(self, timeout):
        try:
            return not self.next(timeout / SLOW)
        except TimeoutError:
            return True

    def skip_to(self, key):
        while key not in (said := self.next()):
            pass
        return said


@pytest.fixture
def manager(tmp_path):
    m = Manager(tmp_path / "notify")
    yield m
    m.s.close()


def reloaded(manager):
    """The two messages of a reload -> STATUS."""
    before = manager.next()
    assert before["RELOADING"] == "1"
    assert 0 <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 - int(before["MONOTONIC_USEC"]) < 20_000_000 * SLOW
    after = manager.next()
    assert after["READY"] == "1"
    return after["STATUS"]


def test_what_the_manager_is_told_through_a_life(start, manager):
    p = start({**CONFIG, "server": {"drain_seconds": 7}}, env={"NOTIFY_SOCKET": manager.at})
    said = manager.next()
    assert said == {"READY": "1", "STATUS": "generation 1 serves", "pid": p.pid}

    p.signal(signal.SIGHUP)
    assert reloaded(manager) == "generation 1 serves"       # nothing had changed
    p.drop_policy("one.lua", 'return { name = "one", api = 1, log = function() return { one = 1 } end }')
    assert reloaded(manager) == "generation 2 serves"
    p.drop_policy("one.lua", "return {")
    assert re.fullmatch(r"generation 2 serves; a reload was refused: .*policies/one.lua:1: .*", reloaded(manager))
    assert p.admin("/reload", "POST")[0] == 422
    assert "a reload was refused" in reloaded(manager)
    (p.policies / "one.lua").unlink()
    assert reloaded(manager) == "generation 3 serves"

    p.signal(signal.SIGTERM)
    said = manager.next()
    assert (said["STOPPING"], said["EXTEND_TIMEOUT_USEC"], said["STATUS"]) == ("1", "12000000", "draining")


def test_ready_means_that_it_can_be_asked(manager):
    """Nobody waits for anything but READY=1 here."""
    p = Proxy(CONFIG, env={"NOTIFY_SOCKET": manager.at}, start=False)
    p._ready = lambda: manager.next()["READY"] == "1"
    p.start()
    with socket.create_connection(("127.0.0.1", p.port)) as s:
        s.sendall(ASK % (len(HELLO), HELLO))
        assert s.makefile("rb").readline().startswith(b"HTTP/1.1 200 ")
    p.stop()


def test_an_abstract_socket(start):
    m = Manager(f"@claw-test-{os.getpid()}")
    p = start(CONFIG, env={"NOTIFY_SOCKET": m.at})
    assert m.next()["pid"] == p.pid
    m.s.close()


@pytest.mark.parametrize("at", ["/nowhere/notify", "vsock:2:1234", "/" + "x" * 200])
def test_without_its_manager_it_serves(start, at):
    p = start(CONFIG, env={"NOTIFY_SOCKET": at, "WATCHDOG_USEC": "100000"})
    assert p.admin("/reload", "POST")[0] == 200
    if at == "/nowhere/notify":
        assert "NOTIFY_SOCKET=" not in "".join(p.errors)
    else:
        eventually(lambda: "NOTIFY_SOCKET=" in "".join(p.errors))


def test_the_watchdog_is_fed_in_time(start, manager):
    p = start(CONFIG, env={"NOTIFY_SOCKET": manager.at, "WATCHDOG_USEC": str(int(200_000 * SLOW))})
    manager.skip_to("READY")
    at = [(manager.skip_to("WATCHDOG"), time.monotonic())[1] for _ in range(6)]
    assert at[5] - at[0] < 5 * 0.2 * SLOW
    assert not p.errors


def test_a_watchdog_of_another_process_is_not_fed(start, manager):
    p = start(CONFIG, env={"NOTIFY_SOCKET": manager.at, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    assert "READY" in manager.next()
    for _ in range(3):
        p.signal(signal.SIGHUP)
        reloaded(manager)
    assert manager.silent(0.3)


@pytest.mark.skipif(INSTRUMENTED or not shutil.which("cc"), reason="preloads a library of its own")
def test_a_worker_that_stands_still_is_no_sign_of_life(start, manager, tmp_path):
    """The control thread is well, and would say so for ever."""
    library, still = tmp_path / "still.so", tmp_path / "still"
    subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", str(library), str(ROOT / "tests/system/still.c"), "-ldl"], check=True)
    p = start(CONFIG, env={"NOTIFY_SOCKET": manager.at, "WATCHDOG_USEC": "600000", "LD_PRELOAD": str(library), "STILL_FILE": str(still)})
    manager.skip_to("WATCHDOG")
    assert p.admin("/healthz")[:2] == (200, "ok\n")
    still.touch()
    deadline = time.monotonic() + 10
    while not manager.silent(0.8):
        assert time.monotonic() < deadline, "the watchdog is fed while no worker turns"
    assert eventually(lambda: p.admin("/healthz")[0] == 503, timeout=10)
    assert re.fullmatch(r"a worker stands still for \d+ s\n", p.admin("/healthz")[1])
    r = run("-config", p.config_path, "-health")
    assert r.returncode == 1 and "stands still" in r.stderr
    still.unlink()
    assert manager.skip_to("WATCHDOG")
    assert eventually(lambda: p.admin("/healthz")[0] == 200)


# ---- -health, -ready

def health(p, what="-health", **env):
    r = run("-config", p.config_path, what, env=env)
    return r.returncode, (r.stdout or r.stderr).strip()


def test_health_in_each_state(upstreams):
    held, go = threading.Event(), threading.Event()
    up = upstreams()

    def hold(x):
        held.set()
        go.wait(20 * SLOW)
        x.reply()
    up.on("held", hold)
    p = Proxy({"upstreams": {"main": {"type": "openai", "api_key": "k", "base_url": up.url()}}, "admin": {"token": "a token of the admin port"},
               "routes": [{"id": "all", "match": {"path": "/v1/*"}, "strategy": {"type": "first_available", "upstreams": ["main"]}}]}, start=False)
    p.port, p.admin_port = free_port(), free_port()
    p.write_config()
    code, said = health(p)
    assert code == 1 and f"127.0.0.1:{p.admin_port}/healthz: Connection refused" in said

    p.start()
    assert health(p) == (0, "ok") and health(p, "-ready") == (0, "ready")      # probes need no token
    good = p.config_path.read_text()

    p.config_path.write_text(good.replace('"upstreams"', '"upstraems"', 1))     # what a reload refuses changes nothing
    p.wait_log(lambda l: l["msg"] == "reload refused")
    assert health(p) == (0, "ok")
    p.config_path.write_text(good.replace('"api_key": "k"', '"api_key": "${ONLY_THE_PROXY_HAS_IT}"'))
    assert health(p) == (0, "ok")
    p.config_path.write_text(good)

    s = socket.create_connection(("127.0.0.1", p.port))
    body = b'{"model":"held"}'
    s.sendall(ASK % (len(body), body))
    assert held.wait(10 * SLOW)
    p.signal(signal.SIGTERM)
    p.wait_log(lambda l: l["msg"] == "draining")
    assert health(p) == (0, "ok")
    code, said = health(p, "-ready")
    assert code == 1 and "draining" in said
    go.set()
    p.process.wait(10 * SLOW)
    s.close()
    assert health(p)[0] == 1
    p.stop()


def test_health_of_one_that_does_not_answer(start):
    p = start(CONFIG)
    os.kill(p.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        code, said = health(p)
    finally:
        os.kill(p.pid, signal.SIGCONT)
    assert code == 1 and "timed out" in said and time.monotonic() - began < 3 + 3 * SLOW


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "localhost", "127.0.0.1"])
def test_health_wherever_it_listens(start, address):
    p = start({**CONFIG, "admin": {"listen_address": address}})
    assert health(p) == (0, "ok")
    text = p.config_path.read_text()
    p.config_path.write_text(text.replace(f'"listen_port": {p.admin_port}', '"listen_port": "${ADMIN_PORT}"'))
    assert health(p, ADMIN_PORT=str(p.admin_port)) == (0, "ok")
    p.config_path.write_text(text)


def test_health_without_an_admin_port():
    """All that is seen then is whether the port takes connections."""
    p = Proxy({**CONFIG, "admin": {"listen_port": 0}}, start=False)
    p._ready = lambda: p.wait_log(lambda l: l["msg"] == "listening")
    p.start()
    code, said = health(p)
    assert code == 0 and said == f"127.0.0.1:{p.port} takes connections (the admin port is off)"
    p.stop()
    p.dir.mkdir()
    p.write_config()
    code, said = health(p)
    assert code == 1 and "refused" in said
    shutil.rmtree(p.dir)


def test_health_wants_a_file():
    assert run("-health").returncode == 1
    r = run("-config", "/nowhere/openclaw.yaml", "-ready")
    assert r.returncode in (0, 1)       # somebody may listen where it is by default
    assert r.returncode == 0 or "asked where it is by default: cannot read /nowhere/openclaw.yaml" in r.stderr


# ---- installed

POLICY = """local P = { name = "note", api = 1 }
function P.request(req, body)
    body.messages[1].content = claw.json.encode({ said = body.messages[1].content })
    return body
end
return P
"""


@pytest.mark.parametrize("text, workers", [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("6400000 100000", None), ("", None)])
def test_workers_are_as_many_as_a_containers_quota(tmp_path, text, workers):
    """cpu.max as a container sees it; without a quota, or one beyond the CPUs, they are as many as the CPUs it may run on."""
    (tmp_path / "cpu.max").write_text(text + "\n")
    seen = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /sys/fs/cgroup && exec "$@"', str(tmp_path)]
    if subprocess.run([*seen, "true"], capture_output=True).returncode != 0:
        pytest.skip("a cgroup cannot be made up here")
    p = Proxy(CONFIG, start=False, wrapper=[*seen, *WRAPPER])
    plain = p.careless
    p.careless = lambda config: {**plain(config), "server": {"workers": None}}
    p.start()
    assert p.wait_log(lambda l: l["msg"] == "listening")["workers"] == (workers or len(os.sched_getaffinity(0)))
    p.stop()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """make install, into a folder that stands for the root -> it, and a function that runs make."""
    mode = os.path.basename(os.path.dirname(BINARY))
    if mode not in ("release", "asan", "tsan", "debug") or not BINARY.startswith(str(ROOT)):
        pytest.skip("the binary is none of this tree's")
    root = tmp_path_factory.mktemp("installed")

    def make(target, *args):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        return subprocess.run(["make", "-s", target, f"MODE={mode}", f"DESTDIR={root}", *args], cwd=ROOT, env=env, capture_output=True, text=True,
                              timeout=120 * SLOW)
    r = make("install", "PREFIX=/usr")
    assert r.returncode == 0, r.stdout + r.stderr
    return root, make


@pytest.mark.not_under("tsan", reason="the file of suppressions is hidden, too")
def test_an_installed_one_needs_nothing_of_the_tree(installed, tmp_path):
    """In a mount namespace where the tree is not there."""
    root, _ = installed
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && cd / && exec "$@"', str(ROOT)]
    if os.path.commonpath([root, ROOT]) == str(ROOT) or subprocess.run([*hidden, "true"], capture_output=True).returncode != 0:
        pytest.skip("a folder cannot be hidden here")
    home, port, admin = tmp_path / "etc", free_port(), free_port()
    (home / "policies").mkdir(parents=True)
    (home / "policies" / "note.lua").write_text(POLICY)
    text = (root / "etc/openclaw/openclaw.yaml").read_text().replace("8080", str(port)).replace("9090", str(admin))
    (home / "openclaw.yaml").write_text(text + "policies: { always: [note, pii_redaction, json_schema_guard] }\n")
    binary = str(root / "usr/bin/openclaw-proxy")
    m = Manager(tmp_path / "notify")
    env = {k: v for k, v in os.environ.items() if k.startswith(("ASAN", "UBSAN", "TSAN"))}
    p = subprocess.Popen([*hidden, *WRAPPER, binary, "-config", str(home / "openclaw.yaml")], env={**env, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "NOTIFY_SOCKET": m.at},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert m.next()["READY"] == "1"
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.settimeout(10 * SLOW)
            s.sendall(ASK % (len(HELLO), HELLO))
            got = s.recv(65536)
        assert got.startswith(b"HTTP/1.1 200 ") and rb'You said: {\"said\":\"Hello\"}' in got.replace(rb'\\\"', rb'\"'), got
    finally:
        p.send_signal(signal.SIGTERM)
        out = p.communicate(timeout=20 * SLOW)[0]
        m.s.close()
    assert p.returncode == 0, out


def test_what_is_installed(installed):
    root, make = installed
    files = {str(f.relative_to(root)) for f in root.rglob("*") if f.is_file()}
    assert files == {"usr/bin/openclaw-proxy", "usr/share/man/man1/openclaw-proxy.1", "usr/share/doc/openclaw-proxy/openclaw.yaml.example",
                     "usr/share/doc/openclaw-proxy/credentials.conf",
                     "usr/lib/systemd/system/openclaw.service", "usr/lib/sysusers.d/openclaw.conf", "etc/openclaw/openclaw.yaml"}
    r = subprocess.run([BINARY, "-config", str(root / "etc/openclaw/openclaw.yaml"), "-check"], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    unit = (root / "usr/lib/systemd/system/openclaw.service").read_text()
    assert "ExecStart=/usr/bin/openclaw-proxy -config /etc/openclaw/openclaw.yaml\n" in unit
    help = run("-help").stdout
    page = (root / "usr/share/man/man1/openclaw-proxy.1").read_text().replace("\\", "")
    assert all(option in page for option in re.findall(r"^  (-\w+)", help, re.M))

    own = root / "etc/openclaw/openclaw.yaml"
    own.write_text("# mine\n")
    assert make("install", "PREFIX=/usr").returncode == 0 and own.read_text() == "# mine\n"     # never over a configuration
    assert make("uninstall", "PREFIX=/usr").returncode == 0
    assert [f for f in root.rglob("*") if f.is_file()] == [own]


def test_another_prefix(installed, tmp_path):
    root, make = installed
    r = make("install", "PREFIX=/opt/claw")
    assert r.returncode == 0, r.stderr
    unit = (root / "opt/claw/lib/systemd/system/openclaw.service").read_text()
    assert "ExecStart=/opt/claw/bin/openclaw-proxy -config /opt/claw/etc/openclaw/openclaw.yaml\n" in unit
    assert (root / "opt/claw/etc/openclaw/openclaw.yaml").exists()
