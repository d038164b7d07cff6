"""The scripted upstream: does exactly what a test says, and keeps every byte it was sent.

A script is a callable taking an Exchange. The server picks it by the request's `model` (or by path where there is
none), so that many tests share one upstream; without a script a plain chat completion (or a stream) is answered.
Run as a program it serves the default scripts in a process of its own, for tests that stop or kill it.
"""
import json
import socket
import ssl
import struct
import sys
import threading
import time

from wire import Closed, Cut, Malformed, Reader

CHAT = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18,
              "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2}},
}


def delta(text, finish=None, **more):
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m",
            "choices": [{"index": 0, "delta": {"content": text} if text is not None else {}, "finish_reason": finish}], **more}


def event(data):
    if not isinstance(data, (str, bytes)):
        data = json.dumps(data, separators=(",", ":"))
    if isinstance(data, str):
        data = data.encode()
    return b"data: " + data + b"\n\n"


def stream_events(n=5, usage=True):
    events = [event(delta(f"tok{i} ")) for i in range(n)] + [event(delta(None, "stop"))]
    if usage:
        events.append(event({**delta(None), "choices": [], "usage": CHAT["usage"]}))
    return events + [b"data: [DONE]\n\n"]


class Exchange:
    """One request and the means to answer it, well or badly."""

    def __init__(self, conn, request):
        self.conn, self.request = conn, request
        self.sock, self.server = conn.sock, conn.server
        self.gone = None           # ("fin" | "rst", monotonic time)
        self.left = threading.Event()
        self.finished = threading.Event()
        self.sent = 0
        self.error = None
        try:
            self.body = json.loads(request.body) if request.data else {}
        except ValueError:
            self.body = {}
        self.model = self.body.get("model") if isinstance(self.body, dict) else None

    # -- sending

    def send(self, data):
        try:
            self.sock.sendall(data)
            self.sent += len(data)
        except OSError as e:
            self._mark("rst")
            raise Closed("rst") from e

    def slowly(self, data):
        """Byte by byte, each a segment of its own."""
        for i in range(len(data)):
            self.send(data[i:i + 1])

    def head(self, status=200, headers=(), reason="Whatever"):
        lines = [f"HTTP/1.1 {status} {reason}"] + [f"{n}: {v}" for n, v in headers]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def chunk(self, data):
        self.send(b"%x\r\n" % len(data) + data + b"\r\n")

    def end(self):
        self.send(b"0\r\n\r\n")

    def reply(self, body=CHAT, status=200, headers=(), type="application/json"):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Whatever", f"content-type: {type}", f"content-length: {len(body)}"]
        lines += [f"{n}: {v}" for n, v in headers]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def stream_head(self, headers=()):
        self.head(200, [("content-type", "text/event-stream"), ("transfer-encoding", "chunked"), *headers], "OK")

    def stream(self, events=None):
        self.stream_head()
        for one in stream_events() if events is None else events:
            self.chunk(one)
        self.end()

    # -- ending

    def close(self):
        self.conn.close()

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        self.conn.reset()

    # -- watching

    def _mark(self, how):
        if not self.gone:
            self.gone = (how, time.monotonic())
            self.left.set()

    def until_gone(self, timeout=20):
        """Send nothing, until the proxy closes this connection. Its time is in .gone."""
        self.sock.settimeout(timeout)
        try:
            while True:
                data = self.sock.recv(65536)
                if not data:
                    self._mark("fin")
                    break
                self.conn.extra += data
        except TimeoutError:
            return None
        except OSError:
            self._mark("rst")
        raise Closed(self.gone[0])


class Connection:
    def __init__(self, server, sock, serial):
        self.server, self.sock, self.serial = server, sock, serial
        self.requests = 0
        self.extra = b""
        self.resumed = None

    def close(self):
        # shutdown first: a plain close would leave the FIN to whoever still holds the descriptor
        try:
            if isinstance(self.sock, ssl.SSLSocket):
                try:
                    self.sock.settimeout(0.5)
                    self.sock = self.sock.unwrap()
                except (OSError, ValueError):
                    pass
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def reset(self):
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        # detach from TLS: SSLSocket.close would not send close_notify either, and the RST must be first
        self.sock.close()


