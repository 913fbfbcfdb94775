"""The recipe as a file: out of the page, into it, and kept under a name as a preset of one's own."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from app.desk import Refused
from app.page import QUIET
from app.studio import Studio
from app.text import say
from trainer.errors import InputError
from trainer.run import slug

TAKEN = [".toml", ".safetensors"]
"""A recipe, or an adapter file that holds its own."""
GIVE = """(text, name) => {
  if (!text) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'application/toml'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


class RecipeFile:
    """The components. ``taken`` and ``kept`` are for the page: the draft is another one after them."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        with gr.Row():
            self.give = gr.Button(say("recipe.export"), size="sm", min_width=130, elem_id="export")
            self.take = gr.UploadButton(say("recipe.import"), file_types=TAKEN, size="sm", min_width=130, elem_id="import")
        with gr.Row(equal_height=True, elem_classes="own"):
            self.name = gr.Textbox(label=say("recipe.own"), info=say("recipe.own_hint"), max_length=100, elem_id="own-name")
            self.keep = gr.Button(say("recipe.save"), size="sm", scale=0, min_width=90, elem_id="own-save")
        text, name = gr.Textbox(visible=False), gr.Textbox(visible=False)
        self.give.click(self.given, outputs=[text, name], **QUIET).then(None, [text, name], None, js=GIVE, **QUIET)

    def given(self) -> tuple[str, str]:
        """The recipe's TOML as it is now, and a name for its file."""
        text = self.studio.judge()["toml"]
        name = str(self.studio.draft.values.get("run", {}).get("name", ""))
        return text, f"{slug(name) if name.strip(' .-') else 'recipe'}.toml"

    def taken(self, file: str) -> str:
        """Make the recipe in an uploaded file the one that is edited; returns what to say. Raises ``Refused``."""
        values = self.studio.desk.ask("read_file", file)
        self.studio.draft.begin(values)
        has_folder = any(values.get("data", {}).get(name) for name in ("images", "sources"))
        name = Path(file).name
        return say("recipe.imported", file=name) if has_folder else say("recipe.imported_bare", file=name)

    def kept(self, name: str) -> str:
        """Keep the recipe as an own preset, which it then begins with; returns what to say. Raises ``Refused``."""
        judged = self.studio.judge()
        if judged["problem"]:
            raise Refused(judged["problem"])
        try:
            file = self.studio.own.save(name, judged["toml"])
        except (InputError, OSError) as error:
            raise Refused(str(error)) from error
        self.studio.draft.begin(self.studio.draft.values, file.stem)
        return say("recipe.saved", file=file, name=file.stem)
