"""G: hostile and malformed requests. For each: the status, that the connection is closed when framing can no longer be
trusted, and that nothing but proper requests reached the upstream. From RFC 9110, 9112, 8259."""
import json

import pytest

from client import Raw, ask, chat, request
from wire import Closed, Cut

BODY = json.dumps(chat("hostile"), separators=(",", ":")).encode()
N = str(len(BODY)).encode()
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: proxy.test\r\n"
TYPE = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: " + N + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def post(*fields, line=LINE, host=HOST, body=BODY):
    return line + host + TYPE + b"".join(fields) + b"\r\n" + body


def sized(*fields, **how):
    return post(*fields, LENGTH, **how)


def chunked(body, *fields):
    return post(CHUNKED, *fields, body=body)


ALSO_SMUGGLE = b"0\r\n\r\n" + SMUGGLED

# label -> (bytes, statuses). The connection must be closed behind each of them.
REFUSED = {
    # -- framing: content-length
    "two equal lengths": (post(LENGTH, LENGTH), 400),
    "two different lengths": (post(LENGTH, b"Content-Length: 3\r\n"), 400),
    "two lengths in one field": (post(b"Content-Length: " + N + b", " + N + b"\r\n"), 400),
    "signed length +": (post(b"Content-Length: +" + N + b"\r\n"), 400),
    "signed length -": (post(b"Content-Length: -" + N + b"\r\n"), 400),
    "negative zero length": (post(b"Content-Length: -0\r\n", body=b""), 400),
    "hexadecimal length": (post(b"Content-Length: 0x10\r\n"), 400),
    "length with a letter": (post(b"Content-Length: " + N + b"a\r\n"), 400),
    "length with a space inside": (post(b"Content-Length: 1 0\r\n"), 400),
    "length with an underscore": (post(b"Content-Length: 1_0\r\n"), 400),
    "length with a point": (post(b"Content-Length: 10.0\r\n"), 400),
    "length with an exponent": (post(b"Content-Length: 1e1\r\n"), 400),
    "empty length": (post(b"Content-Length: \r\n"), 400),
    "no digits at all": (post(b"Content-Length: abc\r\n"), 400),
    "length above 2^63": (post(b"Content-Length: 9223372036854775808\r\n"), (400, 413)),
    "length above 2^64": (post(b"Content-Length: 18446744073709551617\r\n"), (400, 413)),
    "length of 100 digits": (post(b"Content-Length: " + b"1" * 100 + b"\r\n"), (400, 413)),
    "length with a form feed": (post(b"Content-Length: \x0c" + N + b"\r\n"), 400),
    "length with a vertical tab": (post(b"Content-Length: \x0b" + N + b"\r\n"), 400),
    "length in quotes": (post(b'Content-Length: "' + N + b'"\r\n'), 400),
    "length in other digits": (post("Content-Length: \u0661\u0662\r\n".encode()), 400),
    "folded length": (post(b"Content-Length:\r\n " + N + b"\r\n"), 400),
    "space before the length's colon": (post(b"Content-Length : " + N + b"\r\n"), 400),
    "tab before the length's colon": (post(b"Content-Length\t: " + N + b"\r\n"), 400),
    "NUL in the length's name": (post(b"Content-Length\0: " + N + b"\r\n"), 400),
    # -- framing: transfer-encoding
    "length and chunked": (post(LENGTH, CHUNKED, body=CHUNKS), 400),
    "chunked and length": (post(CHUNKED, LENGTH, body=CHUNKS), 400),
    "chunked and length 0, smuggling": (post(CHUNKED, b"Content-Length: 0\r\n", body=ALSO_SMUGGLE), 400),
    "length 5 and chunked, smuggling": (post(b"Content-Length: 5\r\n", CHUNKED, body=ALSO_SMUGGLE), 400),
    "chunked twice": (post(CHUNKED, CHUNKED, body=CHUNKS), (400, 501)),
    "chunked, chunked": (post(b"Transfer-Encoding: chunked, chunked\r\n", body=CHUNKS), (400, 501)),
    "cow": (post(b"Transfer-Encoding: cow\r\n", body=CHUNKS), (400, 501)),
    "chunked, cow": (post(b"Transfer-Encoding: chunked, cow\r\n", body=CHUNKS), (400, 501)),
    "cow, chunked": (post(b"Transfer-Encoding: cow, chunked\r\n", body=CHUNKS), (400, 501)),
    "gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKS), (400, 501)),
    "identity": (post(b"Transfer-Encoding: identity\r\n", body=CHUNKS), (400, 501)),
    "identity and a length": (post(b"Transfer-Encoding: identity\r\n", LENGTH), (400, 501)),
    "xchunked": (post(b"Transfer-Encoding: xchunked\r\n", body=CHUNKS), (400, 501)),
    "chunkedx": (post(b"Transfer-Encoding: chunkedx\r\n", body=CHUNKS), (400, 501)),
    "quoted chunked": (post(b'Transfer-Encoding: "chunked"\r\n', body=CHUNKS), (400, 501)),
    "chunked with a parameter": (post(b"Transfer-Encoding: chunked;q=1\r\n", body=CHUNKS), (400, 501)),
    "chunked behind a vertical tab": (post(b"Transfer-Encoding: \x0bchunked\r\n", body=CHUNKS), (400, 501)),
    "chunked before a NUL": (post(b"Transfer-Encoding: chunked\0\r\n", body=CHUNKS), (400, 501)),
    "chunked behind a comma": (post(b"Transfer-Encoding: , chunked\r\n", body=CHUNKS), (400, 501)),
    "empty coding": (post(b"Transfer-Encoding: \r\n", LENGTH), (400, 501)),
    "folded chunked": (post(b"Transfer-Encoding:\r\n chunked\r\n", body=CHUNKS), 400),
    "space before the coding's colon": (post(b"Transfer-Encoding : chunked\r\n", body=CHUNKS), 400),
    "space before the coding's name": (post(b" Transfer-Encoding: chunked\r\n", body=CHUNKS), 400),
    "coding behind a bare LF": (post(b"X-A: b\nTransfer-Encoding: chunked\r\n", body=CHUNKS), 400),
    "coding behind a bare CR": (post(b"X-A: b\rTransfer-Encoding: chunked\r\n", body=CHUNKS), 400),
    "chunked in HTTP/1.0": (post(CHUNKED, line=LINE.replace(b"1.1", b"1.0"), body=CHUNKS), 400),
    "chunked and length in HTTP/1.0": (post(CHUNKED, LENGTH, line=LINE.replace(b"1.1", b"1.0"), body=CHUNKS), 400),
    # -- chunks
    "chunk size 0x": (chunked(b"0x1\r\na\r\n0\r\n\r\n"), 400),
    "chunk size signed": (chunked(b"+1\r\na\r\n0\r\n\r\n"), 400),
    "chunk size negative": (chunked(b"-1\r\na\r\n0\r\n\r\n"), 400),
    "chunk size empty": (chunked(b"\r\na\r\n0\r\n\r\n"), 400),
    "chunk size not hex": (chunked(b"g\r\na\r\n0\r\n\r\n"), 400),
    "chunk size with a space before": (chunked(b" 1\r\na\r\n0\r\n\r\n"), 400),
    "chunk size above 2^64": (chunked(b"10000000000000000\r\na\r\n0\r\n\r\n"), (400, 413)),
    "chunk size of 2^64 - 1": (chunked(b"ffffffffffffffff\r\na\r\n0\r\n\r\n"), (400, 413)),
    "chunk size of many digits": (chunked(b"0" * 5000 + b"1\r\na\r\n0\r\n\r\n"), (400, 413, 431)),
    "chunk longer than its size": (chunked(b"1\r\nab\r\n0\r\n\r\n"), 400),
    "chunk without CRLF": (chunked(b"1\r\na0\r\n\r\n"), 400),
    "chunk ended by LF": (chunked(b"1\r\na\n0\r\n\r\n"), 400),
    "chunk size ended by LF": (chunked(b"1\na\r\n0\r\n\r\n"), 400),
    "chunk size ended by CR": (chunked(b"1\ra\r\n0\r\n\r\n"), 400),
    "chunk size in other digits": (chunked("\u0661\r\na\r\n0\r\n\r\n".encode()), 400),
    "extension without end": (chunked(b"1;" + b"a" * 100000 + b"\r\na\r\n0\r\n\r\n"), (400, 413, 431)),
    "NUL in an extension": (chunked(b"1;a=\0\r\na\r\n0\r\n\r\n"), 400),
    "LF in an extension": (chunked(b"1;a\nb\r\na\r\n0\r\n\r\n"), 400),
    "last chunk ended by LF": (chunked(CHUNKS[:-5] + b"0\n\n"), 400),
    "trailer without colon": (chunked(CHUNKS[:-2] + b"nonsense\r\n\r\n"), 400),
    "trailer with a bare LF": (chunked(CHUNKS[:-2] + b"a: b\n\r\n\r\n"), 400),
    "trailer too large": (chunked(CHUNKS[:-2] + b"a: " + b"b" * 100000 + b"\r\n\r\n"), (400, 413, 431)),
    "trailers too many": (chunked(CHUNKS[:-2] + b"a: b\r\n" * 20000 + b"\r\n"), (400, 413, 431)),
    # -- line ends
    "LF everywhere": (sized().replace(b"\r\n", b"\n"), 400),
    "LF behind the request line": (sized(line=LINE[:-2] + b"\n"), 400),
    "LF behind a field": (sized(b"X-A: b\n"), 400),
    "CR behind a field": (sized(b"X-A: b\rX-B: c\r\n"), 400),
    "CR in a value": (sized(b"X-A: b\rc\r\n"), 400),
    "CR in a name": (sized(b"X\r-A: b\r\n"), 400),
    "CR CR LF": (sized(b"X-A: b\r\r\n"), 400),
    "empty line of LF": (LINE + HOST + LENGTH + b"\n" + BODY, 400),
    "empty line of CR": (LINE + HOST + LENGTH + b"\rX" + BODY, 400),
    "CR LF CR X": (LINE + HOST + LENGTH + b"X: y\r\n\rZ", 400),
    # -- fields
    "obs-fold": (sized(b"X-A: b\r\n c\r\n"), 400),
    "obs-fold with a tab": (sized(b"X-A: b\r\n\tc\r\n"), 400),
    "first field folded": (LINE + b" X-A: b\r\n" + HOST + LENGTH + b"\r\n" + BODY, 400),
    "space before a colon": (sized(b"X-A : b\r\n"), 400),
    "no colon": (sized(b"nonsense\r\n"), 400),
    "empty name": (sized(b": b\r\n"), 400),
    "space in a name": (sized(b"X A: b\r\n"), 400),
    "NUL in a name": (sized(b"X\0A: b\r\n"), 400),
    "NUL in a value": (sized(b"X-A: b\0c\r\n"), 400),
    "DEL in a name": (sized(b"X\x7fA: b\r\n"), 400),
    "8-bit name": (sized(b"X\xc3\xa9: b\r\n"), 400),
    "parentheses in a name": (sized(b"X(A): b\r\n"), 400),
    "slash in a name": (sized(b"X/A: b\r\n"), 400),
    "control in a value": (sized(b"X-A: b\x01c\r\n"), 400),
    "escape in a value": (sized(b"X-A: \x1b[31m\r\n"), 400),
    "DEL in a value": (sized(b"X-A: b\x7f\r\n"), 400),
    # -- hosts
    "no Host": (sized(host=b""), 400),
    "two Hosts": (sized(host=HOST + b"Host: other.test\r\n"), 400),
    "two equal Hosts": (sized(host=HOST + HOST), 400),
    "Host with a space": (sized(host=b"Host: a b\r\n"), 400),
    "Host with a slash": (sized(host=b"Host: a/b\r\n"), 400),
    "Host with a user": (sized(host=b"Host: user@a\r\n"), 400),
    "Host with a query": (sized(host=b"Host: a?b\r\n"), 400),
    "Host with a fragment": (sized(host=b"Host: a#b\r\n"), 400),
    "Host with a comma": (sized(host=b"Host: a, b\r\n"), 400),
    "Host with a bad port": (sized(host=b"Host: a:b\r\n"), 400),
    "Host with a port too high": (sized(host=b"Host: a:65536\r\n"), 400),
    "Host with an open bracket": (sized(host=b"Host: [::1\r\n"), 400),
    "Host with a backslash": (sized(host=b"Host: a\\b\r\n"), 400),
    "Host with a space before the colon": (sized(host=b"Host : a\r\n"), 400),
    # -- request lines
    "HTTP/0.9": (b"GET /v1/models\r\n\r\n", (400, 505)),
    "HTTP/2.0": (sized(line=LINE.replace(b"1.1", b"2.0")), (400, 505)),
    "HTTP/1.2": (sized(line=LINE.replace(b"1.1", b"1.2")), (400, 505)),
    "HTTP/1.10": (sized(line=LINE.replace(b"1.1", b"1.10")), (400, 505)),
    "HTTP/01.1": (sized(line=LINE.replace(b"1.1", b"01.1")), (400, 505)),
    "HTTP/3.0": (sized(line=LINE.replace(b"1.1", b"3.0")), (400, 505)),
    "http/1.1": (sized(line=LINE.replace(b"HTTP", b"http")), (400, 505)),
    "HTTP /1.1": (sized(line=LINE.replace(b"HTTP/", b"HTTP /")), (400, 505)),
    "HTTP/1,1": (sized(line=LINE.replace(b"1.1", b"1,1")), (400, 505)),
    "RTSP": (sized(line=LINE.replace(b"HTTP/1.1", b"RTSP/1.0")), (400, 505)),
    "no target": (sized(line=b"POST HTTP/1.1\r\n"), (400, 405)),
    "empty target": (sized(line=b"POST  HTTP/1.1\r\n"), 400),
    "target without slash": (sized(line=b"POST v1/chat/completions HTTP/1.1\r\n"), 400),
    "space in the target": (sized(line=b"POST /v1/chat completions HTTP/1.1\r\n"), 400),
    "NUL in the target": (sized(line=b"POST /v1/chat\0/completions HTTP/1.1\r\n"), 400),
    "control in the target": (sized(line=b"POST /v1/chat\x01completions HTTP/1.1\r\n"), 400),
    "tab in the target": (sized(line=b"POST /v1/chat\tcompletions HTTP/1.1\r\n"), 400),
    "bare CR in the target": (sized(line=b"POST /v1/chat\rcompletions HTTP/1.1\r\n"), 400),
    "fragment in the target": (sized(line=b"POST /v1/chat/completions#x HTTP/1.1\r\n"), 400),
    "asterisk": (sized(line=b"OPTIONS * HTTP/1.1\r\n"), (400, 405, 501)),
    "asterisk with POST": (sized(line=b"POST * HTTP/1.1\r\n"), (400, 405)),
    "authority-form": (sized(line=b"POST example.com:80 HTTP/1.1\r\n"), 400),
    "absolute-form of another scheme": (sized(line=b"POST ftp://a/v1/chat/completions HTTP/1.1\r\n"), 400),
    "absolute-form with a user": (sized(line=b"POST http://u:p@proxy.test/v1/chat/completions HTTP/1.1\r\n"), 400),
    "absolute-form without a host": (sized(line=b"POST http:///v1/chat/completions HTTP/1.1\r\n"), 400),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", (400, 405, 501)),
    "TRACE": (b"TRACE /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", (400, 405, 501)),
    "method in lower case": (sized(line=LINE.replace(b"POST", b"post")), (400, 405, 501)),
    "method with a space before": (b" " + sized(), 400),
    "method of nonsense": (sized(line=LINE.replace(b"POST", b"P@ST")), (400, 405, 501)),
    "method without end": (b"A" * 100000, (400, 405, 414, 431, 501)),
    "two spaces": (sized(line=b"POST  /v1/chat/completions HTTP/1.1\r\n"), 400),
    "tab between": (sized(line=b"POST\t/v1/chat/completions\tHTTP/1.1\r\n"), 400),
    "space behind": (sized(line=b"POST /v1/chat/completions HTTP/1.1 \r\n"), (400, 505)),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 405, 505)),
    "an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (400, 405, 505)),
    "JSON": (b'{"model":"x"}\r\n\r\n', 400),
    "only NULs": (b"\0" * 1000, 400),
    # -- limits
    "target too long": (sized(line=b"POST /v1/" + b"a" * 20000 + b" HTTP/1.1\r\n"), 414),
    "target longer than a head": (sized(line=b"POST /v1/" + b"a" * 200000 + b" HTTP/1.1\r\n"), 414),
    "one field too long": (sized(b"X-A: " + b"a" * 40000 + b"\r\n"), 431),
    "one name too long": (sized(b"X-" + b"a" * 40000 + b": b\r\n"), 431),
    "too many fields": (sized(b"X-A: b\r\n" * 1000), 431),
    "head too large in all": (sized(*[b"X-%d: " % i + b"a" * 1000 + b"\r\n" for i in range(50)]), 431),
    "length over the limit": (post(b"Content-Length: 2000000\r\n", body=b""), 413),
    "chunks over the limit": (chunked((b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 40 + b"0\r\n\r\n"), 413),
    # -- expectations
    "an expectation unknown": (sized(b"Expect: 200-ok\r\n"), (400, 417)),
}


