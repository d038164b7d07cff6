"""P: what policies remember: one store for all workers, through reloads, within its bound."""
import signal

import pytest

from client import Raw, ask, chat, in_parallel, request

COUNTING = """
return { name = "counting", api = 1,
    admit = function(req)
        claw.store.incr("all")
        return { deny = 400, code = "n" .. claw.store.incr("seen") }
    end }
"""
READING = """
return { name = "counting", api = 1,
    init = function() claw.store.add("begun", true) end,
    selftest = function() claw.store.set("seen", 0) assert(claw.store.get("seen") == 0) end,
    admit = function(req)
        return { deny = 400, code = claw.store.get("all") .. "_" .. claw.store.get("seen") .. "_" .. tostring(claw.store.get("begun")) }
    end }
"""
CONFIG = {"server": {"workers": 4}, "upstreams": {"mock": {"type": "mock"}},
          "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["mock"]}}]}


def code_of(answer):
    return answer.json()["error"]["code"]


def test_counts_are_exact_in_all_workers_and_survive_reloads(start):
    p = start(CONFIG, policies={"counting.lua": COUNTING})
    connections, each = 16, 50

    def one(_):
        with Raw(p.port, timeout=20 * p.slow) as c:
            return [code_of(c.send(request(body=chat("m"))).response()) for _ in range(each)]
    codes = [code for codes in in_parallel(connections, one) for code in codes]
    assert sorted(codes) == sorted(f"n{i + 1}" for i in range(connections * each))      # none twice, none left out
    before = p.generation()
    p.drop_policy("counting.lua", READING)
    p.wait_generation(before)
    assert code_of(ask(p, chat("m"))) == f"{connections * each}_{connections * each}_true"   # and a selftest's store is not this one
    assert p.metric("openclaw_store_entries") == 3
    assert 0 < p.metric("openclaw_store_bytes") < 1000
    p.drop_policy("counting.lua", COUNTING)
    p.wait_generation(before + 1)
    assert code_of(ask(p, chat("m"))) == f"n{connections * each + 1}"


@pytest.mark.timeout(60)
def test_the_bound_holds_and_a_smaller_one_holds_at_once(start):
    p = start({**CONFIG, "policies": {"store_mb": 4}}, policies={"filling.lua": """
return { name = "filling", api = 1,
    admit = function(req)
        for i = 1, 40 do claw.store.set(req.id .. i, ("x"):rep(10000)) end
        return { deny = 400, code = "full" }
    end }
"""})
    with Raw(p.port, timeout=20 * p.slow) as c:
        for _ in range(30):
            assert code_of(c.send(request(body=chat("m"))).response()) == "full"
    held = p.metric("openclaw_store_bytes")
    assert 3.5 * 2**20 < held <= 4 * 2**20
    entries, evictions = p.metric("openclaw_store_entries"), p.metric("openclaw_store_evictions_total")
    assert entries + evictions == 1200
    before = p.generation()
    p.write_config({**CONFIG, "policies": {"store_mb": 1}})
    p.signal(signal.SIGHUP)
    p.wait_generation(before)
    assert p.metric("openclaw_store_bytes") <= 2**20
    assert p.metric("openclaw_store_entries") > 80


def test_a_shipped_policy_counts_in_it(start):
    p = start({"upstreams": {"m": {"type": "mock", "cost_per_million_input_tokens": 100000, "cost_per_million_output_tokens": 100000}},
               "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["m"]}}],
               "policies": {"always": ["cost_cap"], "settings": {"cost_cap": {"usd_per_day": 3}}}})
    statuses = [ask(p, chat("mock-gpt")).status for _ in range(10)]      # on connections of their own: over both workers
    refused = statuses.index(429)
    assert 0 < refused < 10 and set(statuses[:refused]) == {200} and set(statuses[refused:]) == {429}
