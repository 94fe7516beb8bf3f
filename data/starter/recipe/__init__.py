"""The starter model's recipe: emoji artwork -> a small text-to-image model.

`python -m data.starter.recipe all` rebuilds it; every step resumes. Not imported by sail or annotator.
"""
