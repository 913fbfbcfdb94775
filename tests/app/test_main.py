"""The server: who may reach it, what it refuses, and that it serves nothing but the runs."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from app import main
from app.guard import Guard, Shelf
from trainer.errors import InputError


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--host", "0.0.0.0"], ["--host 0.0.0.0", "--auth user:password"]),
        (["--host", "192.168.1.5"], ["--host 192.168.1.5", "--auth"]),
        (["--share"], ["--share", "--auth"]),
        (["--auth", "anna"], ["user:password"]),
        (["--auth", ":secret"], ["user:password"]),
        (["--auth", "anna:"], ["user:password"]),
        (["--port", "many"], ["--port"]),
        (["--folder", "/nowhere"], ["--folder /nowhere", "is no folder"]),
        (["--language", "xx"], ["--language", "'xx'", "en"]),
        (["--preset", "x"], ["--preset"]),
        (["--host", "203.0.113.7", "--auth", "a:b"], ["203.0.113.7", "cannot be listened on"]),
    ],
)
def test_what_is_refused_ends_with_exit_code_2_and_a_fix(capsys, argv, words):
    assert main.main(argv) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Error: ") and all(word in shown for word in words)


def test_loopback_is_the_default_and_needs_no_password():
    options = main.parse([])
    assert (options.host, options.port, options.auth, options.share) == ("127.0.0.1", 7860, None, False)
    assert main.parse(["--host", "0.0.0.0", "--auth", "a:b:c"]).auth == ("a", "b:c")


def test_all_of_the_machine_is_open_to_its_user_and_only_what_was_named_to_others(tmp_path):
    assert main.parse(["--folder", str(tmp_path)]).folder is None
    assert main.parse(["--host", "0.0.0.0", "--auth", "a:b"]).folder == []
    assert main.parse(["--share", "--auth", "a:b", "--folder", str(tmp_path)]).folder == [tmp_path]


def test_the_page_speaks_the_language_asked_for_else_the_machines_else_english(monkeypatch):
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.setenv("LANG", "de_AT.UTF-8")
    assert main.parse([]).language == "de" and main.parse(["--language", "en"]).language == "en"
    monkeypatch.setenv("LANG", "C.UTF-8")
    assert main.parse([]).language == "en"


def test_a_taken_port_gives_the_next_one():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert taken < main.free_port("127.0.0.1", taken) <= taken + 20


def test_a_port_that_another_server_takes_meanwhile_gives_the_next_one():
    tried: list[int] = []

    class Page:
        def launch(self, server_port: int, **settings: object) -> None:
            tried.append(server_port)
            if len(tried) == 1:
                raise OSError(f"Cannot find empty port in range: {server_port}-{server_port}.")

    assert main.launch(Page(), main.parse(["--port", "7900"]), {}) == tried[1] > tried[0] >= 7900


def test_no_port_at_all_is_told(monkeypatch):
    monkeypatch.setattr(main, "PORTS_TRIED", 1)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(InputError, match="taken"):
            main.free_port("127.0.0.1", holder.getsockname()[1])


def test_allowed_hosts():
    assert main.allowed_hosts("127.0.0.1", False) == ["127.0.0.1", "localhost", "127.0.0.1"]
    assert main.allowed_hosts("192.168.1.5", False)[-1] == "192.168.1.5"
    everywhere = main.allowed_hosts("0.0.0.0", True)
    assert "0.0.0.0" not in everywhere and "*" not in everywhere
    assert {"127.0.0.1", "localhost", socket.gethostname(), "*.gradio.live"} <= set(everywhere)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A running server over a folder of runs; gives its address and the folder."""
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("served")
    (folder / "secret.txt").write_text("secret")
    (folder / "runs").mkdir()
    (folder / "runs" / "open.png").write_text("open")
    (folder / "runs" / "settings.toml").write_text("secret")
    (folder / "runs" / "link.png").symlink_to(folder / "secret.txt")
    page, settings = main.prepare(main.parse([]), folder / "runs")
    assert settings["max_file_size"] == "200mb"
    settings["max_file_size"] = "2mb"
    state = Path.cwd().parent
    (state / "logs" / "child.log").write_text("secret")
    port = main.free_port("127.0.0.1", 7900)
    page.launch(server_port=port, prevent_thread_lock=True, **settings)
    yield f"http://127.0.0.1:{port}", folder
    page.close()
    os.chdir(before)


def test_a_foreign_host_name_is_refused(server):
    address, _ = server
    assert httpx.get(address).status_code == 200
    assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 400
    assert httpx.post(f"{address}/gradio_api/queue/join", headers={"Host": "evil.example"}, json={}).status_code == 400


def test_only_the_runs_are_served(server):
    address, folder = server
    assert httpx.get(f"{address}/gradio_api/file={folder}/runs/open.png").text == "open"
    within = [folder / "runs" / name for name in ("link.png", "settings.toml", "../secret.txt")]
    forbidden = [folder / "secret.txt", *within, Path("/etc/passwd")]
    for path in [*forbidden, main.__file__, Path.cwd().parent / "logs" / "child.log"]:
        answer = httpx.get(f"{address}/gradio_api/file={path}")
        assert answer.status_code in (403, 404), f"{path}: {answer.status_code}"


def test_an_upload_over_the_limit_is_refused(server):
    address, _ = server
    for size, status in ((2**20, 200), (2**21 + 1, 413)):
        answer = httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.png", b"0" * size)}, timeout=60)
        assert answer.status_code == status


def test_the_page_asks_for_nothing_from_elsewhere(server):
    address, _ = server
    config = httpx.get(f"{address}/config").json()
    assert config["analytics_enabled"] is False and config["app_id"]
    theme = httpx.get(f"{address}/theme.css").text
    assert "--body-text-color" in theme
    assert not re.search(r"@import|@font-face|url\([\"']?(https?:)?//", theme)


def test_the_servers_own_folder_is_private(server):
    state = Path.cwd().parent
    assert state.stat().st_mode & 0o777 == 0o700
    assert os.environ["GRADIO_TEMP_DIR"].startswith(str(state))
    assert list(Path.cwd().iterdir()) == [], "gradio serves what lies in the current folder"


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("abc123.gradio.live", "https://abc123.gradio.live", 200),
        ("abc123.gradio.live", "https://other.gradio.live", 403),
        ("abc123.gradio.live", "null", 403),
        ("abc123.gradio.live.evil.example", "https://abc123.gradio.live.evil.example", 400),
    ],
)
def test_a_shared_page_works_under_its_public_name_and_only_from_itself(tmp_path, host, origin, status):
    """gradio's tunnel hands a request on with the public name as its Host, as the browser sent it."""
    guard = Middleware(Guard, shelf=Shelf(tmp_path, [], tmp_path))
    allowed = Middleware(TrustedHostMiddleware, allowed_hosts=main.allowed_hosts("127.0.0.1", True))
    app = FastAPI(middleware=[guard, allowed])
    app.post("/gradio_api/queue/join")(lambda: {})
    with TestClient(app, base_url=f"https://{host}") as client:
        assert client.post("/gradio_api/queue/join", headers={"Origin": origin}).status_code == status
