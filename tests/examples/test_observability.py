"""examples/observability: its alerts do what they say, what its dashboard asks for is there, and its spans arrive.

Prometheus' own binaries judge; without them (make testdeps unpacks them) what needs them is skipped.
"""
import json
import re
import sys

import pytest

from test_examples import ROOT

sys.path.insert(0, str(ROOT / "tests/system"))
from client import ask, eventually  # noqa: E402
from prometheus import Prometheus, promtool  # noqa: E402
from proxy import SLOW, Proxy  # noqa: E402
from upstream import Upstream  # noqa: E402

HERE = ROOT / "examples/observability"
FAMILIES = {name: (kind, set(labels.split(",")) - {""}) for kind, name, labels in
            re.findall(r'X\(\w+, (\w+), "(openclaw_\w+)", "([\w,]*)"', (ROOT / "core/proxy/metrics.h").read_text())}


def dashboard():
    return json.loads((HERE / "dashboard.json").read_text())


def queries():
    """(where, PromQL) of each panel, variable and annotation, with Grafana's own variables filled in."""
    d = dashboard()
    for panel in d["panels"]:
        for t in panel.get("targets", []):
            yield panel["title"], t["expr"]
    for v in d["templating"]["list"]:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", v.get("definition", ""))
        if found:
            yield v["name"], f"sum by ({found[2]}) ({found[1]})"
    for a in d["annotations"]["list"]:
        yield a["name"], a["expr"]


def filled(expr, interval="5m"):
    out = expr.replace("$__rate_interval", interval)
    for v in ("instance", "route", "upstream"):
        out = out.replace(f"${v}", ".*")
    assert "$" not in out, out
    return out


def names_of(expr):
    """The metrics in it, each with the labels that its selector or the query's grouping names."""
    by = {w.strip() for part in re.findall(r"\bby \(([^)]*)\)", expr) for w in part.split(",")}
    for name, selector in re.findall(r"\b(openclaw_\w+)(?:\{([^}]*)\})?", expr):
        yield name, {m for m in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)}, by


def family_of(name):
    """The family that shows this name."""
    for end in ("", "_bucket", "_sum", "_count"):
        base = name.removesuffix(end) if end else name
        if name.endswith(end) and base in FAMILIES and (FAMILIES[base][0] == "SECONDS") == bool(end):
            return base
    return None


def all_queries():
    rules = re.findall(r"expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)", (HERE / "alerts.yml").read_text())
    return [*queries(), *(("alerts.yml", many or one) for many, one in rules)]


@pytest.mark.parametrize("where, expr", all_queries(), ids=lambda x: x[:40])
def test_what_is_asked_for_is_there(where, expr):
    """Every metric is a family of the proxy's, and has the labels it is asked by."""
    seen = list(names_of(expr))
    assert seen or "up{" in expr
    for name, selected, by in seen:
        base = family_of(name)
        assert base, f"{where}: no metric {name}"
        labels = FAMILIES[base][1] | {"instance", "job", "le" if name.endswith("_bucket") else "instance"}
        assert selected <= labels, f"{where}: {name} has no {selected - labels}"
        assert by <= labels or len({family_of(n) for n, _, _ in seen}) > 1, f"{where}: {name} has no {by - labels}"


def test_rules():
    promtool("check", "config", HERE / "prometheus.yml")
    promtool("test", "rules", HERE / "alerts_test.yml")
    said = (HERE / "alerts_test.yml").read_text()
    for alert in re.findall(r"alert: (\w+)", (HERE / "alerts.yml").read_text()):
        assert alert in said, f"no test of {alert}"


def test_dashboard_is_proper(tmp_path):
    """Ids are unique, panels lie beside each other, and PromQL is what Prometheus takes for it."""
    d = dashboard()
    ids = [p["id"] for p in d["panels"]]
    assert len(ids) == len(set(ids))
    taken = set()
    for p in d["panels"]:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert g["x"] + g["w"] <= 24 and not cells & taken, p["title"]
        taken |= cells
    rules = [{"record": f"r{i}", "expr": filled(e)} for i, (_, e) in enumerate(queries())]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.json")


@pytest.fixture
def example():
    """The example's proxy, its spans sent to a collector of the test's."""
    collector = Upstream()
    collector.on("/v1/traces", lambda ex: ex.reply({}))
    text = (HERE / "openclaw.yaml").read_text()
    for have, put in (("listen_port: 8080", "listen_port: {port}"), ("listen_port: 9090", "listen_port: {admin}"), ("127.0.0.1:4318", f"127.0.0.1:{collector.port}")):
        assert have in text
        text = text.replace(have, put)
    p = Proxy(text)
    yield p, collector
    p.stop()
    collector.stop()


def say(text, **more):
    return {"model": "assistant", "messages": [{"role": "user", "content": text}], **more}


def test_a_prometheus_with_the_example(example, tmp_path):
    """The dashboard's queries run on what a real Prometheus scraped of the example, and those that the traffic is for say something."""
    p, collector = example
    config = (HERE / "prometheus.yml").read_text().replace("15s", "200ms").replace("127.0.0.1:9090", f"127.0.0.1:{p.admin_port}")
    (tmp_path / "alerts.yml").write_bytes((HERE / "alerts.yml").read_bytes())
    server = Prometheus(tmp_path, config)
    silent = {"Refused and limited", "Clients", "Clients that left", "Hedges", "USD an hour by client", "Shared with one under way", "Usage that was estimated",
              "Policies that fail", "Tried again", "Keys", "Reloads"}   # the traffic has none of it, or not of each
    try:
        eventually(lambda: server.query('up{job="openclaw"} == 1'), timeout=20 * SLOW)
        n = iter(range(1000))

        def all_say():
            i = next(n)
            assert ask(p, say(f"Hello {i}")).status in (200, 429)
            assert ask(p, say("again", stream=True)).status in (200, 429)
            return not [where for where, e in queries() if where not in silent and not server.query(filled(e, "1m"))]
        eventually(all_say, timeout=20 * SLOW, every=0.3)
        for where, e in queries():
            assert server.query(filled(e, "1m")) is not None, where    # what fails has no data
        rules = server.get("/api/v1/rules")["data"]["groups"][0]["rules"]
        assert rules and all(r["health"] in ("ok", "unknown") for r in rules), rules
    finally:
        server.stop()

    def spans():
        return {s["name"] for ex in collector.since(0) for s in json.loads(ex.request.body)["resourceSpans"][0]["scopeSpans"][0]["spans"]}
    eventually(lambda: {"POST chat", "chat mock-status-503", "chat assistant"} <= spans(), timeout=20 * SLOW)   # they are sent in bundles
