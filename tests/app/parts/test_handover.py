"""Lines to paste, against what each program expects, and verdicts as they were given."""

from __future__ import annotations

import ast

from app.parts.handover import checksum, lines, readers


def verdict(reader: str, error: float | None, message: str = "says so") -> dict[str, object]:
    return {"reader": reader, "error": error, "message": message}


def test_lines_name_the_file_and_the_trigger():
    a1111, comfyui, python = lines("my:style", "  ink\nwash ", [verdict("diffusers", 3e-4)])
    assert a1111 == "<lora:my-style:1>, ink wash"
    assert comfyui.startswith("models/loras/my-style.safetensors · Load LoRA") and comfyui.endswith(" · ink wash")
    call = ast.parse(python).body[0].value
    assert call.func.attr == "load_lora_weights" and call.keywords[0].value.value == "my-style.safetensors"
    assert lines("x", "", [])[0] == "<lora:x:1>" and lines("///", "", []) == ["", "", ""]


def test_a_name_with_quotes_is_still_python():
    for python in (lines("it's", "a 'b'", [])[2], lines("it's", "a 'b'", [verdict("diffusers", None)])[2]):
        assert "it's.safetensors" in {node.value for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Constant)}


def test_where_diffusers_fails_our_own_loader_is_named():
    for error in (None, 0.9, float("nan"), float("inf")):
        assert "morelora.load(pipe, 'x.safetensors')" in lines("x", "", [verdict("diffusers", error)])[2]
    assert "morelora" not in lines("x", "", [verdict("lycoris", None)])[2]


def test_verdicts_and_checksums_are_shown_as_text():
    shown = readers([verdict("morelora", 1e-4, "<b>same"), verdict("diffusers", None)])
    assert "note good" in shown and "note warn" in shown and "<b>same" not in shown
    assert "was not read back" in readers([])
    assert all(word in checksum({"sha256": "ab", "autov2": "CD", "autov3": "ef"}) for word in ("ab", "CD", "ef"))
