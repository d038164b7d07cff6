"""What stands in docs/*.md is true: commands run, snippets are taken by the proxy, names exist, links lead somewhere.

A page is a home of its own, `openclaw-proxy` on its PATH, ports moved to free ones. Its fenced blocks, in order:

    sh      run in one shell; must end with 0. `openclaw-proxy -config FILE` alone is the other terminal: it is started, what
            was started before is ended
    (none)  what the block before it says, in this order; "…" stands for anything
    log     what the proxy that runs has logged: of each line here all parts stand in one of its lines
    yaml    behind "save as `FILE`": written there. Else it is checked, with upstreams and a route added where it has none
    lua     behind "save as `FILE`": written there. Else it is a policy, or hooks of one, and checked as such
    text    a drawing

docs/first-policy.md has a test of its own; configuration.md and policy-reference.md are written by `make docs`.
"""
import json
import os
import re
import signal
import subprocess
import threading
from datetime import date

import pytest

from test_examples import BINARY, ROOT, check_found, free_port
from test_first_policy import BLOCK, Shell, started, wait  # noqa: F401 (started is a fixture)

DOCS = ROOT / "docs"
WRITTEN = {"configuration.md", "policy-reference.md"}
PAGES = sorted(p for p in DOCS.glob("*.md") if p.name not in WRITTEN | {"first-policy.md"})
KEYS = {"OPENAI_API_KEY": "sk-example", "ANTHROPIC_API_KEY": "sk-example", "GEMINI_API_KEY": "example", "WEB_KEY": "web-key-of-the-example"}
UPSTREAMS = "upstreams:\n  openai: { type: mock }\n  anthropic: { type: mock }\n  local: { type: mock }\n"
ROUTES = "routes:\n  - id: chat\n    strategy: { type: failover, upstreams: [%s] }\n"


def whole(yaml):
    """A snippet with what it lacks to be an openclaw.yaml."""
    if not re.search(r"^upstreams:", yaml, re.M):
        yaml += UPSTREAMS
    if not re.search(r"^routes:", yaml, re.M):
        names = re.findall(r"^  ([\w-]+):", re.search(r"^upstreams:\n((?: .*\n|\n|#.*\n)*)", yaml, re.M)[1], re.M)
        yaml += ROUTES % ", ".join(names)
    return yaml


RUN = """local testing = require("openclaw.testing")
local p = testing.load(arg[1])
local body = { model = "mock-gpt", messages = { { role = "user", content = "Hello" } } }
local with = {
    route = { { "a", "b" } }, choose = { { "a", "b" }, testing.facts({}, {}), testing.rng(1) }, request = {}, response = { body },
    event = { { type = "message", data = "{}" } }, retry = { { kind = "eof", status = 0, n = 1, left = 1 } }, cost = { { input = 1, output = 1 } },
}
for i = 2, #arg do
    local hook, args = arg[i], with[arg[i]] or {}
    if hook == "choose" then p:run(hook, unpack(args)) else p:run(hook, testing.request({ body = body }), unpack(args)) end
end"""


