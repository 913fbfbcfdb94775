"""Hostile requests to a running server: each is refused, no secret comes back, nothing is written, and the app goes on."""

from __future__ import annotations

import http.client
import io
import json
import pickle
import struct
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.main import LARGEST_UPLOAD
from app.queue import Queue
from tests.app.serving import Server
from trainer import presets, settings
from trainer.events import Failed, Preview, Started, Step, Warned
from trainer.run import RunDir
from trainer.trial import TrialDir

SECRET = "secret-7f3a91"
BAD = "<img src=x onerror=alert(1)>"
SCRIPT = "<script>alert(1)</script>"
META = {"_type": "gradio.FileData"}
JSON = {"Content-Type": "application/json"}
MIXED = {"Content-Type": "multipart/form-data; boundary=b"}
REFUSED = range(400, 500)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over a folder with secrets in and beside what it serves; it starts no run, since one is held already."""
    folder = tmp_path_factory.mktemp("siege") / "home"
    plant(folder)
    held = RunDir(folder / "runs" / "held")
    held.lock()
    server = Server(folder)
    yield server
    server.stop()
    held.unlock()
    assert not [job for job in Queue(folder / "runs", folder / "runs" / ".app").jobs() if not job.waits], "a run was started"


def plant(folder: Path) -> None:
    """Secrets that no answer may hold, and a run whose every word is hostile."""
    outside = folder / "outside"
    outside.mkdir(parents=True)
    (folder / "secret.png").write_text(SECRET)
    (outside / "secret.png").write_text(SECRET)
    for name in ("held", f"{BAD.replace('/', '')}"):
        run = RunDir(folder / "runs" / name)
        run.previews.mkdir(parents=True)
        values = settings.apply(presets.load("pocket-lora"), [f"data.trigger={json.dumps(SCRIPT)}"])
        run.config_file.write_text(f"# {SECRET}\n{settings.dump(values)}", encoding="utf-8")
        run.log_file.write_text(SCRIPT, encoding="utf-8")
        (run.path / "secret.toml").write_text(SECRET)
        run.preview_file(0, 0).write_bytes(picture())
        part = {"component": SCRIPT, "algorithm": SCRIPT, "layers": 1, "parameters": 1}
        run.emit(Started({"steps": 2, "trained": [part], "pictures": 1, "dropped": 0, "device": SCRIPT}, 0))
        run.emit(Step(1, 0.5, 1e-3, 1.0, 1.0))
        run.emit(Preview(0, [run.relative(run.preview_file(0, 0)), "../../secret.png", "/etc/passwd"], [f"{SCRIPT} {BAD}"]))
        run.emit(Warned(SCRIPT))
        run.emit(Failed(2, f"{SCRIPT} {BAD}"))
        (run.previews / "link.png").symlink_to(folder / "secret.png")
    (folder / "runs" / "away").symlink_to(outside)
    trial = TrialDir(folder / "trials" / "000001")
    trial.path.mkdir(parents=True)
    asked = {"preview": {"prompts": [f"{SCRIPT} {BAD}"], "negative": BAD}, "adapters": [{"file": SCRIPT, "strength": 1.0}]}
    trial.recipe_file.write_text(f"# {SECRET}\n{settings.dump(asked)}", encoding="utf-8")
    trial.log_file.write_text(f"Error: {SCRIPT} {BAD}", encoding="utf-8")
    state = folder / "runs" / ".app"
    (state / "logs").mkdir(parents=True)
    (state / "logs" / "x.png").write_text(SECRET)


def picture(size: tuple[int, int] = (64, 64)) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def bomb() -> bytes:
    """A PNG of 50 kilobytes with 400 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes(20_000 * 2_501), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../burst.png", bytes(50 * 2**20))
    return stream.getvalue()


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path(self.file).touch, ()


