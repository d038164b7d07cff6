"""deploy/kubernetes and deploy/helm: what they render to fits together, and holds an openclaw.yaml that the proxy takes.

helm, kubectl and the Python package kubernetes-validate (schemas of Kubernetes' API) are used where they are there.
"""
import os
import re
import shutil

import pytest
import yaml

from conftest import ROOT, check, fine, run

CHART = ROOT / "deploy/helm/openclaw"
HELM = os.environ.get("HELM") or shutil.which("helm")
SETTINGS = {
    "as it is": [],
    "all": ["replicaCount=3", "policies.one\\.lua=return { name = \"one\"\\, api = 1 }", "existingSecret=mine", "ingress.enabled=true", "ingress.host=llm.example.org",
            "serviceMonitor.enabled=true", "networkPolicy.enabled=true", "persistence.enabled=true", "nodeSelector.disk=ssd", "image.tag=1.2"],
    "one": ["replicaCount=1", "podDisruptionBudget.enabled=false"],
}


def load(text):
    return [d for d in yaml.safe_load_all(text) if d]


def validate(objects):
    known = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for o in objects:
        if o["apiVersion"] != "monitoring.coreos.com/v1":
            known.validate(o, known.latest_version(), strict=True)


def pod_of(objects):
    return next(o for o in objects if o["kind"] in ("Deployment", "StatefulSet"))


def assert_fits(objects, tmp_path):
    """Names lead somewhere, ports are those of the file, nothing may be written but what must be, draining has its time."""
    workload = pod_of(objects)
    spec = workload["spec"]["template"]["spec"]
    box = spec["containers"][0]
    named = {(o["kind"], o["metadata"]["name"]) for o in objects}
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    volumes = {v["name"]: v for v in spec.get("volumes", [])} | {t["metadata"]["name"]: t for t in workload["spec"].get("volumeClaimTemplates", [])}
    mounts = {m["mountPath"]: m for m in box["volumeMounts"]}
    assert {m["name"] for m in mounts.values()} == set(volumes)
    assert not any("subPath" in m for m in mounts.values()), "what is mounted by subPath is never renewed"
    for v in volumes.values():
        if "configMap" in v:
            assert ("ConfigMap", v["configMap"]["name"]) in named or v["configMap"].get("optional"), v

    text = maps[volumes[mounts["/etc/openclaw"]["name"]]["configMap"]["name"]]["openclaw.yaml"]
    policies = tmp_path / "policies"
    policies.mkdir()
    source = volumes[mounts["/etc/openclaw-policies"]["name"]]["configMap"]["name"]
    for name, code in maps.get(source, {}).items():
        (policies / name).write_text(code)
    conf = yaml.safe_load(text)
    assert conf["policies"]["dir"] == "/etc/openclaw-policies"
    check(tmp_path / "etc", text.replace("/etc/openclaw-policies", str(policies)))

    ports = {p["name"]: p["containerPort"] for p in box["ports"]}
    assert ports == {"http": conf["server"]["listen_port"], "admin": conf["admin"]["listen_port"]}
    assert conf["admin"]["listen_address"] == "0.0.0.0"
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz"), ("startupProbe", "/readyz")):
        assert box[probe]["httpGet"] == {"path": path, "port": "admin"}
    pause = int(box["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] >= conf["server"]["drain_seconds"] + pause + 5
    assert str(conf["server"]["workers"]) == str(box["resources"]["limits"]["cpu"])

    assert box["securityContext"]["readOnlyRootFilesystem"] and not box["securityContext"]["allowPrivilegeEscalation"]
    assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    user = re.search(r"^USER (\d+):(\d+)", (ROOT / "Dockerfile").read_text(), re.M)
    assert (str(spec["securityContext"]["runAsUser"]), str(spec["securityContext"]["runAsGroup"])) == user.groups()
    labels = workload["spec"]["template"]["metadata"]["labels"].items()
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels
    for o in objects:
        if o["kind"] == "Service":
            assert o["spec"]["selector"].items() <= labels
            assert all(p["targetPort"] in ports for p in o["spec"]["ports"])
        if o["kind"] == "PodDisruptionBudget":
            assert o["spec"]["selector"]["matchLabels"].items() <= labels


@pytest.fixture(scope="module")
def manifests():
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl")
    return load(fine("kubectl", "kustomize", ROOT / "deploy/kubernetes"))


def test_manifests_fit_together(manifests, tmp_path, version):
    assert {o["kind"] for o in manifests} == {"Namespace", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget", "NetworkPolicy"}
    assert pod_of(manifests)["spec"]["template"]["spec"]["containers"][0]["image"] == f"openclaw-proxy:{version}"
    assert_fits(manifests, tmp_path)


def test_manifests_are_kubernetes_own(manifests):
    validate(manifests)


def render(*settings):
    return load(fine(HELM, "template", "release", CHART, "--kube-version", "1.30.0", *(a for s in settings for a in ("--set-string" if s.startswith("image.") else "--set", s))))


helm = pytest.mark.skipif(not HELM, reason="no helm")


@helm
def test_the_chart_is_clean():
    r = run(HELM, "lint", "--strict", CHART)
    assert r.returncode == 0, r.stdout


@helm
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_chart_fits_together(settings, tmp_path):
    objects = render(*SETTINGS[settings])
    assert_fits(objects, tmp_path)
    kinds = [o["kind"] for o in objects]
    assert ("PodDisruptionBudget" in kinds) == (settings != "one")
    assert (pod_of(objects)["kind"] == "StatefulSet") == (settings == "all")
    assert {"Ingress", "ServiceMonitor", "NetworkPolicy"} & set(kinds) == ({"Ingress", "ServiceMonitor", "NetworkPolicy"} if settings == "all" else set())


@helm
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_chart_is_kubernetes_own(settings):
    validate(render(*SETTINGS[settings]))


def test_the_charts_values():
    """Without helm: what templates ask for stands in values.yaml, and the chart is of this version."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for template in (CHART / "templates").iterdir():
        for path in set(re.findall(r"\.Values((?:\.\w+)+)", template.read_text())):
            at = values
            for key in path[1:].split("."):
                assert isinstance(at, dict) and key in at, f"{template.name}: no {path} in values.yaml"
                at = at[key]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == (ROOT / "VERSION").read_text().strip()
