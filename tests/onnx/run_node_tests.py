"""Runs the ONNX backend node tests through `pimoe check`.

Usage: python run_node_tests.py PIMOE [--match REGEX] [--tests DIR] [--target TARGET] [--jobs N] [-v]

Needs the `onnx` and `numpy` packages. The tests come from the `onnx` package, or from DIR (one folder
per test with model.onnx and test_data_set_0/). node_tests_skipped.txt lists those that can't pass
yet, each with its reason; one that is listed and passes counts as a failure, so that the list stays
true. Inputs that must be known when a model is compiled (axes and the like) are made initializers:
see CONSTANT. Exit code 0: all as expected.
"""

import argparse
import collections
import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import numpy_helper

HERE = pathlib.Path(__file__).resolve().parent

# operator -> inputs that must be constants
CONSTANT = {
    "Squeeze": [1], "Unsqueeze": [1], "CumSum": [1], "CumProd": [1], "Slice": [3, 4], "Pad": [3], "DequantizeLinear": [0, 2],
    **{f"Reduce{name}": [1] for name in
       ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")},
}


def read_skips():
    rows = []
    for line in (HERE / "node_tests_skipped.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pattern, reason = line.split(None, 1)
            rows.append([re.compile(pattern + r"\Z"), reason, 0])
    return rows


def to_array(value):
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value if isinstance(value, (np.ndarray, np.generic)) else None


def from_package(match):
    from onnx.backend.test.loader import load_model_tests

    for case in load_model_tests(kind="node"):
        if match.search(case.name) and case.model is not None:
            inputs, outputs = case.data_sets[0]
            yield case.name, case.model, [to_array(v) for v in inputs], [to_array(v) for v in outputs], case.rtol, case.atol


def from_folder(folder, match):
    for path in sorted(folder.iterdir()):
        if not match.search(path.name):
            continue
        model = onnx.load(path / "model.onnx")
        arrays = []
        for kind, infos in (("input", model.graph.input), ("output", model.graph.output)):
            values = []
            for i, declared in enumerate(infos):
                file = path / "test_data_set_0" / f"{kind}_{i}.pb"
                if not declared.type.HasField("tensor_type") or not file.exists():
                    values.append(None)
                    continue
                values.append(numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())))
            arrays.append(values)
        yield path.name, model, *arrays, 1e-3, 1e-7


def bake(model, inputs):
    """Makes inputs that must be known initializers; returns the model and its other inputs by name."""
    wanted = set()
    for node in model.graph.node:
        for index in CONSTANT.get(node.op_type, []):
            if index < len(node.input) and node.input[index]:
                wanted.add(node.input[index])
    made = onnx.ModelProto()
    made.CopyFrom(model)
    rest = {}
    for declared, value in zip(model.graph.input, inputs):
        if declared.name in wanted and value is not None:
            made.graph.initializer.append(numpy_helper.from_array(np.asarray(value), declared.name))
        else:
            rest[declared.name] = value
    return made, rest


def run(pimoe, target, case, folder):
    name, model, inputs, outputs, rtol, atol = case
    model, inputs = bake(model, inputs)
    place = pathlib.Path(folder) / name
    place.mkdir()
    (place / "model.onnx").write_bytes(model.SerializeToString())
    wanted = {info.name: value for info, value in zip(model.graph.output, outputs)}
    for file, arrays in (("in.npz", inputs), ("want.npz", wanted)):
        try:
            known = {key: np.asarray(value, order="C") for key, value in arrays.items()
                     if value is not None and (value.dtype.kind in "fiub" or value.dtype.name == "bfloat16")}
            np.savez(place / file, **known)
        except (TypeError, ValueError, AttributeError) as error:
            return name, "refused", f"no arrays: {error}"
    command = [pimoe, "check", place / "model.onnx", f"--target={target}", "--in", place / "in.npz", "--want", place / "want.npz",
               "--rtol", str(max(rtol, 1e-5)), "--atol", str(max(atol, 1e-6)), "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return name, "timeout", ""
    for file in place.iterdir():
        file.unlink()
    if done.returncode not in (0, 1):
        return name, "crash", f"exit code {done.returncode}: {done.stderr.strip()[:200]}"
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        return name, "crash", f"no JSON: {done.stdout[:100]} {done.stderr[:200]}"
    if report["error"]:
        return name, "refused", f"{report['error']['location']}: {report['error']['message']}"
    if not report["pass"]:
        return name, "differs", f"by {report['max_abs_diff']}"
    return name, "pass", ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pimoe")
    parser.add_argument("--match", default="", help="only names that match this")
    parser.add_argument("--tests", type=pathlib.Path, help="folder of tests instead of the package's")
    parser.add_argument("--target", default="native", help="of pimoe check: native, emu")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-v", action="store_true", help="also show what is skipped")
    args = parser.parse_args()
    match = re.compile(args.match)
    cases = from_folder(args.tests, match) if args.tests else from_package(match)
    skips = read_skips()
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for name, result, text in pool.map(lambda case: run(args.pimoe, args.target, case, folder), cases):
            reason = None
            for row in skips:
                if row[0].match(name):
                    reason = row[1]
                    row[2] += 1
                    break
            if reason and result == "pass":
                counts["unexpected pass"] += 1
                print(f"UNEXPECTED PASS {name}: listed as: {reason}")
            elif reason and result not in ("crash", "timeout"):
                counts["skipped"] += 1
                if args.v:
                    print(f"skipped {name}: {reason} ({result}: {text})")
            else:
                counts[result] += 1
                if result != "pass":
                    print(f"{result.upper()} {name}: {text}")
    if not args.match:
        for row in skips:
            if row[2] == 0:
                counts["unused row"] += 1
                print(f"UNUSED ROW {row[0].pattern}")
    print(", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
    sys.exit(0 if set(counts) <= {"pass", "skipped"} else 1)


if __name__ == "__main__":
    main()
