"""Raw clients: exact bytes out, strict reading in."""
import json
import select
import socket
import ssl
import struct
import threading
import time

from wire import Reader, sse_events

WAIT = 10


class Raw:
    """One TCP (or TLS) connection to the proxy."""

    def __init__(self, port, timeout=WAIT, tls=None, host="127.0.0.1", rcvbuf=None):
        self.sock = socket.socket()
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname=host)
        self.reader = Reader(self.sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.sock.sendall(data)
        return self

    def send_leniently(self, data):
        """The peer may refuse and close before all is sent."""
        try:
            self.sock.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return self

    def response(self, to_head=False):
        return self.reader.response(to_head)

    def head(self):
        return self.reader.head()

    def chunk(self, m):
        return self.reader.chunk(m)

    def ended(self):
        """How the connection ended and what came before it, from here on."""
        return self.reader.end()

    def quiet(self, seconds):
        """Does nothing come (no byte, no end) for that long?"""
        if self.reader.held:
            return False
        return not select.select([self.sock], [], [], seconds)[0]

    def fin(self):
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()


def request(method="POST", path="/v1/chat/completions", headers=(), body=b"", host="proxy.test", close=False, type="application/json"):
    """The bytes of a well-formed request."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{n}: {v}" for n, v in headers]
    if body or method in ("POST", "PUT", "PATCH"):
        lines += [f"Content-Type: {type}", f"Content-Length: {len(body)}"]
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def chat(model="m", stream=False, **more):
    """A body. A streamed one asks for usage, so that what the upstream says is what the client gets."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}
    if stream:
        body["stream"] = True
        body.setdefault("stream_options", {"include_usage": True})
    return body


def form(*parts, boundary="b"):
    """The bytes of a form (multipart/form-data) of (name, value) and (name, filename, content)."""
    out = b""
    for name, *more in parts:
        file = f'; filename="{more[0]}"\r\nContent-Type: audio/mpeg' if len(more) == 2 else ""
        content = more[-1] if isinstance(more[-1], bytes) else more[-1].encode()
        out += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    return out + f"--{boundary}--\r\n".encode()


def ask(proxy, body=None, **how):
    """One request on a connection of its own; its whole answer."""
    tls = how.pop("tls", None)
    timeout = how.pop("timeout", WAIT * proxy.slow)
    with Raw(proxy.port, timeout=timeout, tls=tls) as c:
        return c.send(request(body=chat() if body is None else body, **how)).response(how.get("method") == "HEAD")


def data_of(message):
    """The decoded data of each event of a streamed answer."""
    events, rest = sse_events(message.body)
    assert rest == b"", f"an event is unfinished: {rest!r}"
    return [e if e == b"[DONE]" else json.loads(e) for e in events]


def in_parallel(n, work):
    """work(i) in n threads; their results, or the first exception."""
    results, failed = [None] * n, []

    def one(i):
        try:
            results[i] = work(i)
        except BaseException as e:
            failed.append(e)
    threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]
    return results


def client_tls(ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca:
        context.load_verify_locations(ca)
    return context


def eventually(check, timeout=5, every=0.02):
    """For state that only polling shows (metrics, /proc): the first true value of check(). None in time is a failure."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() <= end, f"not within {timeout} s"
        threading.Event().wait(every)
