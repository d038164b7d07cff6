import os
import resource
import shutil
import subprocess

import pytest

from proxy import BINARY, INSTRUMENTED, ROOT, SLOW, Proxy
from upstream import Upstream

KIND = os.environ.get("CLAW_KIND", "")      # asan tsan valgrind gcstress slowio, or none: see tests/run.sh
UPSTREAM_KEY = "sk-upstream-4f1d7c90aa51"


def pytest_configure(config):
    if not os.access(BINARY, os.X_OK):
        pytest.exit(f"no binary at {BINARY}: build it or set CLAW_BINARY", returncode=3)
    # A login's soft limit is 1024: hundreds of clients and their upstreams are in one process here.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pytest_collection_modifyitems(items):
    """Each test has a deadline; slow machines and instrumented binaries stretch it. Some cannot be judged there at all."""
    for item in items:
        for out in item.iter_markers("not_under"):
            if KIND in out.args:
                item.add_marker(pytest.mark.skip(reason=f"not under {KIND}: {out.kwargs['reason']}"))
        mark = item.get_closest_marker("timeout")
        seconds = mark.args[0] if mark else 30
        item.add_marker(pytest.mark.timeout(seconds * SLOW), append=False)


@pytest.fixture(scope="session")
def up():
    server = Upstream()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def proxy(up):
    """Shared by the tests that need nothing special: any model goes to the scripted upstream, mock-* to the mock."""
    p = Proxy({
        "upstreams": {
            "main": {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url(),
                     "cost_per_million_input_tokens": 30.0, "cost_per_million_output_tokens": 60.0},
            "mock": {"type": "mock", "models": ["mock-small", "mock-large"]},
        },
        "routes": [
            {"id": "all", "match": {"path": "/v1/*"}, "strategy": {"type": "round_robin", "upstreams": ["main"]}},
            {"id": "mocked", "match": {"path": "/v1/*", "json_body": {"model": ["mock-small", "mock-large"]}},
             "strategy": {"type": "round_robin", "upstreams": ["mock"]}},
        ],
        "retry": {"attempts": 1},
    })
    yield p
    p.stop()


@pytest.fixture
def start():
    """start(config, …) -> a proxy of this test's own, ended (and judged) with the test."""
    started = []

    def one(*args, **kwargs):
        p = Proxy(*args, **kwargs)
        started.append(p)
        return p
    yield one
    for p in started:
        p.stop()


@pytest.fixture
def upstreams():
    """upstreams() -> a scripted upstream of this test's own."""
    made = []

    def one(*args, **kwargs):
        made.append(Upstream(*args, **kwargs))
        return made[-1]
    yield one
    for server in made:
        server.stop()


@pytest.fixture(autouse=True)
def nothing_malformed_upstream(request):
    """Whatever a test does to the proxy, the shared upstream gets proper requests or none."""
    server = request.getfixturevalue("up") if "up" in request.fixturenames else None
    before = len(server.malformed) if server else 0
    yield
    if server:
        assert server.malformed[before:] == []


@pytest.fixture
def model(request):
    """A model name that only this test uses."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return name[:100]


@pytest.fixture(scope="session")
def turns(tmp_path_factory):
    """The library that notes what CPU a turn of an event loop takes (tests/bench/turns.c). None where it would measure a sanitizer."""
    cc = shutil.which(os.environ.get("CC", "cc"))
    if INSTRUMENTED or not cc:
        return None
    library = tmp_path_factory.mktemp("turns") / "turns.so"
    subprocess.run([cc, "-O2", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", str(library), str(ROOT / "tests/bench/turns.c"), "-ldl"], check=True)
    return library
