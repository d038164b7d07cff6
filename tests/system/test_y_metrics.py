"""Y: /metrics: the names, types and labels that are promised, within its bound, as Prometheus itself reads it."""
import json

import pytest

from client import ask, chat, data_of, eventually, form
from prometheus import Prometheus, promtool
from proxy import SLOW, parse_metrics
from upstream import stream_events

# "Key Monitoring Metrics from OpenClaw", as the setup guide has them.
TABLE = """
openclaw_requests_total | Counter | route_id, status, method
openclaw_upstream_requests_total | Counter | upstream_name, status
openclaw_request_duration_seconds | Histogram | route_id, upstream_name
openclaw_upstream_duration_seconds | Histogram | upstream_name
openclaw_cache_hits_total | Counter | route_id
openclaw_cache_misses_total | Counter | route_id
openclaw_rate_limit_blocked_total | Counter | limit_id
openclaw_estimated_cost_usd_total | Counter | upstream_name, model_name
"""

# What the rest of the operator's view needs.
MORE = """
openclaw_tokens_total | Counter | upstream_name, model_name, class
openclaw_time_to_first_byte_seconds | Histogram | upstream_name
openclaw_inter_chunk_gap_seconds | Histogram | upstream_name
openclaw_overhead_seconds | Histogram |
openclaw_loop_lag_seconds | Histogram |
openclaw_requests_in_flight | Gauge |
openclaw_client_connections | Gauge |
openclaw_pool_idle_connections | Gauge | upstream_name
openclaw_pool_connections_opened_total | Counter | upstream_name
openclaw_upstream_key_state | Gauge | upstream_name, key, state
openclaw_breaker_state | Gauge | upstream_name, state
openclaw_retries_total | Counter | upstream_name, kind
openclaw_coalesced_total | Counter | route_id
openclaw_policy_duration_seconds | Histogram | hook
openclaw_policy_errors_total | Counter | policy, hook
openclaw_generation | Gauge |
openclaw_reloads_total | Counter | result
openclaw_metrics_series | Gauge |
"""


def table(text):
    for line in text.strip().splitlines():
        name, kind, labels = (part.strip() for part in line.split("|"))
        yield name, kind.lower(), set(labels.split(", ")) if labels else set()


