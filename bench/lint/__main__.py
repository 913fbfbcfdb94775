"""``python -m bench.lint``: the tables of docs/lint.md, from every fault at every strength."""

from __future__ import annotations

from collections.abc import Iterator

from bench.lint.score import Score, scenes, score


def tables(scores: dict[str, Score]) -> Iterator[str]:
    """Markdown: a row a rule, then a row a fault and strength, then every false alarm."""
    yield "| rule | faults | found | recall | false alarms | precision |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, one in scores.items():
        yield f"| `{name}` | {one.faults} | {one.found} | {one.recall:.2f} | {len(one.alarms)} | {one.precision:.2f} |"
    yield ""
    yield "| rule | fault | found |"
    yield "| --- | --- | --- |"
    for name, one in scores.items():
        yield from (f"| `{name}` | {strength} | {found} of {there} |" for strength, (there, found) in one.strengths.items())
    yield ""
    yield from (
        f"- `{name}` names {what} in the scene {scene}" for name, one in scores.items() for scene, what in one.alarms.values()
    )


if __name__ == "__main__":
    print("\n".join(tables(score(scenes()))))
