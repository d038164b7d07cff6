"""Asks until the canary is out; nobody may notice it."""
import json
import urllib.request

QUESTION = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "Hello!"}]}).encode()


def drive(port, admin_port):
    def attempts():
        ask = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", QUESTION, {"content-type": "application/json"})
        with urllib.request.urlopen(ask, timeout=10) as answer:
            assert json.load(answer)["choices"][0]["message"]["content"] == "You said: Hello!"
            assert answer.headers["x-openclaw-upstream"] == "stable"
            return int(answer.headers["x-openclaw-attempts"])

    # Each request is a toss, so 60 of them reach the canary five times but for one run in a billion. The last failure is
    # counted behind its answer: one more may meet the canary.
    first = [attempts() for _ in range(60)]
    assert 5 <= first.count(2) <= 6, first
    assert [attempts() for _ in range(20)] == [1] * 20