def send(server: Server, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """One request as it stands: no client tidies the path."""
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=60)
    given = headers or {}
    connection.putrequest(method, path, skip_host="Host" in given)
    for name, value in given.items():
        connection.putheader(name, value)
    if method not in ("GET", "HEAD") and "Content-Length" not in given and "Transfer-Encoding" not in given:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    if body:
        connection.send(body)
    answer = connection.getresponse()
    found = answer.status, answer.read(100_000)
    connection.close()
    return found


def files_of(server: Server) -> set[str]:
    """Everything that a request could have written beside what the app keeps for itself."""
    own = ("runs", "datasets", "recipes", "trials", "server.log")
    found = [path.relative_to(server.folder) for path in server.folder.rglob("*")]
    return {
        str(path) for path in found if path.parts[0] not in own and not path.parts[0].startswith(("morelora-", "torch", "tmp"))
    }


def is_harmless(text: str) -> bool:
    """Whether an answer holds no secret and no fault of the program."""
    return not any(word in text for word in (SECRET, "Traceback", 'File "/', "root:"))


def join(**more: Any) -> bytes:
    return json.dumps({"data": [], "fn_index": 0, "session_hash": "mallory", **more}).encode()


FILE = "/gradio_api/file="
PATHS = [
    "/etc/passwd", "../secret.png", "{folder}/secret.png", "{folder}/outside/secret.png", "{folder}/runs/../secret.png",
    "{folder}/runs/%2e%2e/secret.png", "{folder}/runs/..%2fsecret.png", "{folder}/runs/held/previews/link.png",
    "{folder}/runs/away/secret.png", "{folder}/runs/held/config.toml", "{folder}/runs/held/secret.toml",
    "{folder}/trials/000001/trial.toml", "{folder}/trials/000001/log.txt",
    "{folder}/runs/held/train.log", "{folder}/runs/held/events.jsonl", "{folder}/runs/.app/logs/x.png",
    "{folder}/runs/.APP/logs/x.png", "{folder}/server.log", "{folder}/runs/held/secret.toml%00.png", "{folder}/runs/held",
    "file:///etc/passwd", "http://127.0.0.1:1/x.png", "//etc/passwd", "~/.ssh/id_rsa", "/proc/self/environ", "%00", "%ff.png",
    "C:%5CWindows%5Cwin.ini", "a" * 5000 + ".png",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[-40:])
def test_no_other_file_is_served(server, path):
    before = files_of(server)
    for route in (FILE, "/gradio_api/file/", "/file="):
        status, body = send(server, "GET", route + path.format(folder=server.folder))
        assert status in REFUSED and is_harmless(body.decode(errors="replace")), f"{route}: {status} {body[:200]!r}"
    assert server.is_well() and files_of(server) == before


