"""A redis-server of a test's own: on a free port, in a folder of its own, keeping nothing."""
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from proxy import free_port


class Redis:
    def __init__(self, password=None):
        self.port, self.password, self.process = free_port(), password, None
        self.dir = tempfile.mkdtemp(prefix="claw-redis-")
        self.start()

    def start(self):
        args = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--dir", self.dir]
        if self.password:
            args += ["--requirepass", self.password]
        self.process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                if self.ask("PING") == b"+PONG\r\n":
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def ask(self, *words):
        """The first piece of a raw reply; for what has short ones."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
            lines = [f"AUTH {self.password}\r\n"] if self.password else []
            s.sendall("".join(lines + [" ".join(words) + "\r\n"]).encode())
            f = s.makefile("rb")
            if lines:
                f.readline()
            line = f.readline()
            return f.readline() if line[:1] == b"$" and line[1:2] != b"-" else line

    def reply(self, *words):
        """A whole reply: a text, a number, None, or a list of them; an error is raised."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
            f = s.makefile("rb")

            def read():
                line = f.readline()[:-2].decode()
                kind, rest = line[:1], line[1:]
                if kind == "-":
                    raise RuntimeError(rest)
                if kind == ":":
                    return int(rest)
                if kind == "+":
                    return rest
                if int(rest) < 0:
                    return None
                return f.read(int(rest) + 2)[:-2].decode() if kind == "$" else [read() for _ in range(int(rest))]
            if self.password:
                s.sendall(f"AUTH {self.password}\r\n".encode())
                read()
            parts = [str(w).encode() for w in words]
            s.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in parts))
            return read()

    def keys(self):
        return sorted(self.reply("KEYS", "*"))

    def value(self, key):
        """What stands there, whatever it is."""
        kind = self.reply("TYPE", key)
        ask = {"string": ["GET", key], "hash": ["HGETALL", key], "zset": ["ZRANGE", key, 0, -1, "WITHSCORES"]}.get(kind)
        return self.reply(*ask) if ask else None

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def url(self, db=0):
        who = f":{self.password}@" if self.password else ""
        return f"redis://{who}127.0.0.1:{self.port}/{db}"
