"""The web app and the record of what people said. Knows no tensor: importing it never imports torch."""

import os

# Gradio and the hub's client read these when they are imported, which is after this.
for _name in ("GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_LOCAL_DEV_MODE", "GRADIO_ROOT_PATH"):
    os.environ.pop(_name, None)
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
