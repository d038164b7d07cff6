"""Y: the dashboard, in a headless Chromium where there is one: what it shows, that nothing in it is markup, keys, the token, and
that it asks nobody but the admin port."""
import gzip
import http.client
import json
import re
import threading

import pytest

from browser import BINARY as CHROMIUM
from browser import Browser
from client import ask, chat
from proxy import SLOW
from upstream import delta, event

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")
TOKEN = "operators-only-5fd2a8e1"
KEY = "sk-upstream-8c1b77aa9041"
MARKUP = '<img src=x onerror="document.title=\'taken\'"><b>bold</b>'
VIEWS = ["overview", "requests", "upstreams", "costs", "routes", "policies", "generations", "playground"]


def config(up, **more):
    return {"upstreams": {"u": {"type": "openai", "base_url": up.url(), "api_key": KEY, "cost_per_million_output_tokens": 10}, "m": {"type": "mock"}},
            "routes": [{"id": "r", "strategy": {"type": "canary", "upstreams": ["u", {"name": "m", "percentage": 30}]}}], "policies": {"rollback": False}, **more}


@pytest.fixture(scope="module")
def browser():
    b = Browser(slow=SLOW)
    b.size(1280, 900)
    yield b
    b.stop()


@pytest.fixture
def page(browser):
    """page(proxy) -> the browser, on its dashboard."""
    def go(p, path="/dashboard"):
        browser.complaints.clear()
        browser.asked.clear()
        browser.go(f"http://127.0.0.1:{p.admin_port}{path}")
        return browser
    yield go
    browser.eval("sessionStorage.clear(); localStorage.clear()")
    browser.go("about:blank")           # it asks the proxy no more, which is about to end


def shown(b, selector):
    return b.eval(f"(document.querySelector({json.dumps(selector)}) || {{}}).innerText")


# ---- without a browser

def test_the_files_are_small_and_safe(start, up):
    p = start(config(up))
    weight = plain = 0
    for path in ("/dashboard", "/dashboard.css", "/dashboard.js"):
        status, text, headers = p.admin(path)
        assert status == 200 and "content-encoding" not in headers
        c = http.client.HTTPConnection("127.0.0.1", p.admin_port, timeout=5)
        c.request("GET", path, headers={"Accept-Encoding": "gzip, deflate, br"})
        r = c.getresponse()
        packed = r.read()
        c.close()
        assert r.headers["content-encoding"] == "gzip" and gzip.decompress(packed).decode() == text
        policy = headers["content-security-policy"]
        assert ("script-src 'self'" in policy) == (path == "/dashboard") and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|\son[a-z]+=|<style|style=|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text), path
        weight += len(packed)
        plain += len(text)
    assert p.admin("/")[1] == p.admin("/dashboard")[1]
    assert weight < 24 << 10 and plain < 64 << 10, (weight, plain)


# ---- with one

@needs_browser
def test_every_view_is_drawn(start, up, page):
    p = start({**config(up), "clients": [{"name": "ann", "key": "key-of-ann-123456"}], "caching": {"enabled": True}},
              policies={"bad.lua": "return { name = 'bad', api = 1,\n request = function(req, body) if body.user then error('no luck') end end }"})
    who = [("authorization", "Bearer key-of-ann-123456")]
    for i in range(6):
        ask(p, chat(f"model-{i % 2}"), headers=who)
    ask(p, chat("model-2", user="x"), headers=who)
    b = page(p)
    b.until("document.querySelector('#tile-Requests') && document.querySelector('#tile-Requests').innerText.includes('7 since the start')")
    assert "✕ 1 failure of policies" in b.text()
    for width in (1280, 800):
        b.size(width, 900)
        for i, view in enumerate(VIEWS):
            b.key(str(i + 1), f"Digit{i + 1}", windowsVirtualKeyCode=49 + i)
            b.until(f"document.querySelector('#tab-{view}').getAttribute('aria-selected') === 'true' && !document.querySelector('#{view}').hidden && location.hash === '#{view}'")
            b.until(f"document.querySelectorAll('#{view} tbody tr, #{view} option').length > 0 && document.querySelector('#state').innerText.includes('live')")
            wide = b.eval("[...document.querySelectorAll('main *')].filter(e => e.offsetParent && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 100))")
            assert b.eval("document.documentElement.scrollWidth <= innerWidth") and wide == [], (view, width)
    b.size(1280, 900)
    for view, words in (("requests", ["model-0", "model-1", "policy_error", "canary"]), ("upstreams", ["Set aside", "…9041"]), ("costs", ["model-1", "ann", "$"]),
                        ("routes", ["canary", "70 %", "30 %"]), ("policies", ["policies/bad.lua:2: no luck", "builtin/"]), ("generations", ["current", "Nothing was published"])):
        b.eval(f"location.hash = '{view}'")
        if view == "requests":
            b.until("[...document.querySelectorAll('#tail tr')].some(tr => tr.innerText.includes('500'))")
            b.eval("[...document.querySelectorAll('#tail tr')].find(tr => tr.innerText.includes('500')).querySelector('button').click()")
            b.until("document.querySelector('#detail').open")
            assert "policies/bad.lua:2: no luck" in shown(b, "#detail") and "Route r, strategy canary" in shown(b, "#detail")
            words = ["model-0", "model-1"]
            b.key("Escape", "Escape", windowsVirtualKeyCode=27)
            b.until("!document.querySelector('#detail').open")
        for word in words:
            b.until(f"document.querySelector('#{view}').innerText.includes({json.dumps(word)})")
    assert KEY not in b.eval("document.documentElement.innerHTML")
    assert b.complaints == [] and {a.split("/")[2] for a in b.asked if a.startswith("http")} == {f"127.0.0.1:{p.admin_port}"}