REQUESTS: list[tuple[str, str, bytes, dict[str, str] | None]] = [
    ("GET", "/static/../../../../etc/passwd", b"", None),
    ("GET", "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", b"", None),
    ("GET", "/assets/..%2f..%2f..%2f..%2fetc/passwd", b"", None),
    ("GET", "/svelte/..%2f..%2fetc/passwd", b"", None),
    ("GET", "/gradio_api/custom_component/1/client/component/..%2f..%2fx.js", b"", None),
    ("GET", "/pwa_icon/..%2f..%2fsecret.png", b"", None),
    ("GET", "/train/../../etc/passwd", b"", None),
    ("GET", "/.app/draft.json", b"", None),
    ("GET", "/gradio_api/proxy=http://127.0.0.1:1/x", b"", None),
    ("GET", "/gradio_api/dev/reload", b"", None),
    ("GET", "/monitoring/summary", b"", None),
    ("GET", "/gradio_api/runs", b"", None),
    ("POST", "/gradio_api/run-history/connect", b'{"bucket_id": "a/b"}', JSON),
    ("POST", "/gradio_api/vibe-edit", b'{"prompt": "x"}', JSON),
    ("POST", "/gradio_api/process_recording", b"--b--", MIXED),
    ("POST", "/gradio_api/run/show", join(), JSON),
    ("POST", "/gradio_api/api/show", join(), JSON),
    ("POST", "/gradio_api/call/show", join(), JSON),
    ("GET", "/", b"", {"Host": "evil.example"}),
    ("GET", "/", b"", {"Host": "127.0.0.1@evil.example"}),
    ("POST", "/gradio_api/queue/join", join(), {**JSON, "Host": "evil.example"}),
    ("POST", "/gradio_api/queue/join", join(), {**JSON, "Origin": "http://evil.example"}),
    ("POST", "/gradio_api/upload", b"--b--", {**MIXED, "Origin": "null"}),
    ("PUT", "/", b"", None),
    ("DELETE", "/", b"", None),
    ("TRACE", "/", b"", None),
    ("HEAD", FILE + "/etc/passwd", b"", None),
    ("DELETE", FILE + "{folder}/runs/held/previews/000000-00.png", b"", None),
    ("PUT", "/gradio_api/upload", b"--b--", MIXED),
    ("POST", "/gradio_api/upload", b"x", JSON),
    ("POST", "/gradio_api/upload", b"x", {"Content-Type": "multipart/form-data"}),
    ("POST", "/gradio_api/upload", b"x", MIXED),
    ("POST", "/gradio_api/queue/join", b"{torn", JSON),
    ("POST", "/gradio_api/queue/join", b"[]", JSON),
    ("POST", "/gradio_api/queue/join", b"[" * 100_000, JSON),
    ("POST", "/gradio_api/queue/join", b"x" * (17 * 2**20), JSON),
    ("POST", "/gradio_api/queue/join", b"", {**JSON, "Content-Length": "-1"}),
    ("POST", "/gradio_api/queue/join", join(data="text"), JSON),
    ("POST", "/gradio_api/queue/join", join(session_hash=None), JSON),
    ("POST", "/gradio_api/queue/join", join(session_hash={"a": 1}), JSON),
    ("POST", "/gradio_api/queue/join", join(fn_index=-1), JSON),
    ("POST", "/gradio_api/queue/join", join(fn_index=10**9), JSON),
    ("POST", "/gradio_api/queue/join", join(fn_index=float("nan")), JSON),
    ("POST", "/gradio_api/queue/join", join(), {"Content-Type": "text/plain"}),
    ("POST", "/gradio_api/cancel", b"{}", JSON),
    ("POST", "/gradio_api/component_server", b'{"session_hash":"a","component_id":1,"fn_name":"__class__","data":1}', JSON),
    ("POST", "/gradio_api/component_server", b'{"session_hash":"a","component_id":-1,"fn_name":"x","data":1}', JSON),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"), REQUESTS, ids=[f"{i}-{r[0]}-{r[1]}" for i, r in enumerate(REQUESTS)]
)
def test_a_hostile_request_is_refused(server, method, path, body, headers):
    before = files_of(server)
    try:
        status, answer = send(server, method, path.format(folder=server.folder), body, headers)
    except (ConnectionError, http.client.HTTPException):
        status, answer = 400, b""  # the server hung up
    assert status in REFUSED, f"{status} {answer[:200]!r}"
    assert is_harmless(answer.decode(errors="replace"))
    assert server.is_well() and files_of(server) == before


def test_a_page_of_an_earlier_start_is_told_to_load_again(server):
    status, answer = send(server, "POST", "/gradio_api/queue/join", join(fn_index=10**6), JSON)
    assert status == 404 and "Load it again" in json.loads(answer)["detail"] and "Traceback" not in server.log()[-2000:]


def test_refusals_are_logged_on_one_line_each(server):
    send(server, "GET", f"{FILE}/etc/passwd%0aGET%20forged")
    assert "GET '/gradio_api/file=/etc/passwd\\nGET forged': 403" in server.log()


# uploads


def upload(server: Server, name: str, content: Any) -> Any:
    return server.client.post("/gradio_api/upload", files={"files": (name, content)})


def in_folder(server: Server, path: str) -> bool:
    return Path(path).resolve().is_relative_to(next(server.folder.glob("morelora-*")) / "served")


