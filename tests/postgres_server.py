"""A PostgreSQL server of the tests' own, from Debian's packages where they are installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DEBIAN = Path("/usr/lib/postgresql")
_ACCOUNTS = ("postgres", "nobody")
_DATABASE = "postgresql://shop@/postgres?host={folder}"


def programs() -> Path | None:
    """Return the folder with ``initdb`` and ``pg_ctl``; None where there is no server."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(_DEBIAN.glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


@contextmanager
def postgres_server(bin_folder: Path) -> Iterator[str]:
    """Run a server on a socket in a folder of its own; yield the URL of its database."""
    folder = Path(tempfile.mkdtemp(prefix="shelfwise-pg-"))
    account = _account()
    if account:
        shutil.chown(folder, account)

    def run(program: str, *words: str) -> None:
        subprocess.run(
            [bin_folder / program, *words],
            check=True, cwd=folder, user=account, stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "shop", "-A", "trust", "-N", "-E", "UTF8")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield _DATABASE.format(folder=folder)
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _account() -> str | None:
    """Return whom the server runs as: it refuses to be root."""
    if os.name != "posix" or os.geteuid() != 0:
        return None
    import pwd

    known = {each.pw_name for each in pwd.getpwall()}
    return next(name for name in _ACCOUNTS if name in known)
