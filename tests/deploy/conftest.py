import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("CLAW_BINARY", str(ROOT / "build/release/openclaw-proxy"))
sys.path.insert(0, str(ROOT / "tests/system"))


def run(*args, timeout=60, **kwargs):
    """A command, its output kept; who made this suite run has no say in a make of its own."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))} | kwargs.pop("env", {})
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=timeout, env=env, cwd=kwargs.pop("cwd", ROOT), **kwargs)


def fine(*args, **kwargs):
    r = run(*args, **kwargs)
    assert r.returncode == 0, f"{args}\n{r.stdout[-4000:]}{r.stderr[-4000:]}"
    return r.stdout


def check(folder, text, secrets=None, **env):
    """Would the proxy take this openclaw.yaml, in this folder? ${file:/run/secrets/…} are read from `secrets`, each its own name."""
    import re
    folder.mkdir(parents=True, exist_ok=True)

    def secret(m):
        file = folder / "secrets" / m[1].replace("/", "_")
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"secret-of-{file.name}\n")
        return f"${{file:{file}}}"
    (folder / "openclaw.yaml").write_text(re.sub(r"\$\{file:(/run/[^}]+)\}", secret, text))
    return fine(BINARY, "-config", folder / "openclaw.yaml", "-check", env=env)


@pytest.fixture(scope="session")
def version():
    return (ROOT / "VERSION").read_text().strip()