@pytest.mark.parametrize(
    "name",
    ["../../evil.png", "/etc/cron.d/evil", "..\\..\\evil.png", "%2e%2e%2fevil.png", ".bashrc", "a" * 400 + ".png", "a\0b.png"],
)
def test_an_upload_stays_in_its_folder_whatever_it_is_called(server, name):
    before = files_of(server)
    answer = upload(server, name, b"x")
    assert answer.status_code in REFUSED or all(in_folder(server, path) for path in answer.json()), answer.text
    assert server.is_well() and files_of(server) == before


def test_an_upload_beyond_the_limit_is_refused_and_leaves_nothing(server):
    megabytes = int(LARGEST_UPLOAD.removesuffix("mb"))
    served = next(server.folder.glob("morelora-*")) / "served"
    before = files_of(server) | {str(path) for path in served.rglob("*")}
    block = bytes(2**20)
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(megabytes + 1):
            yield block

    try:
        status = server.client.post("/gradio_api/upload", content=body(), headers=MIXED).status_code
    except Exception as error:  # the server may hang up before everything is sent
        assert "write" in type(error).__name__.lower() or "closed" in str(error), error
        status = 413
    assert status == 413 and server.is_well()
    assert files_of(server) | {str(path) for path in served.rglob("*")} == before


def take(server: Server, *files: tuple[str, bytes], name: str = "set") -> str:
    """Upload files and make a set of them; what the page shows of it as HTML."""
    given = [{"path": upload(server, *file).json()[0], "meta": META, "orig_name": file[0]} for file in files]
    return server.markup("dataset/upload.upload", given, name)


def faults(server: Server) -> str:
    """The faults that the page of pictures draws beside their buttons."""
    session = uuid.uuid4().hex
    server.call("dataset/load", session=session)
    draw = next(name for name in server.functions if name.startswith("dataset/load-"))
    return json.dumps(server.call(draw, None, session=session)["output"]["render_config"]["components"])


def test_files_outside_are_not_taken_for_uploads(server):
    for path in ("/etc/passwd", str(server.folder / "secret.png"), str(server.runs / "held" / "config.toml"), "../secret.png"):
        for function in [name for name in server.functions if name.endswith(".upload")]:
            inputs = len(server.functions[function]["inputs"]) - 1
            for given in ({"path": path, "meta": META}, {"path": path}, path):
                answer = server.call(function, [given], *["x"] * inputs)
                assert not answer["success"] and is_harmless(json.dumps(answer)), (function, answer)
    assert server.is_well() and not (server.folder / "datasets" / "x").exists()


def test_what_is_no_picture_is_refused_in_words(server):
    files = {"ok.png": picture((300, 300)), "bomb.png": bomb(), "zip.png": zip_bomb(), "x.zip": zip_bomb(), "x.html": b"x"}
    shown = take(server, *files.items()) + faults(server)
    assert is_harmless(shown) and all(f"{name}.png" in shown for name in ("bomb", "zip")) and "What to do" in shown
    assert sorted(file.name for file in (server.folder / "datasets" / "set").iterdir()) == ["bomb.png", "ok.png", "zip.png"]
    assert not list(server.folder.rglob("burst*")) and server.is_well()


def test_captions_and_set_names_are_shown_as_text(server):
    shown = take(server, ("a.png", picture((300, 300))), ("a.txt", f"{SCRIPT}, {BAD}".encode()), name=f"../{BAD}") + faults(
        server
    )
    assert SCRIPT not in shown and BAD not in shown and "&lt;script&gt;" in shown
    made = server.folder / "datasets" / "img src=x onerror=alert(1)"
    assert (made / "a.txt").is_file() and made.parent.parent == server.folder
    assert server.is_well()


# the pages' functions


