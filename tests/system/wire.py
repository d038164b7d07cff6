"""HTTP/1.1 read strictly, on both sides of the proxy.

A lenient reader would hide what these tests look for, so every deviation from RFC 9112 raises Malformed and a
message that ended before its framing said so raises Cut, with what had come.
"""
import re

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.([01])\Z")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)\Z")


class Malformed(Exception):
    pass


class Cut(Exception):
    """The connection ended inside a message. `how`: "fin" or "rst"; `part`: the message as far as it came."""

    def __init__(self, how, part=None):
        super().__init__(f"cut by {how}")
        self.how = how
        self.part = part


class Closed(Exception):
    """The connection ended between messages."""

    def __init__(self, how):
        super().__init__(f"closed by {how}")
        self.how = how


class Message:
    def __init__(self):
        self.method = self.target = self.reason = None
        self.status = None
        self.minor = 1
        self.headers = []          # (lower-case name, value) as str, latin-1
        self.data = bytearray()    # the body so far
        self.chunks = []           # decoded chunks as they were framed
        self.framing = "none"      # none, length, chunked, close
        self.raw = bytearray()     # exactly what came, framing included
        self.complete = False

    @property
    def body(self):
        return bytes(self.data)

    def all(self, name):
        return [v for n, v in self.headers if n == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        import json
        return json.loads(self.body)

    def __repr__(self):
        what = self.status if self.status else f"{self.method} {self.target}"
        return f"<{what} {self.framing} {len(self.data)} bytes{'' if self.complete else ' CUT'}>"


class Reader:
    """Messages out of a socket. Keeps what was read beyond one for the next."""

    def __init__(self, sock):
        self.sock = sock
        self.held = b""
        self.ended = None          # "fin", "rst"

    def _more(self):
        if self.ended:
            return False
        try:
            data = self.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError, ConnectionAbortedError):
            self.ended = "rst"
            return False
        except OSError as e:
            if isinstance(e, TimeoutError) or "timed out" in str(e):
                raise
            # A TLS peer that closes without close_notify cuts the stream: not a clean end.
            self.ended = "rst"
            return False
        if not data:
            self.ended = "fin"
            return False
        self.held += data
        return True

    def _take(self, n, m):
        data, self.held = self.held[:n], self.held[n:]
        m.raw += data
        return data

    def _line(self, m, limit=1 << 17):
        while True:
            at = self.held.find(b"\n")
            if at >= 0:
                line = self._take(at + 1, m)
                if not line.endswith(b"\r\n"):
                    raise Malformed(f"line ends with a bare LF: {line[:80]!r}")
                line = line[:-2]
                if b"\r" in line or b"\0" in line:
                    raise Malformed(f"CR or NUL inside a line: {line[:80]!r}")
                return line
            if len(self.held) > limit:
                raise Malformed("line too long")
            if not self._more():
                self._take(len(self.held), m)
                raise Cut(self.ended, m)

    def _exactly(self, n, m, into):
        while n:
            if not self.held and not self._more():
                raise Cut(self.ended, m)
            part = self._take(min(n, len(self.held)), m)
            into(part)
            n -= len(part)

    def _fields(self, m):
        fields = []
        while True:
            line = self._line(m)
            if not line:
                return fields
            name, colon, value = line.partition(b":")
            if not colon or not TOKEN.match(name):
                raise Malformed(f"not a field line: {line[:80]!r}")
            value = value.strip(b" \t")
            if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value):
                raise Malformed(f"control character in a field value: {line[:80]!r}")
            fields.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def _start(self):
        m = Message()
        if not self.held and not self._more():
            raise Closed(self.ended)
        return m

    def head(self, request=False):
        """One head. For responses interim 1xx answers are returned too."""
        m = self._start()
        line = self._line(m)
        if request:
            found = REQUEST_LINE.match(line)
            if not found:
                raise Malformed(f"not a request line: {line[:120]!r}")
            m.method, m.target = found[1].decode(), found[2].decode("latin-1")
            m.minor = int(found[3])
        else:
            found = STATUS_LINE.match(line)
            if not found:
                raise Malformed(f"not a status line: {line[:120]!r}")
            m.minor, m.status, m.reason = int(found[1]), int(found[2]), found[3].decode("latin-1")
        m.headers = self._fields(m)
        lengths, codings = m.all("content-length"), m.all("transfer-encoding")
        if len(lengths) > 1 or (lengths and not re.fullmatch(r"[0-9]+", lengths[0])):
            raise Malformed(f"content-length: {lengths}")
        if codings and (lengths or codings != ["chunked"] or m.minor == 0):
            raise Malformed(f"transfer-encoding: {codings} content-length: {lengths} HTTP/1.{m.minor}")
        if request:
            if len(m.all("host")) != 1:
                raise Malformed(f"host: {m.all('host')}")
            m.framing = "chunked" if codings else "length" if lengths else "none"
        elif codings:
            m.framing = "chunked"
        elif lengths:
            m.framing = "length"
        else:
            m.framing = "close"
        return m

    def chunk(self, m):
        """The next decoded piece of a body under way; b"" at its end (then m.complete)."""
        if m.complete:
            return b""
        if m.framing == "chunked":
            size = self._line(m)
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", size):
                raise Malformed(f"chunk size: {size[:40]!r}")
            n = int(size, 16)
            if n == 0:
                if self._fields(m):
                    raise Malformed("unexpected trailers")
                m.complete = True
                return b""
            got = bytearray()

            def into(part):
                got.extend(part)
                m.data += part
            self._exactly(n, m, into)
            end = bytearray()
            self._exactly(2, m, end.extend)
            if bytes(end) != b"\r\n":
                raise Malformed(f"chunk end: {bytes(end)!r}")
            m.chunks.append(bytes(got))
            return bytes(got)
        if m.framing == "length":
            left = int(m.get("content-length")) - len(m.data)
            if left == 0:
                m.complete = True
                return b""
            if not self.held and not self._more():
                raise Cut(self.ended, m)
            part = self._take(min(left, len(self.held)), m)
            m.data += part
            m.chunks.append(part)
            return part
        if m.framing == "close":
            if not self.held and not self._more():
                if self.ended != "fin":
                    raise Cut(self.ended, m)
                m.complete = True
                return b""
            part = self._take(len(self.held), m)
            m.data += part
            m.chunks.append(part)
            return part
        m.complete = True
        return b""

    def rest(self, m):
        while self.chunk(m):
            pass
        m.complete = True
        return m

    def request(self):
        return self.rest(self.head(request=True))

    def response(self, to_head=False):
        """A whole final answer; interim ones are skipped (kept in .interim)."""
        interim = []
        while True:
            m = self.head()
            if m.status >= 200:
                break
            interim.append(m)
        m.interim = interim
        if to_head or m.status in (204, 304):
            m.framing = "none"
        return self.rest(m)

    def end(self):
        """Read on to the end of the connection: how it ended, and stray bytes."""
        while self._more():
            pass
        stray, self.held = self.held, b""
        return self.ended, stray


def sse_events(body):
    """The data of each event of a complete-or-not stream, and the bytes of an unfinished event at its end."""
    blocks = re.split(rb"\r\n\r\n|\n\n|\r\r", body)
    rest = blocks.pop()
    events = []
    for block in blocks:
        lines = re.split(rb"\r\n|\n|\r", block)
        data = [re.sub(rb"^data: ?", b"", one) for one in lines if one.startswith(b"data:")]
        if data:
            events.append(b"\n".join(data))
    return events, rest