@pytest.fixture(scope="module")
def strict(up):
    from proxy import Proxy
    p = Proxy({"server": {"max_body_mb": 1}, "upstreams": {"u": {"type": "openai", "base_url": up.url()}},
               "routes": [{"id": "r", "match": {"path": "/v1/*"}, "strategy": {"type": "failover", "upstreams": ["u"]}}]})
    yield p
    p.stop()


def canary(p, up, mark, model):
    """A proper request behind the case: it is served, and it is the only one that came through."""
    assert ask(p, chat(model)).status == 200
    assert [e.body.get("model") if isinstance(e.body, dict) else e.request.target for e in up.since(mark)] == [model]


@pytest.mark.parametrize("label", REFUSED)
def test_refused(strict, up, model, label):
    data, statuses = REFUSED[label]
    mark = up.mark()
    with Raw(strict.port, timeout=5 * strict.slow) as c:
        # what a smuggler would send behind it on the same connection
        c.send_leniently(data + (SMUGGLED if not data.startswith(b"A" * 100) else b"") + b"\r\n" * 2)
        answer = c.response()
        assert answer.status in (statuses if isinstance(statuses, tuple) else (statuses,)), f"{answer.status} {answer.text}"
        assert answer.get("connection") == "close"
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
        c.send_leniently(request(body=chat("after-the-refusal")))
        how, stray = c.ended()
        assert stray == b"", "no second answer"
    canary(strict, up, mark, model)


