"""T: what else the proxy does for policies: variables of the environment, series of their own, regular expressions."""
import json

import pytest

from client import ask, chat, in_parallel
from proxy import Proxy, parse_metrics

SECRET = "env-secret-51ce77d0"

POLICIES = {
    "variables.lua": """
return { name = "variables", api = 1, admit = function(req)
    claw.log("info", "variables", { token = claw.env("MY_TOKEN"), plain = claw.env("PLAIN") })
    return { deny = 418, message = ("%s %s %s %s"):format(#claw.env("MY_TOKEN"), claw.env("PLAIN"), tostring(claw.env("UNSET")),
        tostring(claw.env("HOME"))) }
end }
""",
    "counting.lua": """
return { name = "counting", api = 1, admit = function(req)
    claw.metrics.count("seen")
    claw.metrics.count("bytes", 0.5, req.model)
    claw.metrics.gauge("last", tonumber(req.client.headers["x-n"]), 'q"\\\\')
    return { deny = 418 }
end }
""",
    "wide.lua": """
return { name = "wide", api = 1, admit = function(req)
    local codes = {}
    for i = 1, 600 do
        local ok, message, code = claw.metrics.count("wide", 1, "l" .. i)
        codes[ok and "ok" or code] = (codes[ok and "ok" or code] or 0) + 1
    end
    return { deny = 418, message = codes.ok + codes.ELIMIT .. " " .. codes.ELIMIT }
end }
""",
    "redacting.lua": """
return { name = "redacting", api = 1, admit = function(req)
    local text, n = claw.re.gsub(req.body.messages[1].content, "\\\\b\\\\d{3}-\\\\d{2}-\\\\d{4}\\\\b", "[number]")
    local _, _, code = claw.re.find(("a"):rep(65535) .. "b", "(a+)+$")
    return { deny = 418, message = text .. " " .. n .. " " .. code }
end }
""",
    "taken.lua": """
return { name = "taken", api = 1, admit = function(req) claw.metrics.count("errors") end }
""",
}


@pytest.fixture(scope="module")
def serving():
    names = [f[:-4] for f in POLICIES]
    p = Proxy({"server": {"workers": 2}, "upstreams": {"m": {"type": "mock"}},
               "routes": [{"id": n, "match": {"path": "/v1/*", "headers": {"x-route": n}}, "policies": [n], "strategy": {"upstream": "m"}} for n in names],
               "policies": {"always": [], "env": ["MY_TOKEN", "PLAIN", "UNSET"]}}, policies=POLICIES, env={"MY_TOKEN": SECRET, "PLAIN": "plain-value"})
    yield p
    p.stop()


def go(p, name, model="m", **headers):
    return ask(p, chat(model), headers=[("x-route", name), *((f"x-{k}", v) for k, v in headers.items())])


def test_variables(serving):
    assert go(serving, "variables").json()["error"]["message"] == f"{len(SECRET)} plain-value nil nil"
    line = serving.wait_log(lambda l: l.get("msg") == "variables")
    assert line["token"] == "***" and line["plain"] == "plain-value"
    assert SECRET not in "".join(serving.raw_log)


def test_regular_expressions(serving):
    answer = ask(serving, chat("m", messages=[{"role": "user", "content": "mine is 123-45-6789, 1123-45-67890 is not"}]), headers=[("x-route", "redacting")])
    assert answer.json()["error"]["message"] == "mine is [number], 1123-45-67890 is not 1 ELIMIT"


def test_series_of_policies(serving):
    assert all(a.status == 418 for a in in_parallel(100, lambda i: go(serving, "counting", f"model-{i % 3}", n=str(i))))
    types, samples = parse_metrics(serving.admin("/metrics")[1])
    assert types["openclaw_policy_seen_total"] == "counter" and types["openclaw_policy_last"] == "gauge"
    assert serving.metric("openclaw_policy_seen_total", policy="counting", label="") == 100
    assert serving.metric("openclaw_policy_bytes_total", policy="counting", label="model-0") == 17
    last = [s for s in samples if s.name == "openclaw_policy_last"]
    assert len(last) == 1 and last[0].value in range(100) and last[0].labels["label"] == 'q\\"\\\\'


def test_series_are_bounded(serving):
    total, over = go(serving, "wide").json()["error"]["message"].split()
    assert total == "600" and int(over) >= 100
    assert sum(s.name.startswith("openclaw_policy_") and "label" in s.labels for s in parse_metrics(serving.admin("/metrics")[1])[1]) == 500
    assert go(serving, "counting", "model-0", n="1").status == 418, "what is known goes on"


def test_the_proxys_own_names_are_refused(serving):
    assert go(serving, "taken").status == 500
    serving.wait_log(lambda l: "claw.metrics.count: errors: the name is one of the proxy's own" in json.dumps(l))
