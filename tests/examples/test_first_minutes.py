"""From README.md's two commands to a dashboard that shows what the reader's own requests cost, timed: the commands are README's own,
on free ports; what the page shows is looked at in Chromium where there is one."""
import json
import re
import subprocess
import sys
import time
import urllib.request

from test_examples import BINARY, ROOT, free_port
from test_first_policy import started, wait  # noqa: F401: a fixture

sys.path.insert(0, str(ROOT / "tests" / "system"))
from browser import BINARY as CHROMIUM  # noqa: E402
from browser import Browser  # noqa: E402


def test_readme_to_the_dashboard(tmp_path, started):  # noqa: F811
    section = re.search(r"\n## Two commands\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.S)[1]
    assert "make run " in section and "examples/quickstart" in section
    port, admin, began, took = free_port(), free_port(), time.monotonic(), {}

    def done(step):
        took[step] = time.monotonic() - began - sum(took.values())
    yaml = tmp_path / "openclaw.yaml"
    yaml.write_text((ROOT / "examples/quickstart/openclaw.yaml").read_text().replace("8080", str(port)) + f"\nadmin:\n  listen_port: {admin}\n")
    started([BINARY, "-config", str(yaml)], tmp_path / "log", admin)
    done("it runs")
    commands = re.findall(r"^    (curl (?:.*\\\n)*.*)$", section, re.M)
    assert len(commands) == 2
    said = [subprocess.run(["bash", "-c", c.replace("8080", str(port))], capture_output=True, text=True, check=True).stdout for c in commands]
    assert "You said: Hello!" in said[0] and said[1].endswith("data: [DONE]\n\n")
    done("two requests")
    dashboard = re.search(r"<(http://127\.0\.0\.1:9090/)>", section)[1].replace("9090", str(admin))

    def told():
        with urllib.request.urlopen(dashboard + "requests", timeout=10) as r:
            return json.load(r)["requests"]
    wait(lambda: len(told()) == 2, "the requests are not shown")
    costs = [r["cost_usd"] for r in told()]
    assert all(c > 0 for c in costs) and all(f'"cost_usd":{c:.6f}' in (tmp_path / "log").read_text() for c in costs), costs
    with urllib.request.urlopen(dashboard, timeout=10) as r:
        assert b"dashboard.js" in r.read()
    done("what each cost, as JSON")
    if CHROMIUM:
        b = Browser(slow=3)
        try:
            b.size(1280, 900)
            b.go(dashboard)
            b.until("document.querySelector('#state').innerText.includes('live')")
            for view in ("Requests", "Costs"):   # the words README has for them
                assert f"({view}" in section
                b.eval(f"[...document.querySelectorAll('[role=tab]')].find(t => t.innerText.includes('{view}')).click()")
                b.until(f"document.querySelector('#{view.lower()}').innerText.includes('$0.0000')")
            assert "mock-gpt" in b.eval("document.querySelector('#costs').innerText")
        finally:
            b.stop()
        done("the dashboard shows it")
    print("; ".join(f"{step}: {seconds:.2f} s" for step, seconds in took.items()))
