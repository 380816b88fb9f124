# Copyright 2026 The fusionzoo authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Checkpoints that are either complete or not there.

A checkpoint is written into the folder `.incomplete` of the run. When every process is done, its files are flushed to
the disk, their sizes and sha256 go into `manifest.json`, and one rename gives it its name `checkpoint-<step>`. A process
killed at any point therefore leaves either no folder of that name or a whole one; damage done later is seen from the
manifest. Resuming takes the newest checkpoint that is whole and says which ones it refused and why.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path


MANIFEST_NAME = "manifest.json"
STAGING_NAME = ".incomplete"
_CHECKPOINT_NAME = re.compile(r"^checkpoint-(\d+)$")


class CheckpointError(ValueError):
    """A checkpoint that must not be used; the message says why."""


@dataclass(frozen=True)
class CheckpointChoice:
    """What `find_valid_checkpoint` found: the folder to resume from, if any, and why newer ones were refused."""

    path: Path | None
    refused: tuple[tuple[Path, str], ...] = ()


def list_checkpoints(run_dir: str | Path) -> list[Path]:
    """The folders `checkpoint-<step>` of a run, newest (largest step) first."""
    if not Path(run_dir).is_dir():
        return []
    found = [(int(match[1]), path) for path in Path(run_dir).iterdir() if (match := _CHECKPOINT_NAME.match(path.name))]
    return [path for _, path in sorted(found, reverse=True) if path.is_dir()]


def find_valid_checkpoint(run_dir: str | Path) -> CheckpointChoice:
    """The newest checkpoint whose files all agree with its manifest, and the refused ones with the reason."""
    refused: list[tuple[Path, str]] = []
    for path in list_checkpoints(run_dir):
        reason = _reason_to_refuse(path)
        if reason is None:
            return CheckpointChoice(path, tuple(refused))
        refused.append((path, reason))
    return CheckpointChoice(None, tuple(refused))


def _reason_to_refuse(path: Path) -> str | None:
    try:
        verify_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return None


def verify_checkpoint(path: str | Path) -> dict:
    """Compares a checkpoint with its manifest and returns the manifest.

    Raises `CheckpointError` with the first thing that is wrong: no manifest, an unreadable one, a missing file, a file
    of another size or content.
    """
    path = Path(path)
    manifest_path = path / MANIFEST_NAME
    if not path.is_dir():
        raise CheckpointError(f"there is no folder {path}")
    if not manifest_path.is_file():
        raise CheckpointError(f"it has no {MANIFEST_NAME}, so it is not known to be complete")
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"its {MANIFEST_NAME} cannot be read ({type(error).__name__}: {error})") from error
    for name, (size, digest) in sorted(files.items()):
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"file {name} is missing")
        if file.stat().st_size != size:
            raise CheckpointError(f"file {name} has {file.stat().st_size} bytes instead of {size}")
        if _sha256(file) != digest:
            raise CheckpointError(f"file {name} differs from what was written (sha256)")
    return manifest


def staging_dir(run_dir: str | Path) -> Path:
    """Where checkpoints of this run are written before they get their name."""
    return Path(run_dir) / STAGING_NAME


def clear_staging(run_dir: str | Path) -> None:
    """Removes what an interrupted save left behind."""
    shutil.rmtree(staging_dir(run_dir), ignore_errors=True)


def commit_checkpoint(run_dir: str | Path, name: str, step: int, world_size: int) -> Path:
    """Flushes and names the checkpoint that lies in the staging folder; a folder of that name is replaced.

    Returns the final folder.
    """
    run_dir = Path(run_dir)
    staged, final = staging_dir(run_dir) / name, run_dir / name
    files = {}
    for path in sorted(staged.rglob("*")):
        if path.is_file() and path.name != MANIFEST_NAME:
            _fsync(path)
            entry = {"size": path.stat().st_size, "sha256": _sha256(path)}
            files[path.relative_to(staged).as_posix()] = entry
    manifest = {"format": 1, "step": step, "world_size": world_size, "files": files}
    manifest_path = staged / MANIFEST_NAME
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _fsync(manifest_path)
    for folder in (*(path for path in staged.rglob("*") if path.is_dir()), staged):
        _fsync(folder)
    if final.exists():
        final.rename(staging_dir(run_dir) / f"{name}.replaced")
    staged.rename(final)
    _fsync(run_dir)
    clear_staging(run_dir)
    return final


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders; its renames are journalled
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