@pytest.mark.parametrize("label", ["two different lengths", "length and chunked", "obs-fold", "LF everywhere", "no Host", "one field too long", "cow, chunked"])
def test_refused_byte_by_byte(strict, up, model, label):
    data, statuses = REFUSED[label]
    mark = up.mark()
    with Raw(strict.port, timeout=5 * strict.slow) as c:
        for i in range(0, len(data), max(1, len(data) // 400)):
            c.send_leniently(data[i:i + max(1, len(data) // 400)])
        answer = c.response()
        assert answer.status in (statuses if isinstance(statuses, tuple) else (statuses,))
        assert c.ended()[1] == b""
    canary(strict, up, mark, model)


@pytest.mark.parametrize("label", ["two different lengths", "length and chunked", "no Host", "obs-fold", "chunk size signed", "HTTP/2.0"])
def test_refused_behind_a_good_one(strict, up, model, label):
    """Pipelined behind a proper request: that one is answered, then the refusal, then the end."""
    data, statuses = REFUSED[label]
    with Raw(strict.port, timeout=5 * strict.slow) as c:
        c.send_leniently(request(body=chat(model)) + data + SMUGGLED)
        assert c.response().status == 200
        assert c.response().status in (statuses if isinstance(statuses, tuple) else (statuses,))
        assert c.ended()[1] == b""
    assert len(up.seen(model)) == 1


# label -> (bytes, what reaches the upstream)
ACCEPTED = {
    "empty lines before the request": b"\r\n\r\n" + sized(),
    "names in any case": sized().replace(b"Content-Length", b"cOnTeNt-LeNgTh").replace(b"Host", b"HOST"),
    "no space behind the colon": sized().replace(b": ", b":"),
    "tabs around a value": sized(b"X-A:\t b \t\r\n"),
    "empty value": sized(b"X-A:\r\n"),
    "8-bit value": sized(b"X-A: \xc3\xa9\xff\r\n"),
    "leading zeros of the length": post(b"Content-Length: 000" + N + b"\r\n"),
    "chunked in any case": post(b"tRANSFER-eNCODING: ChUnKeD\r\n", body=CHUNKS),
    "chunk extension": chunked(CHUNKS.replace(b"\r\n", b';a="b c";d\r\n', 1)),
    "chunk size with zeros": chunked(b"000" + CHUNKS),
    "upper-case chunk size": chunked(CHUNKS.upper()[:2] + CHUNKS[2:]),
    "trailers": chunked(CHUNKS[:-2] + b"Content-Length: 5\r\nX-T: 1\r\n\r\n"),
    "Host with a port": sized(host=b"Host: proxy.test:8080\r\n"),
    "Host of IPv6": sized(host=b"Host: [::1]:8080\r\n"),
    "Host of IPv4": sized(host=b"Host: 127.0.0.1\r\n"),
    "99 fields or fewer": sized(b"X-A: b\r\n" * 80),
    "long but allowed": sized(b"X-A: " + b"a" * 20000 + b"\r\n"),
    "Upgrade is ignored": sized(b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
    "a body on GET": post(LENGTH, line=b"GET /v1/chat/completions HTTP/1.1\r\n"),
    "percent-encoded path": sized(line=b"POST /v1/chat/completions?a=%2e%2e%2f HTTP/1.1\r\n"),
    "Connection names content-length": sized(b"Connection: content-length, host, transfer-encoding\r\n"),
    "Connection names authorization": sized(b"Connection: authorization\r\n"),
}


@pytest.mark.parametrize("label", ACCEPTED)
def test_accepted_and_forwarded_properly(strict, up, label):
    """Legal though odd: served, and what goes on is proper (the strict upstream sees to that) and carries one framing."""
    mark = up.mark()
    with Raw(strict.port, timeout=5 * strict.slow) as c:
        answer = c.send(ACCEPTED[label]).response()
        assert answer.status == 200, answer.text
        answer = c.send(request(body=chat("behind"))).response()   # in step: the next request is read where it begins
        assert answer.status == 200
    first, second = [e.request for e in up.since(mark)]
    assert bytes(first.body) == BODY and b"behind" in second.body
    assert first.all("host") == [f"127.0.0.1:{up.port}"]
    assert first.get("x-t") is None


@pytest.mark.parametrize("path", ["/v1/../admin", "/v1/%2e%2e/admin", "/v1//chat/completions", "/v1/./chat/completions", "/v1/..%2fadmin", "/v1/..;/x", "/V1/chat/completions"])
def test_odd_paths_choose_no_other_peer(strict, up, path):
    """Whatever a path looks like, the request stays below base_url or is refused (S4)."""
    mark = up.mark()
    answer = ask(strict, chat("odd-path"), path=path)
    assert answer.status in (200, 400, 404)
    for e in up.since(mark):
        target = e.request.target
        assert target.startswith("/v1/") and "/../" not in target


@pytest.mark.parametrize("path", ["/v1/..", "/v1/%2E%2e", "/v1/.%2e/x", "/v1/..%2fx", "/v1/x%2F..", "/v1/..\\x", "/v1/x%5c%2e%2E%5Cy", "/v1/..;/x", "/v1/..;a=b/x", "/v1/..%3b/x", "/v1/.;/x"])
def test_dot_segments_are_refused_however_they_are_spelled(strict, up, path):
    """An upstream that decodes once more, or takes `\\` for `/`, would leave base_url with our key."""
    mark = up.mark()
    assert ask(strict, chat("dots"), path=path).status == 400 and up.since(mark) == []


@pytest.mark.parametrize("path", ["/v1/...", "/v1/.x", "/v1/x..", "/v1/..x", "/v1/x%2fy", "/v1/a;b/c", "/v1/x%2ey", "/v1/m-1.5:go", "/v1/x?y=/../z", "/v1/%2e%2e%2", "/v1/%"])
def test_other_dots_go_on(strict, up, path):
    mark = up.mark()
    assert ask(strict, chat("dots"), path=path).status == 200 and [e.request.target for e in up.since(mark)] == [path]


@pytest.mark.parametrize("headers", [[("X-Forwarded-Host", "evil.test")], [("X-Forwarded-For", "10.0.0.1"), ("X-Real-IP", "10.0.0.1")], [("Forwarded", "for=10.0.0.1;host=evil.test")],
                                     [("X-Original-URL", "/admin"), ("X-Rewrite-URL", "/admin")], [("X-HTTP-Method-Override", "DELETE")]])
def test_headers_choose_no_peer(strict, up, model, headers):
    answer = ask(strict, chat(model), headers=headers)
    assert answer.status == 200
    got = up.seen(model)[0].request
    assert got.target == "/v1/chat/completions" and got.method == "POST"
    assert strict.request_line(answer)["client"] == "127.0.0.1"


def deep(n, opening=b"[", closing=b"]"):
    return b'{"model":"deep","x":' + opening * n + closing * n + b"}"


# label -> body: 400 with a position
BAD_JSON = {
    "empty": b"", "cut": b'{"model":"x"', "two values": b"{} {}", "trailing comma": b'{"model":"x",}', "single quotes": b"{'model':'x'}",
    "comment": b'{"model":"x"/**/}', "NaN": b'{"model":"x","a":NaN}', "Infinity": b'{"model":"x","a":Infinity}', "hex": b'{"model":"x","a":0x1}',
    "leading zero": b'{"model":"x","a":01}', "plus": b'{"model":"x","a":+1}', "bare point": b'{"model":"x","a":1.}', "point first": b'{"model":"x","a":.5}',
    "bare exponent": b'{"model":"x","a":1e}', "TRUE": b'{"model":"x","a":TRUE}', "unquoted key": b'{model:"x"}', "no colon": b'{"model" "x"}',
    "control in a string": b'{"model":"x\x01"}', "newline in a string": b'{"model":"x\n"}', "NUL in a string": b'{"model":"x\0"}', "NUL behind": b'{"model":"x"}\0',
    "bad escape": b'{"model":"\\x41"}', "short unicode escape": b'{"model":"\\u12"}', "bad UTF-8": b'{"model":"\xff"}', "overlong UTF-8": b'{"model":"\xc0\xaf"}',
    "surrogate as UTF-8": b'{"model":"\xed\xa0\x80"}', "UTF-8 cut": b'{"model":"\xe2\x82"}', "beyond unicode": b'{"model":"\xf4\x90\x80\x80"}', "UTF-16": '{"model":"x"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"model":"x"}', "only a brace": b"{", "closing brace": b"}", "mismatched": b'{"model":["x"}]', "open string": b'{"model":"x',
    "deep arrays": deep(513), "deep objects": deep(513, b'{"a":', b"}").replace(b":}", b":1}", 1), "very deep": deep(400000), "deep and unclosed": b"[" * 1000000,
    "form data": b"model=x&messages=y", "text": b"hello", "white space": b"   \r\n",
}


@pytest.mark.parametrize("label", BAD_JSON)
def test_bad_json(strict, up, model, label):
    mark = up.mark()
    with Raw(strict.port, timeout=5 * strict.slow) as c:
        answer = c.send(request(body=BAD_JSON[label])).response()
        assert answer.status == 400, answer.text
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error" and error["code"]
        if BAD_JSON[label].strip():
            assert any(ch.isdigit() for ch in error["message"]), f"no position in: {error['message']}"
        # the framing was sound: the connection goes on
        assert c.send(request(body=chat(model))).response().status == 200
    assert len(up.since(mark)) == 1


@pytest.mark.parametrize("body", [b'{"model":"a","model":"b","messages":[]}', b'{"model":"a","messages":[],"model":"a"}', b'{"model":"a","mod\\u0065l":"b"}',
                                  b'{"model":"a","\\u006d\\u006f\\u0064\\u0065\\u006c":"a"}'])
def test_duplicate_model(strict, up, body):
    mark = up.mark()
    answer = ask(strict, body)
    assert answer.status == 400 and "model" in answer.json()["error"]["message"]
    assert up.since(mark) == []


def test_duplicate_stream(strict, up):
    mark = up.mark()
    assert ask(strict, b'{"model":"a","stream":true,"stream":false}').status == 400
    assert up.since(mark) == []


GOOD_JSON = {
    "depth 500": deep(500), "escapes": b'{"model":"\\u0064eep","a":"\\ud83d\\ude00\\/\\b"}', "numbers": b'{"model":"deep","a":[-0,1e999,1E+2,0.0,123456789012345678901234567890]}',
    "white space": b' \t\r\n{ "model" : "deep" , "x" : [ ] , "y" : { } }\r\n ', "empty keys": b'{"model":"deep","":"","a":{"":{}}}', "other duplicates": b'{"model":"deep","a":1,"a":2}',
    "nested model": b'{"model":"deep","a":{"model":"x","stream":true}}', "long string": b'{"model":"deep","a":"' + b"x" * 500000 + b'"}', "many keys": b'{"model":"deep"' + b"".join(b',"k%d":%d' % (i, i) for i in range(20000)) + b"}",
    "escaped model key": b'{"mod\\u0065l":"deep"}', "lone surrogate escape": None,
}


@pytest.mark.parametrize("label", [k for k, v in GOOD_JSON.items() if v])
def test_good_json_goes_on_byte_for_byte(strict, up, label):
    mark = up.mark()
    answer = ask(strict, GOOD_JSON[label])
    assert answer.status == 200 and answer.get("x-openclaw-model") == "deep"
    assert bytes(up.since(mark)[0].request.body) == GOOD_JSON[label]


@pytest.mark.not_under("slowio", reason="measures time")
def test_work_is_bounded(strict):
    """R10: the worst bodies under the limit cost no more than a moment."""
    import time
    for body in (b'{"model":"x","a":"' + b"\\u0041" * 150000 + b'"}', b'{"model":"x","a":[' + b"1," * 400000 + b"1]}", b'{"model":"x"' + b',"a":{}' * 100000 + b"}",
                 b"[" * 1000000, b'{"a":"' + b'\\"' * 400000):
        started = time.monotonic()
        ask(strict, body)
        assert time.monotonic() - started < 1 * strict.slow


@pytest.mark.not_under("slowio", reason="moves 8 MB")
def test_413_is_readable_while_still_sending(strict):
    """The client has sent megabytes already: the refusal must not be lost in a reset (FIN before RST)."""
    body = b"x" * (8 << 20)
    with Raw(strict.port, timeout=10) as c:
        c.send_leniently(LINE + HOST + TYPE + b"Content-Length: %d\r\n\r\n" % len(body))
        import threading
        t = threading.Thread(target=c.send_leniently, args=(body[:1 << 20],), daemon=True)
        t.start()
        answer = c.response()
        assert answer.status == 413 and answer.json()["error"]["message"]
        t.join(5)


def test_413_before_continue(strict):
    with Raw(strict.port) as c:
        answer = c.send(LINE + HOST + TYPE + b"Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n").response()
        assert answer.status == 413 and answer.interim == [] and c.ended()[1] == b""


def test_refusals_are_logged_and_counted(strict):
    before = strict.metric("openclaw_requests_total", status="400")
    with Raw(strict.port) as c:
        answer = c.send(REFUSED["no Host"][0]).response()
    line = strict.request_line(answer)
    assert line["status"] == 400 and line["error"]
    strict.wait_metric("openclaw_requests_total", lambda v: v == before + 1, status="400")


def test_header_injection_into_answers(proxy, model):
    """What comes from a client and stands in an answer's head cannot break it."""
    for evil in ("a\r\nx-evil: 1", "a\nx-evil: 1", "a\u0000b", "\u00e9" * 500, "x" * 5000):
        try:
            answer = ask(proxy, chat(evil))
        except (Cut, Closed) as e:
            pytest.fail(f"{evil[:20]!r}: {e}")
        assert answer.get("x-evil") is None and answer.status in (200, 400, 404)
