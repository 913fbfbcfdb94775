"""The app as its users start it: a process over a folder, asked over HTTP as a browser does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from trainer.presets import ROOT

PATIENCE = 120.0


def heed_interrupts() -> None:
    """Runs in the child before the program: it hears Ctrl-C also where the tests themselves run in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Server:
    """A running app over ``folder/runs`` and ``folder/datasets``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.runs, self.log_file = folder, folder / "runs", folder / "server.log"
        self.address = f"http://127.0.0.1:{_free_port()}"
        command = [sys.executable, str(ROOT / "launch.py"), "--no-venv", "--language", "en"]
        command += ["--port", self.address.rpartition(":")[2]]
        environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=heed_interrupts,
            )  # fmt: skip
        self.client = httpx.Client(base_url=self.address, timeout=PATIENCE)
        wait_for(lambda: f"Open {self.address} " in self.log(), self.log)
        self.config = self.client.get("/config").json()
        self.components = {each["id"]: each for each in self.config["components"]}
        self.functions = self._functions()

    def log(self) -> str:
        """What it printed, and what servers before it on this folder printed."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def is_well(self) -> bool:
        """Whether the first page comes."""
        return self.client.get("/").status_code == 200

    def join(self, name: str | int, data: Sequence[Any], session: str, **more: Any) -> httpx.Response:
        """Ask for a page's function, by its name as in ``functions`` or its number; ``answers`` has what comes of it."""
        number = self.functions[name]["id"] if isinstance(name, str) else name
        body = {"fn_index": number, "data": list(data), "session_hash": session, "trigger_id": None, **more}
        return self.client.post("/gradio_api/queue/join", content=json.dumps(body), headers={"Content-Type": "application/json"})

    def answers(self, session: str, count: int = 1) -> dict[str, dict[str, Any]]:
        """The last messages of ``count`` calls of a session, by event."""
        found: dict[str, dict[str, Any]] = {}
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    found[message["event_id"]] = message
                if len(found) == count:
                    return found
        raise AssertionError(f"{len(found)} of {count} answers")

    def call(self, name: str | int, *data: Any, session: str = "", **more: Any) -> dict[str, Any]:
        """The last message of one call; one that was not taken looks like a failed one."""
        session = session or uuid.uuid4().hex
        joined = self.join(name, data, session, **more)
        if joined.status_code != 200:
            return {"success": False, "output": joined.json()}
        return next(iter(self.answers(session).values()))

    def values(self, name: str, *data: Any, session: str = "", **more: Any) -> list[Any]:
        """What a call gives each of its outputs; the value alone where other properties are set too."""
        message = self.call(name, *data, session=session, **more)
        assert message["success"], (name, message["output"], self.log()[-3000:])
        return [
            each.get("value") if isinstance(each, dict) and "__type__" in each else each for each in message["output"]["data"]
        ]

    def markup(self, name: str, *data: Any, session: str = "", **more: Any) -> str:
        """What of it is shown as HTML."""
        kinds = [self.components[number]["type"] for number in self.functions[name]["outputs"]]
        pairs = zip(kinds, self.values(name, *data, session=session, **more), strict=True)
        return "".join(str(value) for kind, value in pairs if kind in ("html", "markdown"))

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C does; with everything that it started for itself."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def _functions(self) -> dict[str, dict[str, Any]]:
        """Those with a part in the server: ``page/component.event`` by the component's id or kind, ``page/load``."""
        found: dict[str, dict[str, Any]] = {}
        of_page = {number: page or "home" for page, parts in self.config["page"].items() for number in parts["dependencies"]}
        for each in self.config["dependencies"]:
            target, event = (each["targets"] or [(None, "")])[0]
            component = self.components.get(target, {"props": {}, "type": ""})
            name = component["props"].get("elem_id") or component["type"]
            key = f"{of_page.get(each['id'], 'home')}/{name}.{event}".replace("/.load", "/load")
            if each["backend_fn"]:
                found[key if key not in found else f"{key}-{each['id']}"] = each
        return found


def wait_for(what: Any, words: Any = lambda: "", seconds: float = PATIENCE) -> None:
    """Until ``what()`` is true; fails with ``words()``."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, words()
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
