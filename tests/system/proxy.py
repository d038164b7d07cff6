"""Starts, watches and ends the binary under test.

CLAW_BINARY   the binary (default build/release/openclaw-proxy)
CLAW_WRAPPER  words put before it, e.g. "valgrind -q --error-exitcode=99"
CLAW_SLOW     factor for every deadline (sanitizers, valgrind, a busy machine), default 1
"""
import http.client
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(os.environ.get("CLAW_ROOT", pathlib.Path(__file__).resolve().parents[2]))
BINARY = os.environ.get("CLAW_BINARY", str(ROOT / "build/release/openclaw-proxy"))
WRAPPER = shlex.split(os.environ.get("CLAW_WRAPPER", ""))
SLOW = float(os.environ.get("CLAW_SLOW", "1"))
# Under a sanitizer or valgrind the memory measured would be theirs.
INSTRUMENTED = bool(WRAPPER) or "OPENCLAW_SLOWIO" in os.environ or any(word in BINARY for word in ("asan", "tsan", "valgrind"))
ALARMS = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehavior|runtime error:|Assertion|assertion|"
                    r"==\d+== (Invalid|Conditional|Use of|Syscall param|.*definitely lost: [1-9])|panic")


def free_port():
    """Below the ports that connections get by themselves, and nobody else's who tests at the same time, as far as can be known: between this and
    its use it is nobody's."""
    while True:
        port = random.SystemRandom().randrange(10240, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def run(*args, env=None, timeout=20, cwd=None):
    """The binary as a command: a completed process with text output."""
    return subprocess.run([*WRAPPER, BINARY, *map(str, args)], capture_output=True, text=True, cwd=cwd,
                          env={**os.environ, **(env or {})}, timeout=timeout * SLOW)


def merge(a, b):
    """b over a, map by map."""
    if not isinstance(a, dict) or not isinstance(b, dict):
        return b
    out = dict(a)
    for k, v in b.items():
        out[k] = merge(a[k], v) if k in a else v
    return out


class Line(dict):
    """A log line. What is not known is absent from it: asked for, it is None."""

    def __missing__(self, key):
        return None

    @property
    def why(self):
        """All that it says about a failure."""
        return " ".join(str(self[k]) for k in ("error", "error_message", "upstream_error") if self[k])


class Sample:
    def __init__(self, name, labels, value):
        self.name, self.labels, self.value = name, labels, value


def parse_metrics(text):
    """The text format, strictly. -> (families: name -> type, samples)"""
    types, samples, helped = {}, [], set()
    for line in text.split("\n"):      # splitlines would also split at U+2028
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} twice"
            types[name] = kind
        elif line.startswith("# HELP "):
            helped.add(line.split(" ")[2])
        elif line and not line.startswith("#"):
            found = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([-+0-9.eE]+|[-+]?Inf|NaN)', line)
            assert found, f"not a sample: {line!r}"
            pairs = re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"', found[2] or "")
            again = ",".join(f'{k}="{v}"' for k, v in pairs)
            assert (found[2] or "").rstrip(",") == again, f"labels: {line!r}"
            samples.append(Sample(found[1], dict(pairs), float(found[3])))
    for name in types:
        assert name in helped, f"no HELP for {name}"
    return types, samples


