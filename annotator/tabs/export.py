"""Export: what leaves, shown before it does. Markup only; static/export.js fills it."""

from __future__ import annotations

TITLE = "Export"
NAME = "export"

MARKUP = """
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
  </section>
  <section class="sail-card sail-stack" data-testid="exports" hidden>
    <h3>Exports</h3>
    <ul class="sail-list sail-exports" data-testid="export-list"></ul>
  </section>
  <section class="sail-card sail-stack sail-files">
    <h3>The preferences</h3>
    <p class="sail-dim">One row for each answer except skips, and one for each of the model's own pairs that
      was not dropped, with both images (PNG), as one parquet file under the column names of Pick-a-Pic:
      caption, jpg_0, jpg_1, label_0, label_1, and with them source, annotator (tells people apart, without
      their names), created_at. A pair without its image files is left out; the file's metadata says how many
      (left_out).</p>
    <div data-testid="export-preferences"></div>
  </section>
</div>
"""
