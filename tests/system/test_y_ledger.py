"""Y: the ledger: sums equal the log's and the upstream's, and outlive what happens to the process."""
import csv
import io
import json
import os
import signal
import sqlite3
import threading
import time

import pytest

from client import Raw, ask, chat, eventually, request
from proxy import free_port, run
from wire import Closed

PRICES = {"cost_per_million_input_tokens": 30.0, "cost_per_million_output_tokens": 60.0}


def config(up, **more):
    return {"state": {"path": "spend.db"}, "upstreams": {"u": {"type": "openai", "base_url": up.url(), **PRICES}},
            "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}], **more}


def spend(p, query="", headers=None):
    status, text, _ = p.admin("/spend" + query, headers=headers)
    assert status == 200, text
    return json.loads(text)["rows"]


def whole(p):
    rows = spend(p)
    assert len(rows) <= 1
    return (rows or [{"requests": 0, "cost_usd": 0}])[0]


def test_sums_equal_the_logs(start, up, model):
    p = start(config(up))
    for i in range(12):
        ask(p, chat(model, stream=bool(i % 3 == 0)))
    with Raw(p.port) as c:
        c.send(request(body=b"{"))
        assert c.response().status == 400
    p.wait_request_lines(13)
    lines = p.request_lines()
    row = whole(p)
    assert row["requests"] == 13 and row["failed"] == 1
    assert row["input_tokens"] == sum(line["input_tokens"] or 0 for line in lines)
    assert row["output_tokens"] == sum(line["output_tokens"] or 0 for line in lines)
    assert round(row["cost_usd"] * 1e6) == round(sum(line["cost_usd"] or 0 for line in lines) * 1e6) > 0
    by = spend(p, "?by=route,upstream,model&per=hour")
    assert {(r["route"], r["upstream"], r["model"]) for r in by} == {("r", "u", model), ("", "", "")}
    assert [r["requests"] for r in spend(p, f"?model={model}&by=model")] == [12]
    assert spend(p, "?model=other") == []
    assert p.metric("openclaw_ledger_requests_written_total") == 13


def test_what_was_not_told_is_charged_and_marked(start, up, model):
    p = start(config(up))
    ask(p, chat(model))
    up.on(model, lambda ex: ex.reply({"choices": [{"index": 0, "message": {"role": "assistant", "content": "One two three."}}]}))
    ask(p, chat(model))
    p.wait_request_lines(2)
    lines, row = p.request_lines(), whole(p)
    assert sorted(bool(line.get("usage_estimated")) for line in lines) == [False, True]
    assert row["requests"] == 2 and row["estimated"] == 1
    assert row["output_tokens"] == sum(line["output_tokens"] for line in lines)
    assert round(row["cost_usd"] * 1e6) == round(sum(line["cost_usd"] for line in lines) * 1e6)


def test_csv(start, up, model):
    p = start(config(up))
    ask(p, chat(model))
    p.wait_request_lines(1)
    status, text, headers = p.admin("/spend?by=model&per=day&format=csv")
    assert status == 200 and headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [r["model"] for r in rows] == [model] and rows[0]["requests"] == "1" and rows[0]["begin"].endswith("T00:00:00Z")


@pytest.mark.parametrize("query, word", [("?by=rute", "by is"), ("?from=yesterday", "from is"), ("?per=minute", "per is"), ("?format=xml", "format is"),
                                         ("?model=%zz", "not well-formed"), ("?model=" + "x" * 300, "too long"), ("?colour=red", "/spend knows")])
def test_a_question_that_is_not_understood(start, up, query, word):
    p = start(config(up))
    status, text, _ = p.admin("/spend" + query)
    assert status == 400 and word in json.loads(text)["error"]["message"]


def test_it_is_behind_the_token_and_not_there_unless_wanted(start, up):
    p = start(config(up, admin={"token": "t0ken-of-admin"}))
    assert p.admin("/spend")[0] == 401
    assert spend(p, headers={"Authorization": "Bearer t0ken-of-admin"}) == []
    assert not os.path.exists(p.dir / "openclaw.db")
    q = start({**config(up), "state": {}})
    assert q.admin("/spend")[0] == 404
    q.write_config(config(up))
    q.signal(signal.SIGHUP)
    eventually(lambda: q.admin("/spend")[0] == 200)


def test_a_client_that_leaves_before_its_answer(start, up):
    p = start(config(up))
    for _ in range(50):
        with Raw(p.admin_port) as c:
            c.send(request("GET", "/spend?by=model"))
    assert whole(p)["requests"] == 0


def test_a_file_that_is_no_ledger(tmp_path, up):
    path = tmp_path / "openclaw.yaml"
    path.write_text(json.dumps({**config(up), "server": {"listen_port": free_port()}, "admin": {"listen_port": 0}}))
    (tmp_path / "spend.db").write_text("this is no database\n" * 100)
    done = run("-config", path)
    assert done.returncode == 1 and "state.path: cannot open the ledger" in done.stderr and "file is not a database" in done.stderr


def die(p):
    """kill -9, and everything a start after it needs."""
    p.process.kill()
    p.process.wait()
    for t in p.readers:
        t.join(5)
    p.process.stdout.close()
    p.process.stderr.close()
    p.process = None
    del p.odd_lines[-1:]        # the kill may cut the line that was being written


@pytest.mark.timeout(120)
def test_killed_in_mid_load(start, upstreams):
    """Ten times: what is in the file is never more than the upstream answered, and never less than what clients had a moment before."""
    up = upstreams()
    p = start(config(up, retry={"attempts": 1}))
    cost = None
    sure_before = most_before = lag = 0
    for turn in range(10):
        mark, times, lock, stop = up.mark(), [], threading.Lock(), threading.Event()

        def load():
            try:
                with Raw(p.port) as c:
                    while not stop.is_set():
                        m = c.send(request(body=json.dumps(chat("m")).encode())).response()
                        assert m.status == 200
                        with lock:
                            times.append((time.monotonic(), float(m.get("x-openclaw-cost-usd"))))
            except (OSError, AssertionError, ValueError, Closed):
                pass                # the proxy is gone

        threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
        for t in threads:
            t.start()
        eventually(lambda: len(times) > 150 + 20 * turn, timeout=20)
        killed = time.monotonic()
        die(p)
        stop.set()
        for t in threads:
            t.join(10)
        cost = times[0][1]
        moment = 0.1 + 0.15 * p.slow        # 100 ms are the bound; the rest is this machine's
        sure = len([t for t, _ in times if t < killed - moment])
        most = len(up.since(mark))
        with sqlite3.connect(p.dir / "spend.db") as db:
            got = db.execute("SELECT coalesce(sum(requests), 0), coalesce(sum(cost_micros), 0) FROM hours").fetchone()
        assert sure_before + sure <= got[0] <= most_before + most, (turn, sure, most)
        lost = max(0, sure_before + len(times) - got[0])       # the newest of those that clients had
        lag = max(lag, killed - times[-lost][0] if lost else 0)
        assert got[1] == got[0] * round(cost * 1e6)
        sure_before, most_before = got[0], got[0]
        p.start()
        assert whole(p)["requests"] == got[0]
    print(f"the oldest answer that was not in the file came {max(lag, 0) * 1000:.0f} ms before the end")