class Upstream:
    """Listens on 127.0.0.1. `tls`: an ssl.SSLContext. `accept`: a callable that gets each bare connection first and
    returns True when it has dealt with it."""

    def __init__(self, tls=None, accept=None, port=0, backlog=512, handshake_seconds=10):
        self.tls, self.on_accept = tls, accept
        self.handshake_seconds = handshake_seconds
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(backlog)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Condition()
        self.scripts = {}
        self.default = default_script
        self.exchanges = []        # all, in order of arrival
        self.aside = []            # those that do not count
        self.malformed = []        # what came and was no proper request
        self.accepted = 0
        self.handshakes = []       # per TLS connection: True when resumed; a text when it failed
        self.conns = set()
        self.closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, prefix="/v1"):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}{prefix}"

    def on(self, model, script):
        self.scripts[model] = script

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.accepted += 1
                serial = self.accepted
                self.lock.notify_all()
            threading.Thread(target=self._serve, args=(sock, serial), daemon=True).start()

    def _serve(self, sock, serial):
        conn = Connection(self, sock, serial)
        self.conns.add(conn)
        try:
            if self.on_accept and self.on_accept(conn):
                return
            if self.tls:
                try:
                    sock.settimeout(self.handshake_seconds)
                    conn.sock = self.tls.wrap_socket(sock, server_side=True)
                    conn.resumed = conn.sock.session_reused
                    self.handshakes.append(bool(conn.resumed))
                except OSError as e:
                    self.handshakes.append(str(e))
                    return
            conn.sock.settimeout(60)
            self._requests(conn)
        finally:
            self.conns.discard(conn)
            conn.close()

    def _requests(self, conn):
        reader = Reader(conn.sock)
        while not self.closing:
            try:
                request = reader.request()
            except Closed:
                return
            except (Cut, TimeoutError):
                return
            except (Malformed, ValueError) as e:
                with self.lock:
                    self.malformed.append((str(e), reader.held[:400]))
                    self.lock.notify_all()
                return
            request.at = time.monotonic()
            conn.requests += 1
            ex = Exchange(conn, request)
            with self.lock:
                (self.exchanges if self.counts(request) else self.aside).append(ex)
                self.lock.notify_all()
            script = self.scripts.get(ex.model if isinstance(ex.model, str) else None) \
                or self.scripts.get(request.target.partition("?")[0]) or self.default
            try:
                script(ex)
            except (Closed, Cut):
                return
            except OSError as e:
                ex.error = e
                return
            except Exception as e:  # a script's own mistake must show in the test, not vanish in a thread
                ex.error = e
                with self.lock:
                    self.malformed.append((f"script failed: {e!r}", b""))
                    self.lock.notify_all()
                return
            finally:
                ex.finished.set()
            if conn.sock.fileno() < 0:
                return
            conn.sock.settimeout(60)

    # -- what tests ask

    def counts(self, request):
        """Is it one of the exchanges? Else it is kept aside."""
        return True

    def wait(self, predicate, timeout=10):
        with self.lock:
            assert self.lock.wait_for(lambda: predicate(self), timeout), \
                f"the upstream did not see it within {timeout} s ({len(self.exchanges)} exchanges)"

    def seen(self, model):
        with self.lock:
            return [e for e in self.exchanges if e.model == model]

    def wait_seen(self, model, n=1, timeout=10):
        self.wait(lambda s: sum(e.model == model for e in s.exchanges) >= n, timeout)
        return self.seen(model)

    def mark(self):
        with self.lock:
            return len(self.exchanges)

    def since(self, mark):
        with self.lock:
            return self.exchanges[mark:]

    def stop(self):
        self.closing = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for conn in list(self.conns):
            try:
                conn.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def default_script(ex):
    path = ex.request.target.partition("?")[0]
    body = ex.body if isinstance(ex.body, dict) else {}
    if ex.request.method == "HEAD":
        return ex.head(200, [("content-type", "application/json"), ("content-length", "42")], "OK")
    if path.endswith("/embeddings"):
        return ex.reply({"object": "list", "model": body.get("model"),
                         "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
                         "usage": {"prompt_tokens": 4, "total_tokens": 4}})
    if path.endswith("/messages"):
        return ex.reply({"id": "msg_1", "type": "message", "role": "assistant", "model": body.get("model"), "stop_reason": "end_turn",
                         "stop_sequence": None, "content": [{"type": "text", "text": "Hello."}],
                         "usage": {"input_tokens": 11, "output_tokens": 7}})
    if path.endswith("/models"):
        return ex.reply({"object": "list", "data": []})
    if body.get("stream") is True:
        return ex.stream()
    return ex.reply({**CHAT, "model": body.get("model", "m")})


def endless(ex):
    """A stream that goes on until told otherwise: 20 events a second."""
    if ex.body.get("model") == "at-head":
        return ex.until_gone(3600)
    ex.stream_head()
    never = threading.Event()
    while True:
        ex.chunk(event(delta("tick ")))
        never.wait(0.05)


def main():
    server = Upstream()
    server.default = endless
    print(server.port, flush=True)
    sys.stdin.read()               # until the test closes our input or kills us


if __name__ == "__main__":
    main()
