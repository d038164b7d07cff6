"""The compose files: what they mount is there, what it says is taken by the proxy, and limits fit."""
import re
import shutil

import pytest
import yaml

from conftest import BINARY, ROOT, check, fine

FILES = sorted((ROOT / "deploy/compose").rglob("docker-compose.yml"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.parent.name)
def test_compose(file, tmp_path):
    compose = yaml.safe_load(file.read_text())
    box = compose["services"]["openclaw"]
    named = {s.split(":")[0] for service in compose["services"].values() for s in service.get("volumes", [])}
    assert {n for n in named if not n.startswith(".")} == set(compose["volumes"])
    for source in (n for n in named if n.startswith(".") and n not in ("./logs", "./policies")):
        assert (file.parent / source).exists(), f"{source} is not there"
    assert box["read_only"] and box["cap_drop"] == ["ALL"]
    assert any(v.endswith(":/var/lib/openclaw") for v in box["volumes"]), "a ledger would have no place"

    home = file.parent / "openclaw" if (file.parent / "openclaw").is_dir() else file.parent
    if (home / "policies").is_dir():
        shutil.copytree(home / "policies", tmp_path / "policies")
    text = (home / "openclaw.yaml").read_text()
    check(tmp_path, text, OPENAI_API_KEY="sk-example")
    conf = yaml.safe_load(text)
    assert conf["server"]["listen_address"] == "0.0.0.0" and f"8080:{conf['server']['listen_port']}" in box["ports"]
    assert int(box["stop_grace_period"][:-1] if isinstance(box["stop_grace_period"], str) else box["stop_grace_period"]) > conf["server"].get("drain_seconds", 30)
    for variable in re.findall(r"\$\{([A-Z_]+)\}", re.sub(r"#.*", "", text)):
        assert variable in box["environment"]
    for words in [box.get("command"), box.get("healthcheck", {}).get("test", ["CMD"])[1:]]:
        assert not words or (words[0] == "./openclaw-proxy" and {w for w in words if w.startswith("-")} <= set(re.findall(r"-\w+", fine(BINARY, "-help"))))


def test_prometheus_asks_the_admin_port():
    full = ROOT / "deploy/compose/full"
    conf = yaml.safe_load((full / "openclaw/openclaw.yaml").read_text())
    job = yaml.safe_load((full / "prometheus.yml").read_text())["scrape_configs"][0]
    assert job["static_configs"][0]["targets"] == [f"openclaw:{conf['admin']['listen_port']}"]
    assert conf["admin"]["token"] == f"${{file:{job['authorization']['credentials_file']}}}"


def test_prometheus_takes_its_file(tmp_path):
    tool = ROOT / "build/prometheus/usr/bin/promtool"
    if not tool.exists():
        pytest.skip("no promtool")
    (tmp_path / "admin_token").write_text("x")
    file = tmp_path / "prometheus.yml"
    file.write_text((ROOT / "deploy/compose/full/prometheus.yml").read_text().replace("/run/secrets", str(tmp_path)))
    fine(tool, "check", "config", file)
