"""``python -m trainer.docs`` writes docs/settings.md from the schema; a test holds it fresh."""

from __future__ import annotations

from itertools import groupby

from morelora import ALGORITHMS, Rule
from trainer.config import Config
from trainer.config.data import FolderConfig, SourceConfig
from trainer.presets import ROOT
from trainer.schema import Setting, walk

FILE = ROOT / "docs" / "settings.md"

HEAD = """# Settings

Written by `python -m trainer.docs` from the schema (`trainer/config/` and each algorithm's `Options`); do not edit by hand.

A setting is given in a TOML file (`python3 launch.py --preset my.toml`), or on the command line with
`--set section.name=value`, which wins. On the command line a word needs no quotes, a list is written as in TOML
(`--set 'preview.prompts=["a fox", "a boat"]'`), and `none` empties a setting that is empty by default.
An unknown name, a wrong value or a setting that would have no effect ends with exit code 2 and a message that names it.

**Bold** settings are the basic ones."""

RULES = """### Rules

`[[adapter.rules]]` treats some layers otherwise. The first rule whose `match` is found in a layer's name
(`unet.…`, `text_encoder.…`) wins; a rule that matches no layer is an error. `blocks` limits a rule to blocks of the UNet by
kohya's short names; blocks without `match` are those of their layers that `adapter.layers` chooses. Other keys of a rule are
the algorithm's own options, such as `rank`.

```toml
[[adapter.rules]]
match = "attn2\\\\.to_(k|v)$"
rank = 16

[[adapter.rules]]
blocks = ["IN04", "IN05", "MID"]
rank = 32
lr = 2e-4

[[adapter.rules]]
match = "^unet\\\\.up_blocks\\\\.3"
algorithm = "none"
```
"""

SOURCES = """### Sources

`[[data.sources]]` names one folder of several; `data.images` is the short form of a single one. A source may hold these
settings of `[data]` for its own pictures: {shared}. Those that it leaves out are the run's.

```toml
[data]
trigger = "mystyle"

[[data.sources]]
path = "pictures/drawings"
repeats = 4

[[data.sources]]
path = "pictures/photos"
flip = true
```
"""


def settings_page() -> str:
    """The whole page."""
    parts = [HEAD]
    for section, group in groupby(walk(), key=lambda setting: setting.section):
        model = Config.model_fields[section].annotation
        parts.append(f"## {section}\n\n{(model.__doc__ or '').strip()}" if model else f"## {section}")
        found = list(group)
        common = [setting for setting in found if set(setting.algorithms) in (set(), set(ALGORITHMS))]
        own = [setting for setting in found if setting not in common]
        parts.append(table(common))
        if own:
            parts.append("### Options of single algorithms\n\n" + table(own, algorithms=True))
            parts.append(RULES + "\n" + table(list(walk(Rule))))
        if section == "data":
            parts.append(_sources())
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _sources() -> str:
    """The section on ``[[data.sources]]``: the settings of its own as a table, those it shares with the run by name."""
    shared = [f"`{name}`" for name in FolderConfig.model_fields]
    own = [setting for setting in walk(SourceConfig) if setting.path not in FolderConfig.model_fields]
    return SOURCES.format(shared=", ".join(shared)) + "\n" + table(own)


def table(settings: list[Setting], algorithms: bool = False) -> str:
    """A Markdown table, one row a setting."""
    heads = ["setting", *["algorithms"] * algorithms, "default", "allowed", "what it does"]
    rows = [heads, ["---"] * len(heads), *(_row(setting, algorithms) for setting in settings)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(setting: Setting, algorithms: bool) -> list[str]:
    name = f"**`{setting.path}`**" if setting.level == "basic" else f"`{setting.path}`"
    unit = f" ({setting.unit})" if setting.unit else ""
    allowed = f"{setting.allowed}{unit}".replace("|", "\\|")
    owners = [", ".join(setting.algorithms)] * algorithms
    return [name, *owners, _default(setting), allowed, setting.help.replace("|", "\\|")]


def _default(setting: Setting) -> str:
    if setting.is_required:
        return "must be given"
    if setting.default in (None, (), "", {}):
        return "empty"
    text = str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)
    return f"`{text}`"


if __name__ == "__main__":
    FILE.write_text(settings_page(), encoding="utf-8")