class Proxy:
    def __init__(self, config, policies=None, files=None, env=None, admin=True, start=True, wrapper=None):
        """config: what stands in openclaw.yaml, as a dict (ports are filled in) or as a text with {port} and {admin}."""
        self.slow = SLOW
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="claw-system-"))
        self.config_path = self.dir / "openclaw.yaml"
        self.config, self.env = config, env or {}
        self.has_admin = admin
        self.policies = self.dir / "policies"
        self.policies.mkdir()
        self.wrapper = WRAPPER if wrapper is None else wrapper
        for name, text in (policies or {}).items():
            (self.policies / name).write_text(text)
        for name, text in (files or {}).items():
            (self.dir / name).write_text(text)
        self.lines, self.odd_lines, self.errors = [], [], []
        self.raw_log = []
        self.more = threading.Condition()
        self.process = None
        self.asked_to_end = False
        if start:
            self.start()

    # -- life

    def write_config(self, config=None):
        if config is not None:
            self.config = config
        if isinstance(self.config, str):
            text = self.config.replace("{port}", str(self.port)).replace("{admin}", str(self.admin_port))
        else:
            full = merge({"server": {"listen_address": "127.0.0.1", "listen_port": self.port, "workers": 2},
                          "admin": {"listen_address": "127.0.0.1", "listen_port": self.admin_port},
                          "logging": {"format": "json", "level": "info", "output": "stdout"}}, self.careless(self.config))
            if SLOW > 1:       # a policy's code is slower, too
                full = merge({"policies": {"budget_ms": int(10 * SLOW)}}, full)
            text = json.dumps(full, indent=1)     # JSON is YAML
        other = self.dir / ".openclaw.yaml.new"
        other.write_text(text)
        other.rename(self.config_path)

    @staticmethod
    def careless(config):
        """Tests share upstreams that fail on purpose: none is set aside and no try is denied, unless a test says otherwise."""
        upstreams = config.get("upstreams")
        if isinstance(upstreams, dict):
            upstreams = {n: {"cooling": False, **u} if isinstance(u, dict) else u for n, u in upstreams.items()}
            config = {**config, "upstreams": upstreams}
        return merge({"retry": {"budget": 1}}, config)

    def start(self):
        for _ in range(5):
            self.port, self.admin_port = free_port(), free_port()
            self.write_config()
            self.process = subprocess.Popen(
                [*self.wrapper, BINARY, "-config", str(self.config_path)], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **self.env}, cwd=self.dir)
            self.readers = [threading.Thread(target=self._read_log, daemon=True, args=(self.process.stdout,)),
                            threading.Thread(target=self._read_err, daemon=True, args=(self.process.stderr,))]
            for t in self.readers:
                t.start()
            if self._ready():
                return
            if self.process.poll() != 2:   # 2: somebody took the port in the meantime
                break
        raise AssertionError(f"the proxy did not get ready (exit {self.process.poll()}):\n" + self.told())

    def _ready(self):
        end = time.monotonic() + 10 * SLOW
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.admin("/readyz")[0] == 200:
                    return True
            except OSError:
                pass
            threading.Event().wait(0.01)
        return False

    def told(self):
        return "".join(self.errors[-50:]) + "\n" + "\n".join(line.rstrip()[:400] for line in self.raw_log[-8:])

    def _read_log(self, pipe):
        for raw in pipe:
            text = raw.decode("utf-8", "surrogateescape")
            try:
                line = json.loads(text, object_hook=Line)
                assert isinstance(line, dict)
            except (ValueError, AssertionError):
                line = None
            with self.more:
                self.raw_log.append(text)
                (self.lines if line is not None else self.odd_lines).append(text if line is None else line)
                self.more.notify_all()

    def _read_err(self, pipe):
        for raw in pipe:
            with self.more:
                self.errors.append(raw.decode("utf-8", "replace"))
                self.more.notify_all()

    def signal(self, number):
        self.asked_to_end = self.asked_to_end or number in (signal.SIGTERM, signal.SIGINT)
        self.process.send_signal(number)

    @property
    def pid(self):
        """Of the binary itself, also behind a wrapper that forks."""
        return self.process.pid

    def stop(self, timeout=10):
        """SIGTERM, and everything a clean end means."""
        if self.process is None:
            return
        by_itself = self.process.poll() is not None and not self.asked_to_end
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the proxy did not drain in time:\n" + self.told())
        finally:
            for t in self.readers:
                t.join(5)
            self.process.stdout.close()
            self.process.stderr.close()
            self.process, process = None, self.process
        errors = "".join(self.errors)
        assert process.returncode == 0, f"exit status {status}:\n{self.told()}"
        assert not ALARMS.search(errors), errors
        assert not by_itself, f"the proxy had ended before it was asked to (status {status}):\n{self.told()}"
        assert not self.odd_lines, f"not JSON in the log: {self.odd_lines[:3]}"
        shutil.rmtree(self.dir, ignore_errors=True)

    # -- the log

    def wait_log(self, predicate, timeout=10, what="the log line"):
        """The first line (from the start) for which predicate(line) is true."""
        seen = 0
        end = time.monotonic() + timeout * SLOW
        with self.more:
            while True:
                while seen < len(self.lines):
                    if predicate(self.lines[seen]):
                        return self.lines[seen]
                    seen += 1
                left = end - time.monotonic()
                if left <= 0 or not self.more.wait(left):
                    raise AssertionError(f"{what} did not come; last: " + "".join(self.raw_log[-5:]))

    def request_line(self, answer):
        """The request log line that belongs to an answer."""
        rid = answer if isinstance(answer, str) else answer.get("x-openclaw-request-id")
        assert rid, "no x-openclaw-request-id"
        return self.wait_log(lambda l: l.get("msg") == "request" and l.get("id") == rid, what=f"the request line of {rid}")

    def request_lines(self):
        with self.more:
            return [l for l in self.lines if l.get("msg") == "request"]

    def wait_request_lines(self, n, timeout=20):
        with self.more:
            assert self.more.wait_for(lambda: len(self.lines) >= n, timeout * SLOW)   # cheap first: lines of any kind
        assert len(self.request_lines()) >= n or self.more_lines(n, timeout), f"{len(self.request_lines())} of {n} request lines"

    def more_lines(self, n, timeout):
        end = time.monotonic() + timeout * SLOW
        while len(self.request_lines()) < n and time.monotonic() < end:
            with self.more:
                self.more.wait(0.1)
        return len(self.request_lines()) >= n

    def everything_told(self):
        with self.more:
            return "".join(self.raw_log) + "".join(self.errors)

    # -- admin

    def admin(self, path, method="GET", headers=None):
        c = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5 * SLOW)
        try:
            c.request(method, path, headers=headers or {})
            r = c.getresponse()
            return r.status, r.read().decode("utf-8"), dict((k.lower(), v) for k, v in r.getheaders())
        finally:
            c.close()

    def metrics(self):
        status, text, _ = self.admin("/metrics")
        assert status == 200
        return parse_metrics(text)[1]

    def metric(self, name, **labels):
        """The sum of the samples with (at least) these labels."""
        return sum(s.value for s in self.metrics() if s.name == name and all(s.labels.get(k) == v for k, v in labels.items()))

    def wait_metric(self, name, wanted, timeout=5, **labels):
        end = time.monotonic() + timeout * SLOW
        while True:
            value = self.metric(name, **labels)
            if wanted(value):
                return value
            assert time.monotonic() < end, f"{name}{labels} is {value}"
            threading.Event().wait(0.02)

    # -- policies

    def generations(self):
        """What the admin port says of them now (the gauges of /metrics may be a second old)."""
        return json.loads(self.admin("/generations")[1])

    def generation(self):
        return int(self.metric("openclaw_generation"))

    def drop_policy(self, name, text):
        """As an editor does: a new file moved into place."""
        other = self.policies / f".{name}.new"
        other.write_text(text)
        other.rename(self.policies / name)

    def wait_generation(self, beyond, timeout=5):
        return self.wait_metric("openclaw_generation", lambda v: v > beyond, timeout)

    # -- /proc

    def rss(self):
        return int(re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{self.pid}/status").read_text())[1]) * 1024

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))
