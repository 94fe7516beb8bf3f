"""The page as Gradio sees it: a head, a bar on top, the tabs. Knows no project and no data."""

from __future__ import annotations

import html
import os
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes.base import Base as Theme

from annotator.store.people import FIRST, SECOND
from annotator.tabs import compare, export, label, pair, review, rounds, setup, tryout

TABS = (setup, label, rounds, review, compare, tryout, export)
LOAD_AGAIN_MS = 2000
FONT = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")
BAR = f"""
<div class="sail-bar">
  <strong class="sail-mark">SAIL</strong>
  <label class="sail-project">
    <span class="sail-dim">Project</span>
    <select data-testid="project-select" aria-label="Project"></select>
  </label>
  <button type="button" class="sail-device" data-testid="device" title="Show in Rounds"></button>
  <button type="button" class="sail-name" data-testid="name"
    title="What you are called, and your keys"></button>
</div>
<dialog class="sail-help" data-testid="name-dialog" tabindex="-1"
  aria-label="What you are called, and your keys">
  <form class="sail-form" novalidate>
    <label><span>What shall we call you?</span>
      <input name="name" maxlength="40" autocomplete="nickname" data-testid="name-input">
      <small>Others here see it beside what you decide. What you labelled before stays yours under any
        name.</small></label>
    {pair.SINGLE_KEYS}
    <p class="sail-error" role="alert"></p>
    <div class="sail-row"><button class="sail-primary" data-testid="name-save">Save</button>
      <button type="button" class="sail-quiet" data-part="cancel">Cancel</button></div>
  </form>
</dialog>
<p class="sail-trouble" role="alert" title="Click, or Esc, closes it" data-testid="trouble" hidden></p>
"""


def build() -> Any:
    """One `gr.HTML` a tab. No event of Gradio takes anything from a browser: all goes through our routes."""
    os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(tempfile.gettempdir()) / f"sail-gradio-{os.getuid()}"))
    with gr.Blocks(
        title="SAIL", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True
    ) as blocks:
        panel(BAR, "bar")
        with gr.Tabs(selected="label", elem_id="sail-tabs"):
            for tab in TABS:
                with gr.Tab(tab.TITLE, id=tab.NAME, elem_id=f"sail-tab-{tab.NAME}"):
                    panel(tab.MARKUP, tab.NAME)
    return blocks


def panel(markup: str, name: str) -> gr.HTML:
    """Markup that the script of that name fills when it appears.

    Inert until then: a form that is sent before its script is there would reload the page.
    """
    load = f"""const root = element.querySelector(".sail-{name}");
        const said = document.createElement("p");
        // A browser may keep that a script did not come, by its address.
        const address = (times) => "/ui/{name}.js" + (times ? `?again=${{times}}` : "");
        let fault = "";
        const load = (times) => import(address(times)).then((script) => {{
          said.remove();
          script.mount(root);
          root.inert = false;
        }}, (error) => {{
          said.textContent = "This tab could not be loaded. Trying again… If it stays like this, "
            + "reload the page.";
          root.before(said);
          setTimeout(load, {LOAD_AGAIN_MS}, times + 1);
          // A script that did not come is no fault of the page; one that is wrong is told of once.
          if (error instanceof TypeError || error.message === fault) return;
          fault = error.message;
          reportError(error);
        }});
        load(0);"""
    return gr.HTML(
        f'<div class="sail sail-{name}" data-testid="panel-{name}" inert>{markup}</div>',
        js_on_load=load,
        apply_default_css=False,
    )


def head(*, default_project: str) -> str:
    """What the scripts have to know before the first request."""
    told = {"default-project": default_project, "names": f"{FIRST},{SECOND}"}
    return "".join(
        f'<meta name="sail-{name}" content="{html.escape(value, quote=True)}">'
        for name, value in told.items()
    )


def theme() -> Theme:
    """Fonts of the system: nothing is fetched from elsewhere."""
    return gr.themes.Soft(
        primary_hue="indigo",
        neutral_hue="slate",
        font=FONT,
        font_mono=("ui-monospace", "Consolas", "monospace"),
    )
