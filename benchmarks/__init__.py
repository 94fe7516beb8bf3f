"""Every claim as a command. Knows the algorithm and the starter's readers, nothing of the app."""

import os

# What libraries have to say stands between a reader and the figures.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
