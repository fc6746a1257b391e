#!/usr/bin/env python3
"""Copies a model folder without what its levels say to the tokens: the level 1 converter becomes zero, so that every
prefix vector is zero and a token is predicted from what its decoder sees of earlier tokens alone.

    study/cut.py MODEL TARGET
"""
import json
import os
import shutil
import struct
import sys

CONVERTER = "levels.1.converter."  # its weight, and its bias where it has one

source, target = sys.argv[1:]
shutil.copytree(source, target, dirs_exist_ok=True)
with open(os.path.join(target, "model.safetensors"), "r+b") as f:
    (n,) = struct.unpack("<Q", f.read(8))
    header = json.loads(f.read(n))
    names = [name for name in header if name.startswith(CONVERTER)]
    if CONVERTER + "weight" not in names:
        sys.exit(f"study/cut.py: {source} has no {CONVERTER}weight: it has no levels, or is quantised")
    for name in names:
        begin, end = header[name]["data_offsets"]
        f.seek(8 + n + begin)
        f.write(bytes(end - begin))
