"""N: policies that reach policies.memory_mb, and what the others feel of it."""
import pytest

from client import Raw, ask, chat, eventually
from hostile import ADDED_MS, cpu_ms, headed, hold, most, ping, release, route, within
from proxy import INSTRUMENTED, SLOW, Proxy, run
from upstream import Upstream

pytestmark = pytest.mark.alone

FILL = "local t = {} for i = 1, 1e9 do t[i] = { {} } end"
HOOKS = {
    "admit": f"admit = function(req) {FILL} end",
    "route": f"route = function(req, candidates) {FILL} end",
    "choose": f"choose = function(candidates, facts, rng) {FILL} end",
    "request": f"request = function(req, body) {FILL} end",
    "retry": f"retry = function(req, attempt) {FILL} end",
    "event": f"event = function(req, ev) {FILL} end",
    "response": f"response = function(req, body) {FILL} end",
    "cost": f"cost = function(req, usage) {FILL} end",
    "log": f"log = function(req) {FILL} end",
    "background": f"admit = function(req) claw.task.background(function() {FILL} end) end",
}
# Each call is well within its budget; what it keeps is for ever.
LEAK = 'local keep = {} return { name = "leak", api = 1, request = function() for i = 1, 6000 do keep[#keep + 1] = { { i } } end end }'
TOLD = "not enough memory (policies.memory_mb)"


def start(files, mb, **policies):
    up = Upstream()
    up.on("fails", lambda ex: ex.reply({}, 500))
    routes = [route(n[:-4], n[:-4], **({"strategy": {"type": n[:-4], "upstreams": ["a"]}} if n == "choose.lua" else {})) for n in files]
    p = Proxy({"server": {"workers": 1}, "upstreams": {"a": {"type": "openai", "base_url": up.url()}}, "routes": [route("plain"), *routes],
               "policies": {"always": [], "rollback": False, "memory_mb": mb, **policies}}, policies=files)
    p.up = up
    hold(p)
    return p


def end(p):
    release(p)
    p.stop()
    p.up.stop()


@pytest.fixture(scope="module")
def proxy():
    p = start({f"{n}.lua": f'return {{ name = "{n}", api = 1, {code} }}\n' for n, code in HOOKS.items()}, 64, budget_ms=min(int(20000 * SLOW), 60000))
    yield p
    end(p)


def computed(p, act):
    before = cpu_ms(p)
    act()
    return most(before, cpu_ms(p))


@pytest.mark.timeout(90)
@pytest.mark.parametrize("hook", HOOKS)
def test_memory_runs_out_in_every_hook(proxy, hook):
    """Before the budget, which is large here: the call fails, by name, and those that come next do not pay for it."""
    seen = len([l for l in proxy.lines if TOLD in (l["error"] or "") + (l["message"] or "") + (l["traceback"] or "")])
    with Raw(proxy.port, timeout=30 * proxy.slow) as c:
        status = c.send(headed(hook, model="fails" if hook == "retry" else "m", stream=hook == "event")).response().status
    assert status == {"cost": 200, "log": 200, "background": 200}.get(hook, 500)

    def told():
        return [l for l in proxy.lines if TOLD in (l["error"] or "") + (l["message"] or "") + (l["traceback"] or "")][seen:]
    line = eventually(told, 20 * proxy.slow)[0]
    assert f"policies/{hook}.lua:1: " in (line["error"] or "") + (line["traceback"] or "")
    within(ADDED_MS, lambda: max(computed(proxy, lambda: ping(c)) for c in proxy.held))
    assert proxy.process.poll() is None


@pytest.mark.timeout(90)
def test_a_policy_that_keeps_all_it_makes():
    """A table that only grows fills the bound in small steps. From then on its own requests fail; the others' do not, and
    the collector, which has to look at all that is kept, does not make them wait."""
    p = start({"leak.lua": LEAK}, 64, budget_ms=int(10 * SLOW))
    try:
        failed, longest = 0, []
        for _ in range(110):
            failed += ask(p, chat(), headers=[("x-route", "leak")]).status == 500
            longest.append(computed(p, lambda: ping(p.held[0])))
        assert failed > 20
        longest.sort()
        print(f"ms of CPU of an ordinary request: median {longest[55]:.1f}, most {longest[-1]:.1f}")
        assert INSTRUMENTED or longest[-1] <= ADDED_MS, longest
        assert p.metric("openclaw_policy_errors_total", policy="leak") == failed == p.metric("openclaw_policy_errors_total")
    finally:
        end(p)


@pytest.mark.parametrize("text", [FILL, f'return {{ name = "x", api = 1, init = function() {FILL} end }}', f'return {{ name = "x", api = 1, selftest = function() {FILL} end }}'])
def test_a_file_that_takes_all_memory_is_refused(tmp_path, text):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "x.lua").write_text(text)
    (tmp_path / "openclaw.yaml").write_text('{"upstreams": {"a": {"type": "mock"}}, "policies": {"memory_mb": 64, "budget_ms": 20000}, "routes": [{"id": "r", "strategy": {"upstream": "a"}}]}')
    told = run("-config", tmp_path / "openclaw.yaml", "-check", timeout=60)
    assert told.returncode == 1 and "policies/x.lua:1: " in told.stdout + told.stderr and "not enough memory" in told.stdout + told.stderr
