"""The browser's server: options, safe defaults, a free port. Imports no torch."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil

from app import desk, text
from app.temporary import private_folder
from trainer.errors import ExitCode, InputError

PORT = 7860
PORTS_TRIED = 21
LOOPBACK = ("127.0.0.1", "localhost")
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  named in order to be refused without a password
LARGEST_UPLOAD = "200mb"
SHARE_HOSTS = "*.gradio.live"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ``InputError``."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message, "python3 launch.py --help shows every option")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit code."""
    try:
        options = parse(list(sys.argv[1:] if argv is None else argv))
        free_port(options.host, options.port)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return ExitCode.INPUT
    text.Language.chosen = options.language
    page, settings = prepare(options, Path.cwd() / "runs")
    port = launch(page, options, settings)
    host = LOOPBACK[0] if options.host in EVERYWHERE else options.host
    print(f"Open http://{host}:{port}   (Ctrl-C ends the server)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        page.block_thread()
    print("The server has ended. Runs that were started go on; the page shows them again after the next start.")
    return ExitCode.DONE


def parse(argv: list[str]) -> argparse.Namespace:
    """The options. Raises ``InputError``, also where others could reach the page without a password."""
    parser = Parser(prog="launch.py", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=PORT, help="first port to try")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for a name and a password")
    parser.add_argument("--share", action="store_true", help="also a public address, through gradio's servers")
    parser.add_argument(
        "--folder", metavar="DIR", type=Path, action="append", default=[],
        help="with --host or --share: a folder of this machine that the page may read; may be repeated",
    )  # fmt: skip
    known = text.languages()
    parser.add_argument("--language", choices=known, default=text.usual(), help="of the page; else the machine's, or English")
    options = parser.parse_args(argv)
    user, _, password = (options.auth or "").partition(":")
    if options.auth is not None and not (user and password):
        raise InputError("--auth is not of the form user:password", "write for example  --auth anna:a-long-password")
    if is_shared(options) and not options.auth:
        what = "--share" if options.share else f"--host {options.host}"
        raise InputError(f"{what} lets others reach this page", "add  --auth user:password")
    lost = next((folder for folder in options.folder if not folder.is_dir()), None)
    if lost is not None:
        raise InputError(f"--folder {lost} is no folder", "give a folder of this machine with pictures or base models")
    options.auth = (user, password) if options.auth else None
    options.folder = [folder.resolve() for folder in options.folder] if is_shared(options) else None
    return options


def is_shared(options: argparse.Namespace) -> bool:
    """Whether others can reach the page, so that it may read only what is meant for it."""
    return options.share or options.host not in LOOPBACK


def free_port(host: str, first: int) -> int:
    """The first port from ``first`` on that nobody listens on. Raises ``InputError`` where there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return port
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    fix = "give an address of this machine, such as 127.0.0.1"
                    raise InputError(f"--host {host} cannot be listened on: {error.strerror}", fix) from error
    raise InputError(f"ports {first} to {first + PORTS_TRIED - 1} are all taken", "give another one with --port")


def launch(page: Any, options: argparse.Namespace, settings: dict[str, Any]) -> int:
    """Serve the page in threads of its own; returns its port. One that is taken meanwhile gives the next."""
    port = options.port
    while True:
        port = free_port(options.host, port)
        try:
            page.launch(server_port=port, prevent_thread_lock=True, **settings)
            return port
        except OSError:
            port += 1


def prepare(options: argparse.Namespace, output: Path) -> tuple[Any, dict[str, Any]]:
    """The page, and what it is to be launched with.

    Goes to an empty folder first, since gradio serves what lies in the current one. The process that answers questions reads
    torch in while this one reads gradio in, and later what only later questions need.
    """
    process = desk.start("schema")
    output.mkdir(parents=True, exist_ok=True)
    state = private_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(state / "served")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.chdir(state / "empty")

    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from app import documents, site
    from app.guard import Guard, Shelf
    from app.studio import Studio

    folders = None if options.folder is None else [*options.folder, state / "served"]
    studio = Studio(output.resolve(), folders, process)
    own = [studio.output, studio.pictures.folder, studio.files.folder, studio.trials.folder, documents.FOLDER]
    shared = [folder.resolve() for folder in own]
    guard = Middleware(Guard, shelf=Shelf((state / "served").resolve(), shared, studio.state))
    allowed = Middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(options.host, options.share))
    threading.Thread(target=studio.queue.run_forever, daemon=True).start()
    atexit.register(studio.close)
    page = site.build(studio)
    studio.desk.begin("settle")
    return page, {
        "server_name": options.host,
        "auth": options.auth,
        "share": options.share,
        "app_kwargs": {"middleware": [guard, allowed]},
        "allowed_paths": [str(folder) for folder in shared],
        "blocked_paths": [str(studio.state)],
        "max_file_size": LARGEST_UPLOAD,
        "run_history": False,
        "quiet": True,
        "ssr_mode": False,
        "footer_links": [],
        **site.LOOK,
    }


def allowed_hosts(host: str, share: bool) -> list[str]:
    """Names by which a browser may ask for the page; any other could be a foreign site that points its name here."""
    names = [*LOOPBACK, host]
    if host in EVERYWHERE:
        addresses = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries]
        names = [*LOOPBACK, socket.gethostname(), *addresses]
    return names + [SHARE_HOSTS] * share
