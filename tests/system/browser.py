"""A headless Chromium, driven over its DevTools protocol through a pipe: no driver, no other package."""
import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time

BINARY = next((b for b in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if b), None)


class Browser:
    """One tab. `seen`: what the console and the engine complained of, and every address that was asked for."""

    def __init__(self, slow=1):
        self.slow = slow
        self.dir = tempfile.mkdtemp(prefix="claw-browser-")
        to_read, to_write = os.pipe(), os.pipe()     # the browser's 3 and 4

        def place():
            # both first out of the way: one of them may be 3 or 4 already
            a, b = os.dup(to_read[0]), os.dup(to_write[1])
            a, b = os.dup2(a, 103), os.dup2(b, 104)
            os.dup2(a, 3)
            os.dup2(b, 4)
        self.process = subprocess.Popen(
            [BINARY, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self.dir}", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--mute-audio",
             "--disable-dev-shm-usage", "--hide-scrollbars", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=place, close_fds=False, start_new_session=True)
        os.close(to_read[0])
        os.close(to_write[1])
        self.out, self.into = to_read[1], to_write[0]
        self.held, self.last, self.session = b"", 0, None
        self.complaints, self.asked, self.dialogs = [], [], []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def call(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 20 * self.slow
        while True:
            answer = self._next(end)
            if answer.get("id") == message["id"]:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self, end):
        while b"\0" not in self.held:
            ready, _, _ = select.select([self.into], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self.into, 1 << 20)
            assert data, "the browser ended"
            self.held += data
        one, _, self.held = self.held.partition(b"\0")
        message = json.loads(one)
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params["exceptionDetails"])[:600])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.complaints.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
            case "Runtime.consoleAPICalled" if params["type"] == "error":
                self.complaints.append(json.dumps(params["args"])[:600])
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
            case "Page.javascriptDialogOpening":
                self.dialogs.append(params["message"])
        return message

    def eval(self, expression):
        """A JavaScript expression's value, awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression, timeout=30):
        end = time.monotonic() + timeout * self.slow
        while not self.eval(f"!!({expression})"):
            assert time.monotonic() < end, f"not within {timeout} s: {expression}\n{self.complaints}\n{self.text()[:2000]}"
            select.select([self.into], [], [], 0.05)

    def go(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def text(self):
        return self.eval("document.body ? document.body.innerText : ''")

    def click(self, selector):
        self.until(f"!!document.querySelector({json.dumps(selector)})")
        self.eval(f"document.querySelector({json.dumps(selector)}).click()")

    def key(self, key, code=None, **more):
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code or key, **text, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code or key, **more)

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, on):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if on else "light"}])

    def screenshot(self, path, whole=True):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)      # its own session: nobody else is in it
        except ProcessLookupError:
            pass
        self.process.wait(10)
        os.close(self.out)
        os.close(self.into)
        shutil.rmtree(self.dir, ignore_errors=True)
