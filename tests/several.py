"""Runs folders to their end one after the other, so that a test starts its processes once for all of them."""

import sys

import torch

from sail import distributed
from sail.runfolder import RunFolder
from sail.running import execute

if __name__ == "__main__":
    # A model is loaded next, and joining sets the GPU that it is loaded on.
    distributed.join()
    assert torch.distributed.is_initialized(), "who has joined is among the others"
    for folder in sys.argv[1:]:
        execute(RunFolder(folder))
