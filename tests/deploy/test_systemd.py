"""The package's unit under a systemd of its own: booted in namespaces from a base image with buildah (about a minute, packages from
the network). Skipped where there is no buildah, no base image or no right to do so.
"""
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from conftest import ROOT, fine, run

BASE = re.search(r"^ARG BASE=(\S+)", (ROOT / "Dockerfile").read_text(), re.M)[1]
PORT, ADMIN = 18080, 19090      # inside; the network is the machine's
ASK = "curl -sN -m 60 http://127.0.0.1:%d/v1/chat/completions -H 'content-type: application/json'" % PORT


class Machine:
    def __init__(self, container, root):
        self.boot = subprocess.Popen(["unshare", "-m", "-p", "-C", "-f", "--kill-child", "sh", str(ROOT / "tests/deploy/boot.sh"), root],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.root = Path(root)
        self.until(lambda: self.first() and self.sh("systemctl is-system-running", None).strip() in ("running", "degraded"), "systemd does not boot")

    def first(self):
        """The pid of its init, once that is systemd."""
        children = Path(f"/proc/{self.boot.pid}/task/{self.boot.pid}/children").read_text().split()
        return children[0] if children and b"/systemd" in Path(f"/proc/{children[0]}/cmdline").read_bytes().split(b"\0")[0] else None

    def sh(self, script, code=0, timeout=60):
        r = run("nsenter", "-t", self.first(), "-m", "-p", "-C", "-r", "-w", "--", "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", script, timeout=timeout)
        assert code is None or r.returncode == code, f"{script}\n{r.returncode}: {r.stdout}{r.stderr}\n" + \
            run("nsenter", "-t", self.first(), "-m", "-p", "-r", "--", "journalctl", "-u", "openclaw", "-n", "20", "--no-pager", "-o", "cat").stdout
        return r.stdout

    def show(self, *names):
        said = dict(line.split("=", 1) for line in self.sh(f"systemctl show openclaw -p {','.join(names)}").splitlines())
        return [said[n] for n in names]

    @staticmethod
    def until(what, why, seconds=30):
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, why
            time.sleep(0.1)

    def write(self, path, text):
        """Through the machine: what is mounted there is not seen from here."""
        self.sh(f"mkdir -p $(dirname {path}) && cat >{path} <<'END'\n{text}END\n")


@pytest.fixture(scope="module")
def machine():
    if not shutil.which("buildah") or run("buildah", "inspect", "--type", "image", BASE).returncode != 0:
        pytest.skip(f"no buildah, or no image {BASE} here")
    if run("unshare", "-m", "-p", "-C", "-f", "sh", "-c", "mount --make-rprivate / && mount -t cgroup2 none /mnt").returncode != 0:
        pytest.skip("no namespaces to be had")
    deb = ROOT / fine("make", "-s", "deb", timeout=600).splitlines()[-1]
    name = fine("buildah", "from", "--pull-never", BASE).strip()
    made = None
    try:
        fine("buildah", "copy", name, deb, "/tmp/openclaw.deb")
        fine("buildah", "run", "--network", "host", name, "--", "sh", "-ec", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "
             "--no-install-recommends systemd systemd-sysv dbus curl /tmp/openclaw.deb", timeout=300)
        made = Machine(name, fine("buildah", "mount", name).strip())
        made.sh(f"sed -i 's/8080/{PORT}/; s/9090/{ADMIN}/' /etc/openclaw/openclaw.yaml; cp /etc/openclaw/openclaw.yaml /root/good")
        yield made
    finally:
        if made:
            made.boot.kill()
            made.boot.wait()
        run("buildah", "umount", name)
        run("buildah", "rm", name)


@pytest.fixture
def service(machine):
    """Started as the package has it; ended with the test, without what that put beside it."""
    machine.sh("cat /root/good >/etc/openclaw/openclaw.yaml; systemctl reset-failed 2>/dev/null; systemctl start openclaw")
    yield machine
    machine.sh("systemctl stop openclaw; rm -rf /etc/systemd/system/openclaw.service.d /etc/openclaw/policies/*; systemctl daemon-reload", None)


def hello(machine, *more, body='{"model":"mock-gpt","messages":[{"role":"user","content":"Hello"}]}'):
    return machine.sh(f"{ASK} {' '.join(more)} -d '{body}'")


def test_it_is_not_started_by_its_installation(machine):
    assert machine.show("ActiveState", "UnitFileState") == ["inactive", "disabled"]


def test_it_starts_and_serves(service):
    assert service.show("ActiveState", "StatusText", "NRestarts") == ["active", "generation 1 serves", "0"]
    assert "You said: Hello" in hello(service)
    status = service.sh("cat /proc/$(systemctl show openclaw -p MainPID --value)/status")
    uid = service.sh("id -u openclaw").strip()
    assert re.search(rf"^Uid:\s+{uid}\s", status, re.M) and re.search(r"^CapEff:\s+0+$", status, re.M) and re.search(r"^Seccomp:\s+2$", status, re.M)


def test_a_reload_says_what_came_of_it(service):
    service.sh("systemctl reload openclaw")
    service.sh("sed -i 's/failover/failovr/' /etc/openclaw/openclaw.yaml; systemctl reload openclaw", code=1)
    assert "there is no strategy or policy \"failovr\"" in service.sh("journalctl -u openclaw -o cat --no-pager -n 20")
    service.until(lambda: "a reload was refused" in service.show("StatusText")[0], "the status does not say so")
    assert service.show("ActiveState") == ["active"] and "You said: Hello" in hello(service)
    service.sh("cat /root/good >/etc/openclaw/openclaw.yaml; systemctl reload openclaw")
    assert service.show("StatusText") == ["generation 1 serves"]


def test_a_policy_dropped_in_is_live(service):
    service.write("/etc/openclaw/policies/mask_email.lua", (ROOT / "deploy/kubernetes/policies/mask_email.lua").read_text())
    service.until(lambda: service.show("StatusText") == ["generation 2 serves"], "it is not taken up")
    assert "<email>" in hello(service, body='{"model":"mock-gpt","messages":[{"role":"user","content":"ann@example.org"}]}')


def test_credentials_and_ledger(service):
    unit = (ROOT / "deploy/systemd/credentials.conf").read_text()
    service.write("/etc/systemd/system/openclaw.service.d/credentials.conf", unit)
    service.sh("umask 077; mkdir -p /etc/openclaw/credentials; echo key-of-a >/etc/openclaw/credentials/openai; systemctl daemon-reload")
    service.sh("""echo 'clients: [{ name: a, key: "${file:/run/credentials/openclaw.service/openai}", budget: { usd: 1, per: day } }]' >>/etc/openclaw/openclaw.yaml
                  systemctl restart openclaw && systemctl reload openclaw""")
    assert "invalid_api_key" in hello(service)
    assert "You said: Hello" in hello(service, "-H 'authorization: Bearer key-of-a'")
    assert "openclaw.db" in service.sh("ls /var/lib/openclaw") and service.sh("stat -c %U /var/lib/openclaw/openclaw.db") == "openclaw\n"


def test_it_drains_for_longer_than_the_unit_says(service):
    service.write("/etc/systemd/system/openclaw.service.d/stop.conf", "[Service]\nTimeoutStopSec=1s\n")
    service.sh("systemctl daemon-reload")
    body = '{"model":"mock-gpt","stream":true,"messages":[{"role":"user","content":"a b c d e f g h i j"}]}'
    said = service.sh(f"""{ASK} -H 'x-mock: slow=300' -d '{body}' >/root/stream & until grep -q data: /root/stream; do sleep 0.1; done
                          systemctl stop openclaw; wait; tail -2 /root/stream""")
    assert "[DONE]" in said
    assert service.show("Result", "ExecMainStatus") == ["success", "0"]


def test_one_that_hangs_is_started_anew(service):
    service.write("/etc/systemd/system/openclaw.service.d/watchdog.conf", "[Service]\nWatchdogSec=2s\n")
    service.sh("systemctl daemon-reload; systemctl restart openclaw; kill -STOP $(systemctl show openclaw -p MainPID --value)")
    service.until(lambda: service.show("NRestarts", "ActiveState") == ["1", "active"], "it hangs for ever")
    assert "You said: Hello" in hello(service)


def test_a_mistake_is_not_tried_again(service):
    service.sh("systemctl stop openclaw; sed -i 's/failover/failovr/' /etc/openclaw/openclaw.yaml")
    service.sh("systemctl start openclaw", code=1)
    assert service.show("ActiveState", "NRestarts", "ExecMainStatus") == ["failed", "0", "1"]