def scrape(p):
    status, text, headers = p.admin("/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    return text


def config(up, **more):
    priced = {"type": "openai", "base_url": up.url(), "api_key": "sk-metrics-of-the-test", "cost_per_million_input_tokens": 30.0}
    return {"upstreams": {"u": priced, "v": priced}, "retry": {"backoff_ms": 1},
            "routes": [{"id": "r", "match": {"path": "/v1/*"}, "strategy": {"type": "failover", "upstreams": ["u", "v"]}}], **more}


def test_the_table(start, up, model):
    """A proxy that has done all these things once: every family is there with its type, and its samples have its labels."""
    def flaky(ex):
        if not ex.server.flaked:
            ex.server.flaked = True
            ex.reply({"error": {"message": "x"}}, status=503)
        elif ex.body.get("stream"):
            first, *rest = stream_events()
            ex.stream_head()
            ex.chunk(first)
            eventually(lambda: any(r["step"] == "stream" for r in json.loads(p.admin("/requests/inflight")[1])["requests"]))
            for one in rest:
                ex.chunk(one)
            ex.end()
        else:
            ex.reply()
    up.flaked = False
    up.on(model, flaky)
    p = start(config(up, caching={"enabled": True}, rate_limits=[{"id": "few", "match": {"path": "/v1/embeddings"}, "requests_per_hour": 1}]),
              policies={"bad.lua": "return { name = 'bad', api = 1, request = function(req) if req.model == 'boom' then error('x') end end }"})
    for _ in range(2):
        assert ask(p, chat(model)).status == 200
    assert data_of(ask(p, chat(model, stream=True, messages=[{"role": "user", "content": "more"}])))
    assert ask(p, chat("boom")).status == 500
    assert [ask(p, {"model": "e", "input": "x"}, path="/v1/embeddings").status for _ in range(2)][1] == 429
    p.wait_metric("openclaw_requests_total", lambda v: v == 6)
    p.wait_metric("openclaw_loop_lag_seconds_count", lambda v: v > 0)
    text = scrape(p)
    types, samples = parse_metrics(text)
    for name, kind, labels in [*table(TABLE), *table(MORE)]:
        assert types.get(name) == kind, name
        its = [s for s in samples if s.name in ({name + "_bucket"} if kind == "histogram" else {name})]
        assert its or name == "openclaw_coalesced_total", f"no sample of {name}"
        for s in its:
            assert set(s.labels) - {"le"} == labels, (name, s.labels)
    assert promtool("check", "metrics", text=text) == ""


@pytest.mark.parametrize("said", ["", "metrics"])
def test_check_metrics_is_clean_at_once(start, up, said):
    """Without a request, and where policies have series of their own."""
    lua = "return { name = 'm', api = 1, admit = function(req) claw.metrics.count('asked', 1, 'a\"b') end }"
    p = start(config(up), policies={"m.lua": lua} if said else {})
    if said:
        ask(p, chat("m"))
    text = scrape(p)
    assert promtool("check", "metrics", text=text) == ""
    for line in ("openclaw_generation_rollbacks_total 0", 'openclaw_reloads_total{result="refused"} 0', 'openclaw_trace_spans_total{outcome="dropped"} 0'):
        assert line in text.splitlines()    # else the first of them would raise no alert


def test_a_models_name_that_is_no_text_spoils_nothing(start, up):
    """One request with such a name must not make every scrape after it unreadable."""
    p = start(config(up))
    for name in ("m%ff", "m%fe", "%e2%82"):
        ask(p, {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}, path=f"/v1beta/models/{name}:generateContent")
    bad = form(("model", b"m\xff"), ("file", "a.mp3", b"x"))
    ask(p, bad, path="/v1/audio/transcriptions", type="multipart/form-data; boundary=b")
    p.wait_metric("openclaw_requests_total", lambda v: v == 4)
    assert promtool("check", "metrics", text=scrape(p)) == ""
    for page in ("/live", "/requests", "/upstreams"):
        json.loads(p.admin(page)[1])


def test_made_up_models_are_bounded(start, up):
    """Names that clients make up end as `other`, the same in all workers, and leave room for what is not theirs."""
    p = start(config(up, metrics={"max_series": 200}))
    for i in range(60):
        assert ask(p, chat(f"made-up-{i}")).status == 200
    p.wait_metric("openclaw_requests_total", lambda v: v == 60)
    _, samples = parse_metrics(scrape(p))
    tokens = [s for s in samples if s.name == "openclaw_tokens_total"]
    assert len({s.labels["model_name"] for s in tokens}) < 40
    assert sum(s.value for s in tokens if s.labels["class"] == "input") + sum(s.value for s in tokens if s.labels["class"] == "other") >= 60 * 11
    modelled = [s for s in samples if "model_name" in s.labels and s.labels["model_name"] != "other"]
    assert 0 < len(modelled) <= 100
    assert p.metric("openclaw_metrics_overflow_total") > 0
    assert p.metric("openclaw_metrics_series") <= 200
    assert ask(p, chat("m"), path="/v1/nowhere/else").status in (200, 404)
    assert p.metric("openclaw_requests_total", route_id="r") >= 60


def test_the_bound_follows_a_reload(start, up):
    p = start(config(up, metrics={"max_series": 100}))
    was = p.metric("openclaw_generation")
    p.write_config(config(up, metrics={"max_series": 5000}))
    p.wait_metric("openclaw_generation", lambda v: v > was)
    for i in range(60):
        ask(p, chat(f"m-{i}"))
    p.wait_metric("openclaw_tokens_total", lambda v: v > 0, model_name="m-59")


def test_an_upstream_that_is_gone_is_in_no_state(start, up):
    """Else what was set aside when it was taken out of the configuration would stay an alert for good."""
    c = config(up)
    p = start(c)
    assert p.metric("openclaw_breaker_state", upstream_name="v", state="closed") == 1
    p.write_config({**c, "upstreams": {"u": c["upstreams"]["u"]}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}]})
    p.wait_metric("openclaw_generation", lambda v: v == 2)
    assert p.metric("openclaw_breaker_state", upstream_name="v") == 0 and p.metric("openclaw_upstream_key_state", upstream_name="v") == 0
    assert p.metric("openclaw_breaker_state", upstream_name="u") == 1


def test_off(start, up):
    """metrics.enabled: live like the rest; the other pages stay."""
    p = start(config(up, metrics={"enabled": False}))
    status, text, _ = p.admin("/metrics")
    assert status == 404 and "metrics.enabled" in text
    assert p.admin("/live")[0] == 200
    p.write_config(config(up))
    eventually(lambda: p.admin("/metrics")[0] == 200, timeout=5 * SLOW)


def test_prometheus_scrapes(start, up, model, tmp_path):
    """A real Prometheus, with the token that the admin port asks for."""
    p = start(config(up, admin={"token": "token-of-the-scraper"}), admin=True)
    ask(p, chat(model))
    server = Prometheus(tmp_path, f"""
scrape_configs:
  - job_name: openclaw
    scrape_interval: 100ms
    scrape_timeout: 100ms
    authorization: {{ credentials: token-of-the-scraper }}
    static_configs: [{{ targets: ["127.0.0.1:{p.admin_port}"] }}]
""")
    try:
        found = eventually(lambda: server.query("openclaw_requests_total"), timeout=20 * SLOW)
        assert found[0][0]["route_id"] == "r" and found[0][0]["status"] == "200" and found[0][1] == 1
        assert eventually(lambda: server.query("histogram_quantile(0.5, openclaw_request_duration_seconds_bucket)"), timeout=20 * SLOW)
    finally:
        server.stop()
