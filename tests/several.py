"""Runs folders to their end one after the other, so that a test starts its processes once for all of them."""

import sys

from sail.runfolder import RunFolder
from sail.running import execute

if __name__ == "__main__":
    for folder in sys.argv[1:]:
        execute(RunFolder(folder))
