"""Export: what leaves, shown before it does. Markup only; static/export.js fills it."""

from __future__ import annotations

from annotator.preferences import ABOUT_PEOPLE, COLUMNS

TITLE = "Export"
NAME = "export"

_COLUMNS = "".join(
    f'<tr><th scope="row">{name}</th><td>{what}{" (about people)" if name in ABOUT_PEOPLE else ""}</td></tr>'
    for name, what in COLUMNS.items()
)

MARKUP = f"""
<div class="sail-stack">
  <section class="sail-card sail-stack">
    <h3 data-part="title">The adapter</h3>
    <div data-testid="export-facts"></div>
    <label class="sail-check" data-testid="merged" hidden><input type="checkbox">
      <span>Also the whole pipeline with the LoRA in its weights<span data-testid="merged-size"></span></span>
    </label>
    <div class="sail-row">
      <button type="button" class="sail-primary" data-testid="export" hidden></button>
      <span class="sail-dim" data-testid="export-state" aria-live="polite"></span>
    </div>
    <div data-testid="export-run" aria-live="polite" hidden></div>
  </section>
  <section class="sail-card sail-stack" data-testid="exports" hidden>
    <h3>Exports</h3>
    <ul class="sail-list sail-exports" data-testid="export-list"></ul>
  </section>
  <section class="sail-card sail-stack sail-files">
    <h3>The preferences</h3>
    <p class="sail-dim">One row for each answer except skips, and one for each of the model's own pairs that
      was not dropped, with both images, as one parquet file under the column names of Pick-a-Pic. Among its
      {len(COLUMNS)} columns {len(ABOUT_PEOPLE)} are about people; what they typed as a reason is there word
      for word. A pair without its image files is left out; the file's metadata says how many (left_out).</p>
    <details>
      <summary>What its {len(COLUMNS)} columns hold</summary>
      <table class="sail-table sail-facts" data-testid="preference-columns"><tbody>{_COLUMNS}</tbody></table>
    </details>
    <div data-testid="export-preferences"></div>
  </section>
  <section class="sail-card sail-stack sail-files">
    <h3>The history</h3>
    <p class="sail-dim">Who said and decided what, and when: every label, decision and comparison, undone ones
      too, every run, and every change of settings from what to what. A table for a spreadsheet.</p>
    <div><a class="sail-quiet" data-testid="download-history" download>Download the history as CSV</a></div>
  </section>
</div>
"""