@pytest.mark.parametrize("page", ["home/load-1", "train/load", "samples/load", "runs/load", "tryit/load", "recipe/load"])
def test_a_hostile_run_is_shown_as_text(server, page):
    evil = BAD.replace("/", "")
    inputs = len(server.functions[page]["inputs"])
    session = uuid.uuid4().hex
    shown = server.markup(page, *["", None][:inputs], session=session)
    if page.partition("/")[0] in ("train", "samples"):
        shown += server.markup(f"{page.partition('/')[0]}/run.input", evil, session=session)
    if page == "runs/load":
        shown += server.markup("runs/compared.change", [evil, "held"], session=session)
    assert BAD not in shown and evil not in shown and SCRIPT not in shown and is_harmless(shown)
    assert page == "recipe/load" or "&lt;" in shown


WRONG: list[Any] = [
    None,
    {"path": "/etc/passwd", "meta": META},
    -1e308,
    [],
    "../../etc/passwd\0",
    float("nan"),
]
SLOW = ("check/look.click",)
"""Asked once, elsewhere: it starts a process of its own."""


@pytest.mark.parametrize("wrong", [*WRONG, "too few", "too many"], ids=repr)
def test_every_function_bears_wrong_values(server, wrong):
    before, session = files_of(server), uuid.uuid4().hex
    asked = 0
    for name, function in server.functions.items():
        if name not in SLOW:
            count = len(function["inputs"])
            data = {"too few": [0] * (count - 1), "too many": [0] * (count + 3)}.get(str(wrong), [wrong] * count)
            asked += server.join(name, data, session).status_code == 200
    answers = server.answers(session, asked).values()
    assert len(answers) == asked > 20
    assert all(is_harmless(json.dumps(answer["output"])) for answer in answers)
    assert server.is_well() and files_of(server) == before
    own = server.folder / "recipes"
    assert all(path.parent == own and path.suffix == ".toml" for path in own.rglob("*"))
    assert not [path for path in server.runs.iterdir() if path.name not in ("held", "away", ".app", BAD.replace("/", ""))]


def test_a_session_sees_nothing_of_another_one(server):
    mine = uuid.uuid4().hex
    server.call("dataset/load", session=mine)
    chosen = {"index": 0, "value": None, "selected": True, "_data": {"index": 0, "value": None}}
    theirs = server.call("dataset/gallery.select", None, session=uuid.uuid4().hex, event_data=chosen)
    assert not theirs["success"] and is_harmless(json.dumps(theirs["output"]))
    outside = str(server.folder / "outside" / "secret.png")
    forged = {"pictures": [{"file": outside, "name": "x", "caption": "", "read": ""}], "most_tokens": 75}
    server.call("dataset/save-caption.click", forged, 0, "overwritten", session=mine)
    assert not list(server.folder.rglob("secret.txt")) and server.is_well()


@pytest.mark.parametrize("name", ["../held", "/etc", ".app", "..", "away", "nobody"])
def test_only_runs_can_be_asked_for(server, name):
    before = asked_for(server)
    for function in ("train/stop.click", "train/sample.click", "train/save.click", "train/resume.click", "runs/again.click"):
        server.call(function, name)
    assert asked_for(server) == before and server.is_well()


def asked_for(server: Server) -> tuple[set[Path], list[str]]:
    """What runs were asked for, and the jobs."""
    queue = server.runs / ".app" / "queue.json"
    files = {path for path in server.folder.rglob("*") if path.name in ("stop", "sample", "save")}
    return files, [job["name"] for job in json.loads(queue.read_text())["jobs"]] if queue.exists() else []


def test_a_pickle_that_is_called_safetensors_is_refused_in_words(server):
    """As the base model of a recipe that is looked at."""
    sprung = server.folder / "sprung"
    file = server.folder / "base.safetensors"
    file.write_bytes(pickle.dumps(Trap(sprung)))
    recipe = settings.dump(settings.apply(presets.load("pocket-lora"), [f"model.base={json.dumps(str(file))}"]))
    (server.runs / "held" / "config.toml").write_text(recipe)
    session = uuid.uuid4().hex
    server.markup("runs/load", "", None, session=session)
    assert server.values("runs/clone.click", ["held"], session=session) == ["yes"]
    shown = server.markup("check/look.click")
    assert "base.safetensors" in shown and "safetensors" in shown and is_harmless(shown)
    assert not sprung.exists() and server.is_well()
