"""The container image, where it can be built: with docker or podman, or with buildah and a base image that is there (buildah
needs no daemon; BUILDAH_ISOLATION and STORAGE_DRIVER are its own settings). Its root is not read-only under buildah: that nothing
is written there is seen by what the user may write to.
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from conftest import BINARY, ROOT, fine, run

DOCKERFILE = (ROOT / "Dockerfile").read_text()
BASE = re.search(r"^ARG BASE=(\S+)", DOCKERFILE, re.M)[1]


def test_it_installs_the_libraries_that_the_binary_wants():
    linked = [str(Path(line.split()[2]).resolve()) for line in fine("ldd", BINARY).splitlines() if " => /" in line]
    said = run("dpkg", "-S", *linked, *(p.removeprefix("/usr") for p in linked)).stdout     # known by one of the two
    wanted = {line.split(":")[0] for line in said.splitlines()} - {"libc6", "libgcc-s1"}
    installed = set(re.search(r"--no-install-recommends (libuv1.*?) &&", re.sub(r"\\\n", "", DOCKERFILE), re.S)[1].split())
    assert len(wanted) > 6 and wanted == installed - {"lua-cjson", "ca-certificates"}


@pytest.fixture(scope="module")
def image():
    """A built image's name, for buildah. CLAW_IMAGE names one that is built already."""
    if os.environ.get("CLAW_IMAGE"):
        yield os.environ["CLAW_IMAGE"]
        return
    if not shutil.which("buildah"):
        pytest.skip("no buildah")
    if run("buildah", "inspect", "--type", "image", BASE).returncode != 0:
        pytest.skip(f"no image {BASE} here")
    name = "openclaw-proxy-test"
    fine("buildah", "build", "--format", "docker", "--pull-never", "--network", "host", "-t", name, ".", timeout=1200)
    yield name
    run("buildah", "rmi", name)


@pytest.fixture
def container(image):
    name = fine("buildah", "from", "--pull-never", image).strip()
    yield name
    run("buildah", "rm", name)


def inside(container, *words, mounts=()):
    return ["buildah", "run", "--network", "host", *(a for m in mounts for a in ("-v", m)), container, "--", *map(str, words)]


def test_what_it_says_of_itself(image):
    import json
    conf = json.loads(fine("buildah", "inspect", "--type", "image", image))["Docker"]["config"]
    assert conf["User"] == "10001:10001" and conf["StopSignal"] == "SIGTERM"
    assert list(conf["Volumes"]) == ["/var/lib/openclaw"] and list(conf["ExposedPorts"]) == ["8080/tcp"]
    assert conf["Healthcheck"]["Test"] == ["CMD", "openclaw-proxy", "-config", "/etc/openclaw/openclaw.yaml", "-health"]
    assert conf["Cmd"] == ["openclaw-proxy", "-config", "/etc/openclaw/openclaw.yaml"]


