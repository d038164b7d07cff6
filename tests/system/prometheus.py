"""Prometheus' own binaries, which `make testdeps` unpacks: what a scrape, a rule or a query is, they say."""
import http.client
import json
import os
import shutil
import subprocess
import urllib.parse

import pytest

from proxy import ROOT, SLOW, free_port


def binary(name):
    """promtool or prometheus; a test that needs one skips where it is not there."""
    own = ROOT / "build/prometheus/usr/bin" / name
    found = str(own) if os.access(own, os.X_OK) else shutil.which(name)
    if not found:
        pytest.skip(f"no {name}: neither build/prometheus (make testdeps) nor the PATH has it")
    return found


def promtool(*args, text=None, cwd=None):
    """What it says, having agreed."""
    p = subprocess.run([binary("promtool"), *map(str, args)], input=text, capture_output=True, text=True, timeout=60, cwd=cwd)
    assert p.returncode == 0, p.stdout + p.stderr
    return p.stdout + p.stderr


class Prometheus:
    """A server of a test's own. `config` is the text of a prometheus.yml."""

    def __init__(self, folder, config):
        self.port = free_port()
        (folder / "prometheus.yml").write_text(config)
        self.process = subprocess.Popen(
            [binary("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def get(self, path):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5 * SLOW)
        try:
            c.request("GET", path)
            return json.loads(c.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException):
            return None    # it starts
        finally:
            c.close()

    def query(self, text):
        """[(labels, value)], None while it starts."""
        answer = self.get("/api/v1/query?query=" + urllib.parse.quote(text))
        return answer and [(r["metric"], float(r["value"][1])) for r in answer["data"]["result"]]

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=20)
