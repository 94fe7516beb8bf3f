"""SAIL: align a text-to-image diffusion model with a few dozen human choices.

The algorithm alone: it knows no web page, no user and no database. It reads a run folder,
computes, and writes the same folder.
"""

__version__ = "0.1.0"
