"""CLIP's vocabulary and tokenizers, built in memory from the byte-pair merges that ship: no download, and nothing is written.

``assets/clip/bpe_simple_vocab_16e6.txt.gz`` is the file that OpenAI's CLIP and open_clip read themselves. The vocabulary is, in
this order: 256 bytes as printable letters, the same at a word's end, one entry for each merge, and the two marks; 49,408 in all.
Source: arXiv 2103.00020, section 2.4.
"""

from __future__ import annotations

import gzip
import zlib
from functools import cache
from pathlib import Path

from transformers import CLIPTokenizer

from trainer.errors import InputError
from trainer.models.parts import read_json

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "clip"
MERGES_FILE = ASSETS / "bpe_simple_vocab_16e6.txt.gz"
WORD_END = "</w>"
MARKS = ("<|startoftext|>", "<|endoftext|>")
SIZE = 49408

Merge = tuple[str, str]


@cache
def vocabulary() -> tuple[dict[str, int], list[Merge]]:
    """Every entry with its number, and the merges in the order in which they are tried."""
    letters = _byte_letters()
    single = [*letters, *(letter + WORD_END for letter in letters)]
    try:
        lines = gzip.decompress(MERGES_FILE.read_bytes()).decode("utf-8").splitlines()[1:]
        merges = [(left, right) for left, right in (line.split() for line in lines[: SIZE - len(single) - len(MARKS)])]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise _damaged(error) from error
    entries = [*single, *(left + right for left, right in merges), *MARKS]
    numbers = {entry: number for number, entry in enumerate(entries)}
    if len(numbers) != SIZE:
        raise _damaged(f"{len(numbers)} entries in place of {SIZE}")
    return numbers, merges


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer that a ``tokenizer_config.json`` describes, with CLIP's vocabulary. They differ in what they pad with."""
    config = read_json(folder / "tokenizer_config.json")
    config.pop("tokenizer_class", None)
    entries, merges = vocabulary()
    return CLIPTokenizer(vocab=entries, merges=merges, **config)


def _damaged(reason: object) -> InputError:
    return InputError(f"{MERGES_FILE}, CLIP's vocabulary, is damaged: {reason}", "get the folder assets/clip again")


def _byte_letters() -> list[str]:
    """A printable letter for each byte, in CLIP's order: first those that are printable as they are, then the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