@needs_browser
def test_nothing_that_came_is_markup(start, up, page, model):
    up.on(MARKUP, lambda ex: ex.reply({"error": {"message": MARKUP}}, 400))
    odd = {**config(up), "upstreams": {MARKUP: {"type": "openai", "base_url": up.url(), "cost_per_million_output_tokens": 10}},
           "routes": [{"id": MARKUP, "strategy": {"type": "failover", "upstreams": [MARKUP]}}], "rate_limits": [{"id": MARKUP, "requests_per_day": 100}],
           "clients": [{"name": MARKUP, "key": "key-of-ann-123456"}]}
    p = start(odd, policies={"p.lua": f"return {{ name = 'p', api = 1, request = function(req, body) if body.fail then error({json.dumps(MARKUP)}) end end }}"})
    odd["upstreams"][MARKUP]["timeout_seconds"] = 9
    p.write_config(odd)
    p.wait_generation(1)
    who = [("authorization", "Bearer key-of-ann-123456")]
    for body in (chat("plain"), chat(MARKUP), chat(MARKUP, fail=True)):
        ask(p, body, headers=who)
    p.drop_policy("p.lua", f"error({json.dumps(MARKUP)})")
    p.wait_log(lambda line: line["msg"] == "reload refused")
    b = page(p)
    for view in VIEWS[:-1]:
        b.eval(f"location.hash = '{view}'")
        b.until(f"document.querySelector('#{view}').innerText.includes('<b>bold</b>')")
    b.eval("location.hash = 'requests'")
    b.until("document.querySelectorAll('#tail button').length === 3")
    for i in range(3):
        b.eval(f"document.querySelectorAll('#tail button')[{i}].click()")
        assert b.eval("document.querySelectorAll('#detail b, #detail img').length") == 0
        b.eval("document.querySelector('#detail').close()")
    assert b.eval("document.querySelectorAll('main b, main img').length") == 0 and b.eval("document.title") == "OpenClaw" and b.complaints == []


@needs_browser
def test_set_aside_and_taken_back_with_the_keyboard(start, up, page):
    p = start(config(up))
    b = page(p, "/dashboard#upstreams")
    b.until("document.querySelector('#ups button')")
    b.eval("document.querySelector('#ups button').focus()")
    b.key("Enter", "Enter", windowsVirtualKeyCode=13, text="\r")
    b.until("document.querySelector('#ups').innerText.includes('✕ set aside')")
    state = json.loads(p.admin("/upstreams")[1])["upstreams"][0]
    assert (state["state"], state["why"]) == ("open", "admin")
    b.until("document.activeElement && document.activeElement.getAttribute('aria-label') === 'Set aside u' || document.activeElement === document.body")
    b.eval("document.querySelectorAll('#ups button')[1].click()")
    b.until("!document.querySelector('#ups').innerText.includes('✕')")
    assert json.loads(p.admin("/upstreams")[1])["upstreams"][0]["state"] == "closed"