def test_what_its_user_may_do(container):
    said = fine(*inside(container, "sh", "-c", "id -u; find / -xdev -writable -type d 2>/dev/null; for c in gcc make curl git; do command -v $c; done; true")).split()
    assert said[0] == "10001"
    assert set(said[1:]) <= {"/tmp", "/var/tmp", "/run/lock", "/var/lock", "/dev/shm", "/var/lib/openclaw", "/var/log/openclaw", "/run"}, said
    assert "/var/lib/openclaw" in said
    assert "openclaw-proxy " in fine(*inside(container, "./openclaw-proxy", "-version"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_it_runs_with_what_is_mounted(container, tmp_path):
    """Its user, its file, policies that come while it runs, its health check, its ledger, its end."""
    port, admin = free_port(), free_port()
    etc = tmp_path / "etc"
    (etc / "policies").mkdir(parents=True)
    tmp_path.chmod(0o755)
    (etc / "openclaw.yaml").write_text(f"""
server: {{ listen_port: {port} }}
admin: {{ listen_port: {admin} }}
upstreams: {{ mock: {{ type: mock, cost_per_million_input_tokens: 1, cost_per_million_output_tokens: 1 }} }}
clients: [{{ name: a, key: key-of-a, budget: {{ usd: 1, per: day }} }}]
routes: [{{ id: all, match: {{ path: "*" }}, strategy: {{ type: failover, upstreams: [mock] }} }}]
""")

    def ask():
        body = b'{"model":"mock-gpt","messages":[{"role":"user","content":"Write to ann@example.org"}]}'
        r = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json", "authorization": "Bearer key-of-a"})
        return urllib.request.urlopen(r, timeout=10).read().decode()

    def until(what, why, seconds=20):
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end and p.poll() is None, f"{why}\n{log.read_text()}"
            time.sleep(0.05)
    mounts = [f"{etc}:/etc/openclaw:ro"]
    health = inside(container, "openclaw-proxy", "-config", "/etc/openclaw/openclaw.yaml", "-health", mounts=mounts)
    assert run(*health).returncode == 1
    log = tmp_path / "log"
    with log.open("w") as out:
        p = subprocess.Popen(inside(container, "openclaw-proxy", "-config", "/etc/openclaw/openclaw.yaml", mounts=mounts), stdout=out, stderr=subprocess.STDOUT)
    try:
        until(lambda: '"listening"' in log.read_text(), "it does not start")
        mine = [int(d.name) for d in Path("/proc").iterdir() if d.name.isdigit() and is_proxy(d)]
        assert len(mine) == 1
        status = Path(f"/proc/{mine[0]}/status").read_text()
        assert re.search(r"^Uid:\s+10001\s", status, re.M) and re.search(r"^CapEff:\s+0+$", status, re.M)
        assert run(*health).returncode == 0
        assert "Write to ann@example.org" in ask()
        shutil.copy(ROOT / "deploy/kubernetes/policies/mask_email.lua", etc / "policies")
        until(lambda: '"generation":2' in log.read_text(), "the policy is not taken up")
        assert "Write to <email>" in ask()
        # In its volume. (Seen from inside: buildah may mount the image's own one over what -v says.)
        assert Path(f"/proc/{mine[0]}/root/var/lib/openclaw/openclaw.db").stat().st_uid == 10001
        os.kill(mine[0], signal.SIGTERM)
        assert p.wait(20) == 0
    finally:
        if p.poll() is None:
            p.terminate()
            p.wait(20)


def test_a_read_only_root(container, tmp_path):
    """Its files mounted read-only, but for the volume, in a namespace of their own."""
    admin = free_port()
    (tmp_path / "openclaw.yaml").write_text((ROOT / "deploy/compose/openclaw.yaml").read_text().replace("8080", str(free_port())) + f"""
admin: {{ listen_port: {admin} }}
clients: [{{ name: a, key: key-of-a, budget: {{ usd: 1, per: day }} }}]
""")
    tmp_path.chmod(0o755)
    at = fine("buildah", "mount", container).strip()
    script = """set -e
mount --bind "$1" "$1"; mount --bind "$2" "$1/etc/openclaw"; mount -t tmpfs -o uid=10001 none "$1/var/lib/openclaw"; mount -o remount,ro,bind "$1"
! touch "$1/usr/x" 2>/dev/null
export STATE_DIRECTORY=/var/lib/openclaw
chroot --userspec=10001:10001 "$1" openclaw-proxy -config /etc/openclaw/openclaw.yaml &
until chroot --userspec=10001:10001 "$1" openclaw-proxy -config /etc/openclaw/openclaw.yaml -ready 2>/dev/null; do kill -0 $!; done
test -e "$1/var/lib/openclaw/openclaw.db"; kill -TERM $!; wait $!"""
    if run("unshare", "-m", "true").returncode != 0:
        pytest.skip("no namespace to be had")
    try:
        said = fine("unshare", "-m", "sh", "-c", script, "sh", at, tmp_path)
    finally:
        run("buildah", "umount", container)
    assert '"msg":"stopped"' in said


def is_proxy(d):
    """The process of /proc/N that is a container's proxy, not a `buildah run` of it."""
    try:
        words = (d / "cmdline").read_bytes().split(b"\0")
        return os.path.basename(words[0]) == b"openclaw-proxy" and words[2:3] == [b"/etc/openclaw/openclaw.yaml"]
    except OSError:
        return False


def test_the_package_in_a_container(tmp_path):
    """Installed by apt, upgraded over a changed file, removed and purged."""
    if not shutil.which("buildah") or run("buildah", "inspect", "--type", "image", BASE).returncode != 0:
        pytest.skip(f"no buildah, or no image {BASE} here")
    deb = ROOT / fine("make", "-s", "deb", timeout=600).splitlines()[-1]
    name = fine("buildah", "from", "--pull-never", BASE).strip()
    try:
        fine("buildah", "copy", name, deb, "/tmp/openclaw.deb")

        def sh(text):
            return fine("buildah", "run", "--network", "host", name, "--", "sh", "-ec", text, timeout=300)
        sh("apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends /tmp/openclaw.deb >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }")
        said = sh("stat -c '%U:%G %a %n' /etc/openclaw /etc/openclaw/openclaw.yaml /etc/openclaw/policies; getent passwd openclaw | cut -d: -f6,7")
        assert said.splitlines() == ["root:openclaw 750 /etc/openclaw", "root:openclaw 640 /etc/openclaw/openclaw.yaml",
                                     "root:openclaw 750 /etc/openclaw/policies", "/var/lib/openclaw:/usr/sbin/nologin"]
        checks = "su -s /bin/sh openclaw -c 'openclaw-proxy -config /etc/openclaw/openclaw.yaml -check'"
        assert ": ok" in sh(checks)
        sh("echo '# mine' >>/etc/openclaw/openclaw.yaml; dpkg -i /tmp/openclaw.deb >/dev/null; tail -1 /etc/openclaw/openclaw.yaml | grep mine; stat -c %a /etc/openclaw | grep 750")
        sh("dpkg -r openclaw-proxy >/dev/null 2>&1; test -e /etc/openclaw/openclaw.yaml; ! command -v openclaw-proxy")
        sh("mkdir -p /var/lib/openclaw; dpkg -P openclaw-proxy >/dev/null 2>&1; ! test -e /etc/openclaw/openclaw.yaml; ! test -e /var/lib/openclaw")
    finally:
        run("buildah", "rm", name)
