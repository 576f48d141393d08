"""Builds the contracts that Python deploys, `contracts/artifacts/NAME.json`: pip install needs no compiler.

An artifact has the ABI, the bytecode and the storage layout. `manifest.json` holds a hash of all that the
artifacts were made from, and a hash of each: `--check` compares those (quick), `--rebuild-check` compiles
again and compares bytes.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "contracts" / "src"
ARTIFACTS = ROOT / "contracts" / "artifacts"
CONTRACTS = ("Escrow", "EpochLog", "DevToken", "OperatorArbiter")
NPM_PACKAGES = ("solc", "@openzeppelin/contracts")
MAX_CODE_BYTES = 24_576  # EIP-170


def compiler_settings() -> dict[str, Any]:
    """What decides the bytes: the release profile over the default one, without places and test settings."""
    profiles = tomllib.loads((ROOT / "foundry.toml").read_text())["profile"]
    places = {"src", "test", "script", "out", "cache_path", "solc", "offline", "ffi", "fs_permissions"}
    merged = profiles["default"] | profiles["release"]
    return {key: value for key, value in merged.items() if key not in places}


def inputs_hash() -> str:
    """sha256 over the sources, the compiler's settings, and the locked compiler and library."""
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    inputs = {
        "contracts": CONTRACTS,
        "sources": {str(path.relative_to(ROOT)): sha256(path.read_bytes()) for path in sorted(SOURCES.rglob("*.sol"))},
        "settings": compiler_settings(),
        "packages": {name: locked[f"node_modules/{name}"]["integrity"] for name in NPM_PACKAGES},
    }
    return sha256(json.dumps(inputs, sort_keys=True).encode())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def compile_all() -> dict[str, bytes]:
    """File name -> content, for every artifact and the manifest."""
    inputs = inputs_hash()  # before: a source saved meanwhile must make the artifacts stale
    with tempfile.TemporaryDirectory(dir=ROOT / ".build") as scratch:
        environment = os.environ | {
            "FOUNDRY_PROFILE": "release",
            "FOUNDRY_OUT": f"{scratch}/out",
            "FOUNDRY_CACHE_PATH": f"{scratch}/cache",
        }
        forge = ROOT / ".venv" / "bin" / "forge"
        # From nothing, and without the tests: an artifact must not depend on what was built before.
        subprocess.run([forge, "build", "--force", SOURCES], cwd=ROOT, env=environment, check=True)
        files = {}
        for name in CONTRACTS:
            output = json.loads(Path(scratch, "out", f"{name}.sol", f"{name}.json").read_text())
            files[f"{name}.json"] = to_json(artifact(name, output))
    manifest = {"inputs": inputs, "artifacts": {file: sha256(content) for file, content in files.items()}}
    return files | {"manifest.json": to_json(manifest)}


def artifact(name: str, output: dict[str, Any]) -> dict[str, Any]:
    code = {part: output[part]["object"] for part in ("bytecode", "deployedBytecode")}
    size = len(code["deployedBytecode"]) // 2 - 1
    print(f"{name:16} {size:6} bytes", file=sys.stderr)
    if size > MAX_CODE_BYTES:
        sys.exit(f"build_contracts: {name} has {size} bytes of code, more than {MAX_CODE_BYTES} (EIP-170)")
    return {
        "contractName": name,
        "abi": output["abi"],
        **code,
        "storageLayout": storage_layout(output["storageLayout"]),
    }


def storage_layout(layout: dict[str, Any]) -> dict[str, Any]:
    """The compiler's layout by readable type names, without AST ids: those change with unrelated files."""
    types = layout["types"]

    def entries(variables: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                **{key: variable[key] for key in ("label", "slot", "offset")},
                "type": types[variable["type"]]["label"],
            }
            for variable in variables
        ]

    structs = {kind["label"]: entries(kind["members"]) for kind in types.values() if "members" in kind}
    return {"storage": entries(layout["storage"]), "structs": structs}


def stale() -> str | None:
    """Why the artifacts don't belong to the sources, or None."""
    manifest_path = ARTIFACTS / "manifest.json"
    if not manifest_path.exists():
        return "contracts/artifacts has no manifest.json"
    manifest = json.loads(manifest_path.read_text())
    if manifest["inputs"] != inputs_hash():
        return "the sources, settings or compiler changed since contracts/artifacts were built"
    for file, digest in manifest["artifacts"].items():
        path = ARTIFACTS / file
        if not path.exists() or sha256(path.read_bytes()) != digest:
            return f"contracts/artifacts/{file} is not what was built"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="only compare hashes")
    mode.add_argument("--rebuild-check", action="store_true", help="compile again and compare bytes")
    arguments = parser.parse_args()

    if arguments.check:
        if reason := stale():
            sys.exit(f"build_contracts: {reason}: run scripts/build_contracts and commit the result")
        return
    try:
        files = compile_all()
    except subprocess.CalledProcessError:
        sys.exit("build_contracts: forge failed, see above")
    if arguments.rebuild_check:
        differing = [
            file
            for file, content in files.items()
            if not (ARTIFACTS / file).exists() or (ARTIFACTS / file).read_bytes() != content
        ]
        if differing:
            sys.exit(f"build_contracts: a new build gives other bytes: {', '.join(differing)}")
        print("build_contracts: contracts/artifacts are what the sources give", file=sys.stderr)
        return
    ARTIFACTS.mkdir(exist_ok=True)
    for file, content in files.items():
        (ARTIFACTS / file).write_bytes(content)


if __name__ == "__main__":
    main()
