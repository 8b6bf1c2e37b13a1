#!/usr/bin/env python3
"""Writes tests/data/cli: small archives for pimoe check, deflated and damaged in ways that a shell can't make."""
import pathlib
import struct

import numpy as np

out = pathlib.Path(__file__).resolve().parent.parent / "data" / "cli"
out.mkdir(parents=True, exist_ok=True)
samples = out.parent.parent.parent / "samples" / "unlike-experts"
inputs, expected = np.load(samples / "inputs.npz")["x"], np.load(samples / "expected.npz")["answer"]
x, y = inputs[:8], expected[:8].copy()
np.savez_compressed(out / "inputs_deflated.npz", x=x)
np.savez_compressed(out / "expected_deflated.npz", answer=y)
wrong = y.copy()
wrong[3] += 1
np.savez_compressed(out / "expected_wrong.npz", answer=wrong)
np.savez_compressed(out / "expected_shape.npz", answer=y[:4, 0])
np.savez_compressed(out / "expected_name.npz", anwser=y)
# an entry that claims to inflate to 4 GB - 2
bomb = bytearray((out / "inputs_deflated.npz").read_bytes())
at = bomb.index(b"PK\1\2")
struct.pack_into("<I", bomb, at + 24, 0xFFFFFFFE)
(out / "inputs_bomb.npz").write_bytes(bomb)