def check(folder, yaml, lua=None):
    (folder / "policies").mkdir(parents=True)
    (folder / "openclaw.yaml").write_text(whole(yaml))
    if lua:
        if not re.search(r"^return ", lua, re.M):
            lua = f'local P = {{ name = "snippet", api = 1 }}\n{lua}\nreturn P\n'
        name = re.search(r'name = "(\w+)"', lua)[1]
        (folder / "policies" / f"{name}.lua").write_text(lua)
    r = subprocess.run([BINARY, "-config", "openclaw.yaml", "-check"], cwd=folder, env={**os.environ, **KEYS}, capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, f"{r.stdout}{r.stderr}\n{whole(yaml)}\n{lua or ''}"
    if lua:
        (folder / "run.lua").write_text(RUN)
        hooks = [h for h in re.findall(r"^function P\.(\w+)", lua, re.M) if h not in ("init", "selftest")]
        r = subprocess.run(["luajit", "run.lua", f"policies/{name}.lua", *hooks], cwd=folder, capture_output=True, text=True, timeout=60,
                           env={**os.environ, "LUA_PATH": f"{ROOT}/lua/?.lua;{ROOT}/lua/?/init.lua;;"})
        assert r.returncode == 0, f"{r.stderr}\n{lua}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_page(page, tmp_path, started, monkeypatch):  # noqa: F811
    ports = {name: str(free_port()) for name in ("8080", "9090", "8090", "9099")}
    home, bin = tmp_path / "openclaw", tmp_path / "bin"
    home.mkdir()
    bin.mkdir()
    (bin / "openclaw-proxy").symlink_to(BINARY)
    env = {**KEYS, "HOME": str(tmp_path), "OPENCLAW": str(ROOT), "PATH": f"{bin}:{os.environ['PATH']}"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    text, at, said, snippets, running, log = page.read_text(), 0, "", 0, None, None
    shell = Shell(home, **env)
    shell.run("trap 'kill $(jobs -p) 2>/dev/null' EXIT")
    late = threading.Timer(60, shell.p.terminate)
    late.start()
    try:
        for m in BLOCK.finditer(text):
            kind = m[1]
            block = re.sub(r"\b(8080|9090|8090|9099)\b", lambda n: ports[n[1]], m[2])
            save = re.findall(r"[Ss]ave(?: this)? as `([^`]+)`", text[at:m.start()])
            at = m.end()
            run = re.fullmatch(r"openclaw-proxy -config (\S+)\n", block)
            if save:
                (home / save[-1]).parent.mkdir(parents=True, exist_ok=True)
                (home / save[-1]).write_text(block)
            elif kind == "sh" and run:
                if running:
                    running.send_signal(signal.SIGTERM)
                    assert running.wait(60) == 0
                log = tmp_path / f"log{m.start()}"
                running = started([BINARY, "-config", str(home / run[1])], log, int(ports["9090"]))
            elif kind == "sh":
                said = shell.run(block.rstrip("\n").replace("$PWD/build/release", str(bin)))
            elif kind == "":
                check_found(said, block)
            elif kind == "log":
                for line in block.splitlines():
                    wait(lambda: any(all(p in have for p in line.split("…")) for have in log.read_text().splitlines()), f"not in the log {log}: {line}", 30)
            elif kind in ("yaml", "lua"):
                snippets += 1
                check(tmp_path / f"snippet{snippets}", block if kind == "yaml" else "", block if kind == "lua" else None)
            else:
                assert kind == "text", f"{page.name}: a block of a kind that nobody runs: {kind}"
    finally:
        late.cancel()
        shell.end()


def test_readme_snippets(tmp_path):
    for i, yaml in enumerate(re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)):
        check(tmp_path / str(i), yaml)


def test_readme_explains(tmp_path):
    """What README.md says -explain says of its own file."""
    text = (ROOT / "README.md").read_text()
    (tmp_path / "openclaw.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    asked = re.search(r"\$ echo '(\{.*?\})' \|\n.* -explain -\n(.*?)\n\n", text, re.S)
    said = subprocess.run([BINARY, "-config", "openclaw.yaml", "-explain", "-"], cwd=tmp_path, env={**os.environ, **KEYS}, input=asked[1],
                          capture_output=True, text=True, check=True).stdout
    lines = [line.removeprefix("    ") for line in asked[2].splitlines() if "…" not in line]
    assert len(lines) == 4 and all(line in said.splitlines() for line in lines), said


def test_configuration_is_current():
    said = subprocess.run([BINARY, "-reference"], capture_output=True, text=True, check=True).stdout
    assert (DOCS / "configuration.md").read_text() == said, "docs/configuration.md is old: run make docs"


def test_names_and_links():
    """Keys and metrics that pages name are there, and so is what they link to."""
    reference = (DOCS / "configuration.md").read_text()
    tables = {m[1]: set(re.findall(r"^\| `(\w+)`", m[2], re.M)) for m in re.finditer(r"^## (\w+)\n(.*?)(?=^## |\Z)", reference, re.M | re.S)}
    sections = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \| (?:list of )?map \[(\w+)\]", reference.split("## server")[0], re.M)}
    metrics = set(re.findall(r'"(openclaw_\w+)"', (ROOT / "core/proxy/metrics.h").read_text()))
    wrong = []
    for page in [*PAGES, DOCS / "first-policy.md"]:
        text = page.read_text()
        for section, key in re.findall(r"`(\w+)\.(\w+)[`.=: ]", text):
            if section in sections and section not in ("upstreams",) and key not in tables[sections[section]]:
                wrong.append(f"{page.name}: no key {section}.{key}")
        for name in set(re.findall(r"\bopenclaw_[a-z_]+[a-z]\b", text)) - metrics:
            if not any(name == m + end for m in metrics for end in ("_bucket", "_sum", "_count")) and not name.startswith("openclaw_policy_"):
                wrong.append(f"{page.name}: no metric {name}")
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not link.startswith("http") and not (page.parent / link).exists():
                wrong.append(f"{page.name}: no {link}")
    assert not wrong, "\n".join(wrong)


def words(*pages):
    """What stands in backticks outside of blocks, as single words."""
    text = "\n".join((ROOT / page).read_text() for page in pages)
    return set(re.findall(r"[\w.]+", " ".join(re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```$", "", text)))))


def test_prices_that_are_known():
    """Of which day the binary's prices are, and for whom there are none."""
    source = (ROOT / "lua/claw/catalog.lua").read_text()
    year, month, day = re.search(r'AS_OF = "(\d+)-(\d+)-(\d+)"', source).groups()
    silent = set(re.findall(r"(\w+) = true", re.search(r"local SILENT = \{(.*?)\}", source, re.S)[1]))
    said = re.search(r"as it was on (\d+) (\w+) (\d+) \(`lua/claw/catalog.lua`, in the binary; not for (.*?)\)",
                     " ".join((DOCS / "caching-and-limits.md").read_text().split()))
    assert (int(said[1]), said[2], said[3]) == (int(day), date(int(year), int(month), 1).strftime("%B"), year)
    assert set(re.findall(r"`(\w+)`", said[4])) == silent


def test_codes_and_warnings_of_operations():
    """The troubleshooting tables have every code of base/err.h with its status, and warnings that the proxy writes."""
    section = (DOCS / "operations.md").read_text().split("\n## Troubleshooting\n")[1].split("\n### ")[0]
    codes, warnings = (re.findall(r"^\| (.*?) \|(?: (\d.*?) \|)?", table, re.M) for table in section.split("| a warning in the log"))
    status = {}
    for names, said in codes:
        names, said = re.findall(r"`([a-z_]+)`", names), re.findall(r"\b\d{3}\b", re.sub(r"\(.*?\)", "", said))
        assert len(said) in (0, 1, len(names)), names
        status.update(zip(names, said * len(names) if len(said) == 1 else said))
    table = re.findall(r'^    X\(E\w+, +-\d+, +"(\w+)", +(\d+),', (ROOT / "core/base/err.h").read_text(), re.M)
    kinds = {kind: number for kind, number in reversed(table) if kind not in ("again", "invalid", "io")}
    assert len(kinds) > 30 and not set(kinds) ^ set(status), set(kinds) ^ set(status)
    assert not [f"{k}: {status[k]}, not {v}" for k, v in kinds.items() if v != status[k]]
    source = "".join(p.read_text() for p in (ROOT / "core").glob("*/*.c"))
    named = [n for row, _ in warnings for n in re.findall(r"`([^`]+)`", row)]
    assert len(named) > 10 and not [n for n in named if f'"{n}"' not in source]


def test_fields_of_the_log():
    section = re.search(r"\n## Logs\n(.*?)\n## ", (DOCS / "operations.md").read_text(), re.S)[1]
    fields = set(re.findall(r'\\"([a-z_]+)\\":', (ROOT / "core/proxy/access_log.c").read_text())) - {"time"}
    assert len(fields) > 30 and not [f for f in fields if not re.search(rf"[`\"]{f}[`\"]", section)]


def test_what_the_mock_can_do():
    keys = set(re.findall(r"KEY\((\w+), (?:true|false)", (ROOT / "core/app/mock_fault.c").read_text()))
    page = (DOCS / "providers.md").read_text().split("\n## The mock\n")[1].split("\n## ")[0]
    assert len(keys) > 10 and keys == set(re.findall(r"`(\w+)(?:=\w+)?`", page[page.index("| | |"):]))


def test_maps_have_every_file():
    """Each file of core/ and lua/ is named by the map of its floor (of folders that the map takes whole: the folder), each system test by its page."""
    core, lua, system = words("core/README.md"), words("lua/README.md", "lua/claw/protocols/README.md"), words("tests/system/README.md")
    whole = {"route", "retry", "providers"} | {p.parent.name for p in ROOT.glob("lua/claw/protocols/*/init.lua")}
    assert {"conf", "pipeline"} <= core and {"engine", "seal"} <= lua and "wire.py" in system
    lacking = [str(p.relative_to(ROOT)) for p in ROOT.glob("core/*/*.[ch]") if not {p.stem, p.name} & core and not p.stem.endswith("_part")]
    for p in (ROOT / "lua").rglob("*.lua"):
        name = p.parent.name if p.name == "init.lua" else p.name.split(".")[0]
        if not {name, p.name} & lua and p.parent.name not in whole:
            lacking.append(str(p.relative_to(ROOT)))
    lacking += [p.name for p in (ROOT / "tests/system").iterdir() if p.suffix in (".py", ".c", ".lua") and p.name not in system]
    assert not lacking, "not on the map:\n" + "\n".join(sorted(lacking))


def test_readme_names_the_admin_port():
    section = re.search(r"\n## Admin.*?\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.S)[1]
    paths = json.loads((ROOT / "core/app/pages/openapi.json").read_text())["paths"]   # test_y_admin.py compares it with the binary
    asked = [p.replace("/routes/{NAME}", "/routes/ID").replace("{NAME}", "NAME") for p in paths if p != "/" and not p.startswith("/dashboard")]
    assert len(asked) > 20
    assert not [p for p in asked if f"{p}`" not in section]


PROVIDERS = """local P = require("claw.providers")
for _, name in ipairs(P.NAMES) do
    local t, words = P.tables[name], {}
    for _, row in ipairs(t.protocols or {}) do words[#words + 1] = row[1] end
    for _, form in ipairs(t.forms or {}) do words[#words + 1] = (form.ends:gsub("%[.*", "")) end
    print(name, t.auth and t.auth.header .. (t.auth.prefix ~= "" and ": " .. t.auth.prefix:sub(1, -2) or "") or "none", table.concat(words, " "))
end"""
SPOKEN = {"openai_chat": "chat", "openai_responses": "responses", "openai_completions": "completions", "openai_embeddings": "embeddings",
          "anthropic_messages": "messages", "anthropic_count_tokens": "token counts", "gemini_generate": "generate", "gemini_embed": "embed",
          "gemini_embed_batch": "embed", "gemini_count_tokens": "token counts", "cohere_chat": "chat", "cohere_embeddings": "embed",
          "ollama_chat": "Ollama: chat", "ollama_embeddings": "embeddings", "bedrock_converse": "Converse", "bedrock_embeddings": "embeddings", "/deployments/": "deployment"}


def test_providers_are_as_the_tables_say():
    page = (DOCS / "providers.md").read_text()
    urls = dict(re.findall(r'\{"(\w+)", "(http[^"]*)"\}', (ROOT / "core/base/conf_link.c").read_text()))
    said = subprocess.run(["luajit", "-e", PROVIDERS], env={**os.environ, "LUA_PATH": f"{ROOT}/lua/?.lua;{ROOT}/lua/?/init.lua;;"},
                          capture_output=True, text=True, check=True).stdout
    assert len(urls) >= 10
    for name, auth, spoken in (line.split("\t") for line in said.splitlines()):
        row = re.search(rf"^\| [^|]*`{name}`[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", page, re.M)
        assert row, f"no row for {name}"
        assert (f"`{urls[name]}`" if name in urls else "") in row[1], row[0]
        assert auth in row[2], row[0]
        for word in spoken.split():
            assert SPOKEN.get(word, word) in row[3], f"{name}: {word} is not in its row"
