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


class PostgresServer:
    """A server on a socket in a folder of its own."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        self._folder = Path(tempfile.mkdtemp(prefix="shelfwise-pg-"))
        self._account = _account()
        self._data = str(self._folder / "data")
        self.url = _DATABASE.format(folder=self._folder)
        if self._account:
            shutil.chown(self._folder, self._account)
        self._run("initdb", "-D", self._data, "-U", "shop", "-A", "trust", "-N", "-E", "UTF8")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop it, whoever is connected."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Have it stopped meanwhile."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def signal(self, number: int) -> None:
        """Send a signal to the server and to what it has started."""
        main = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(main)], capture_output=True)
        for process in (main, *map(int, listed.stdout.split())):
            os.kill(process, number)

    def remove(self) -> None:
        """Remove its folder."""
        shutil.rmtree(self._folder)

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [self._bin / program, *words],
            check=True, cwd=self._folder, user=self._account, stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip


@contextmanager
def postgres_server(bin_folder: Path) -> Iterator[PostgresServer]:
    """Run a server; it may be stopped and started in between."""
    server = PostgresServer(bin_folder)
    try:
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        server.remove()


def _account() -> str | None:
    """Return whom the server runs as: it refuses to be root."""
    if os.name != "posix" or os.geteuid() != 0:
        return None
    import pwd

    known = {each.pw_name for each in pwd.getpwall()}
    return next(name for name in _ACCOUNTS if name in known)