@needs_browser
def test_a_canary_is_moved_and_taken_back(start, up, page):
    p = start(config(up))
    b = page(p, "/dashboard#routes")
    b.until("document.querySelector('#splits input') && document.querySelector('#splits form').innerText.includes('as the file says')")
    b.eval("document.querySelector('#splits input').value = '55'; document.querySelector('#splits form').requestSubmit()")
    b.until("document.querySelector('#splits form').innerText.includes('moved to 55')")
    assert json.loads(p.admin("/routes")[1])["routes"][0]["moved_percent"] == 55
    b.click("#splits form button[type=button]")
    b.until("!document.querySelector('#splits form').innerText.includes('moved to')")
    assert "moved_percent" not in json.loads(p.admin("/routes")[1])["routes"][0]


@needs_browser
def test_arrows_themes_and_a_pause(start, up, page):
    p = start(config(up))
    b = page(p)
    b.until("document.querySelector('#state').innerText.includes('live')")
    b.eval("document.querySelector('#tab-overview').focus()")
    b.key("ArrowRight", windowsVirtualKeyCode=39)
    b.until("document.activeElement.id === 'tab-requests' && location.hash === '#requests'")
    b.key("Home", windowsVirtualKeyCode=36)
    b.until("document.activeElement.id === 'tab-overview'")
    colours = {}
    for dark in (False, True):
        b.dark(dark)
        colours[dark] = b.eval("getComputedStyle(document.body).backgroundColor")
    b.dark(False)
    assert colours[False] != colours[True]
    b.click("#theme")
    b.click("#theme")
    assert shown(b, "#theme") == "Theme: dark" and b.eval("getComputedStyle(document.body).backgroundColor") == colours[True]
    b.click("#theme")
    b.key("p", "KeyP", windowsVirtualKeyCode=80)
    b.until("document.querySelector('#pause').getAttribute('aria-pressed') === 'true'")
    asked = len(b.asked)
    b.eval("new Promise(done => setTimeout(done, 2500))")
    assert len(b.asked) <= asked + 4            # what was under way, and no more
    b.key("p", "KeyP", windowsVirtualKeyCode=80)
    b.until("document.querySelector('#state').innerText.includes('live')")
    for view in VIEWS:                          # each button, field and table has a name, each view is that of its tab
        assert b.eval(f"document.querySelector('#{view}').getAttribute('aria-labelledby')") == f"tab-{view}"
    assert b.eval("[...document.querySelectorAll('button')].filter(e => !(e.innerText || e.getAttribute('aria-label') || '').trim() && e.offsetParent).length") == 0
    assert b.eval("[...document.querySelectorAll('svg.chart')].every(e => e.getAttribute('aria-label'))")


@needs_browser
def test_the_token_is_asked_for_and_kept_for_the_tab(start, up, page):
    p = start(config(up, admin={"token": TOKEN}))
    b = page(p)
    b.until("document.querySelector('#login').open")

    def enter(text):
        b.eval(f"document.querySelector('#token').value = {json.dumps(text)}; document.querySelector('#login-form').requestSubmit()")
    enter("wrong")
    b.until("document.querySelector('#login').open && document.querySelector('#login-said').innerText.includes('not taken')")
    enter(TOKEN)
    b.until("!document.querySelector('#login').open && document.querySelector('#state').innerText.includes('live')")
    assert b.eval("sessionStorage.getItem('openclaw-token')") == TOKEN and TOKEN not in b.eval("JSON.stringify(localStorage)")
    assert TOKEN not in b.eval("document.documentElement.outerHTML") and not any(TOKEN in a for a in b.asked)
    b.go(f"http://127.0.0.1:{p.admin_port}/#costs")
    b.until("document.querySelector('#state').innerText.includes('live')")
    assert not b.eval("document.querySelector('#login').open")


@needs_browser
def test_it_says_when_the_proxy_is_gone(start, up, page):
    p = start(config(up))
    b = page(p)
    b.until("document.querySelector('#state').innerText.includes('live')")
    p.stop()
    b.until("document.querySelector('#state').innerText.includes('cannot be reached')")
    assert "✕" in shown(b, "#state")


# ---- the playground

def fill(b, selector, text):
    b.eval(f"(e => {{ e.value = {json.dumps(text)}; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})(document.querySelector({json.dumps(selector)}))")


def events(*texts):
    return [event(delta(t)) for t in texts] + [event(delta(None, "stop")), b"data: [DONE]\n\n"]


@needs_browser
def test_a_request_is_sent_shown_as_it_comes_and_explained(start, up, page, model):
    go = threading.Event()

    def slow(ex):
        ex.stream_head()
        first, *rest = events(MARKUP, " and more")
        ex.chunk(first)
        go.wait(20)
        for one in rest:
            ex.chunk(one)
        ex.end()
    up.on(model, slow)
    p = start(config(up, routes=[{"id": "r", "strategy": {"type": "failover", "upstreams": ["u", "m"]}}]))
    b = page(p, "/dashboard#playground")
    b.until("document.querySelector('#try-body').value.includes('messages')")
    fill(b, "#try-body", json.dumps(chat(model)))
    b.click("#try-stream")
    b.click("#try-send")
    try:
        b.until("document.querySelector('#try-text').innerText.includes('<b>bold</b>') && document.querySelector('#try-said').innerText.includes('so far')")
        assert "more" not in shown(b, "#try-text")
    finally:
        go.set()
    b.until("document.querySelector('#try-said').innerText.includes('whole after') && document.querySelector('#try-text').innerText.endsWith('and more')")
    assert "200" in shown(b, "#try-said") and "data: [DONE]" in b.eval("document.querySelector('#try-bytes').textContent")
    b.until("document.querySelector('#try-why').innerText.includes('candidates of r (failover)')")
    assert up.seen(model)[-1].body["stream"] is True
    fill(b, "#try-body", "{")
    b.click("#try-send")
    b.until("document.querySelector('#try-said').innerText.includes('no JSON')")
    fill(b, "#try-body", json.dumps({"method": "POST", "path": "/v1/embeddings", "headers": {}, "body": {"model": "recorded", "input": "x"}, "route": "r", "status": 200}))
    b.click("#try-explain")
    b.until("document.querySelector('#try-why').innerText.includes('POST /v1/embeddings, model recorded')")
    assert b.eval("document.querySelectorAll('main b, main img').length") == 0 and b.eval("document.title") == "OpenClaw" and b.complaints == []


@needs_browser
def test_a_policy_is_edited_explained_and_saved(start, up, page, model):
    text = "local P = { name = 'mine', api = 1 }\nfunction P.request(req, body) body.user = 'one' end\nreturn P\n"
    p = start(config(up, admin={"allow_policy_write": True}), policies={"mine.lua": text})
    b = page(p, "/dashboard#playground")
    b.until("document.querySelector('#pol-text').value.includes('mine')")
    fill(b, "#try-body", json.dumps(chat(model)))
    fill(b, "#pol-text", text.replace("'one'", "'two'"))
    b.click("#pol-run")
    b.until("document.querySelector('#pol-report').innerText.includes('user') && document.querySelector('#pol-report').innerText.includes('two') && document.querySelector('#pol-said').innerText.includes('decided')")
    assert (p.policies / "mine.lua").read_text() == text
    fill(b, "#pol-text", text.replace("return P", "retrun P"))
    b.click("#pol-save")
    b.until("document.querySelector('#pol-said').innerText.includes('not saved: refused') && document.querySelector('#pol-report').innerText.includes('policies/mine.lua:3:')")
    fill(b, "#pol-text", text.replace("'one'", "'two'"))
    b.click("#pol-save")
    b.until("document.querySelector('#pol-said').innerText.includes('saved, published')")
    assert "'two'" in (p.policies / "mine.lua").read_text()
    b.eval("(e => { e.value = ''; e.dispatchEvent(new Event('change')) })(document.querySelector('#pol-pick'))")
    b.until("document.querySelector('#pol-text').value.includes('NAME')")
    fill(b, "#pol-name", "fresh")
    b.click("#pol-save")
    b.until("document.querySelector('#pol-said').innerText.includes('saved, published') && [...document.querySelectorAll('#pol-pick option')].some(o => o.value === 'fresh')")
    assert 'name = "fresh"' in (p.policies / "fresh.lua").read_text()


@needs_browser
def test_saving_is_off_unless_allowed(start, up, page):
    p = start(config(up), policies={"mine.lua": f"-- {KEY}\nreturn {{ name = 'mine', api = 1 }}"})
    b = page(p, "/dashboard#policies")
    b.until("document.querySelector('#pol-list button')")
    b.click("#pol-list button")
    b.until("document.querySelector('#detail').open && document.querySelector('#detail').innerText.includes('masked')")
    b.click("#detail-body button")
    b.until("location.hash === '#playground' && document.querySelector('#pol-text').value.includes('***')")
    assert b.eval("document.querySelector('#pol-save').disabled") and "masked" in shown(b, "#pol-said") and KEY not in b.eval("document.querySelector('#pol-text').value")
    b.eval("(e => { e.value = ''; e.dispatchEvent(new Event('change')) })(document.querySelector('#pol-pick'))")
    b.until("document.querySelector('#pol-said').innerText.includes('admin.allow_policy_write')")
    assert b.eval("document.querySelector('#pol-save').disabled")
