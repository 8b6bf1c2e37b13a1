#!/usr/bin/env python3
"""Puts small faults into models of mixtures of experts and looks what the compiler makes of them.

run_mutants.py PIMOE [--count=N] [--seed=S] [--models=FOLDER]... [--match=REGEX] [--only=MUTATION,…] [--jobs=N]
               [--keep=FOLDER] [--record=FILE.json] [--markdown]

Each mutant is run by ONNX Runtime, as its definition, and by `pimoe check`. Good is
  computed   the same numbers (or those of the ONNX package's own evaluator, where ONNX Runtime departs from it)
  caught     the reference refuses it, and so do we, with a diagnostic
  stricter   the reference computes something, we refuse with a diagnostic (an export that lost experts, an extent
             that can't be known): allowed, counted apart
  unjudged   the reference says that it doesn't have what the definition has
  warned     the reference refuses it, we compute something, and a warning says what was read into the model (a trace
             that is right for its example alone, read as what it was traced from)
Anything else is a fault of ours: other numbers, a crash, a result where the reference and the ONNX package's own
evaluator refuse. Exit code 0: no faults; 77: the packages onnx and onnxruntime aren't there.

Without --models the models are those of tests/data/onnx that have experts, and ones that tests/onnx/make_experts.py
writes. A folder of models has one folder for each, with model.onnx and inputs.npz.
"""
import argparse
import collections
import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnxruntime
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

from mutations import MUTATIONS, mutate

SOURCE = pathlib.Path(__file__).resolve().parents[2]
FAULTS = ("other numbers", "crash", "accepted", "no answer")
MAX_BYTES = 1 << 20


# ---- models ----------------------------------------------------------------------------------------------------

def made_models(folder):
    """(name, model, inputs) of each form that make_experts.py knows."""
    script = SOURCE / "tests/onnx/make_experts.py"
    for form in ("dense", "picked", "gathered", "tiled"):
        path = folder / f"{form}.onnx"
        subprocess.run([sys.executable, "-B", script, path, f"--form={form}", "--layers=1", "--experts=4", "--hidden=8",
                        "--inner=12"], check=True, stdout=subprocess.DEVNULL)
        yield form, onnx.load(path), {"x": np.random.default_rng(1).standard_normal((7, 8)).astype(np.float32)}


def data_models():
    for path in sorted((SOURCE / "tests/data/onnx").glob("ok_*.onnx")):
        if not re.match(r"ok_(moe|qmoe|nbits|gather_block|grouped)", path.stem):
            continue
        arrays = np.load(path.with_suffix(".npz"))
        inputs = {k[3:]: v for k, v in arrays.items() if k.startswith("in_")}
        yield path.stem, onnx.load(path), inputs


def folder_models(folder):
    for path in sorted(pathlib.Path(folder).glob("*/model.onnx")):
        inputs = path.with_name("inputs.npz")
        if inputs.exists() and path.stat().st_size <= MAX_BYTES:
            yield path.parent.name, onnx.load(path), dict(np.load(inputs))


# ---- the reference ---------------------------------------------------------------------------------------------

def ort_child(path, inputs, out):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    values = session.run(names, {k: v for k, v in inputs.items() if k in wanted})
    np.savez(out, **{n: v for n, v in zip(names, values) if v is not None})


def evaluator_child(path, inputs, out):
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(path)
    wanted = {i.name for i in model.graph.input}
    values = ReferenceEvaluator(model).run(None, {k: v for k, v in inputs.items() if k in wanted})
    np.savez(out, **{o.name: v for o, v in zip(model.graph.output, values) if v is not None})


def quiet(function, arguments):
    sys.stderr = sys.stdout = open("/dev/null", "w")
    try:
        function(*arguments)
    except BaseException as error:
        pathlib.Path(arguments[-1]).with_suffix(".error").write_text(str(error))
        os._exit(1)
    os._exit(0) # nothing of the parent's threads is waited for


def in_child(function, *arguments):
    """True when it ran to its end: a reference may crash on a mutant, too."""
    child = multiprocessing.get_context("fork").Process(target=quiet, args=(function, arguments))
    child.start()
    child.join(60)
    if child.is_alive():
        child.kill()
        child.join()
        return False
    return child.exitcode == 0


# ---- one mutant ------------------------------------------------------------------------------------------------

def pimoe_check(pimoe, folder):
    command = [pimoe, "check", folder / "model.onnx", "--json", "--threads=1", "--timeout=120", f"--in={folder}/inputs.npz",
               f"--want={folder}/want.npz"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode, None


def judge(pimoe, folder, inputs, baseline):
    """(verdict, what was said)."""
    np.savez(folder / "inputs.npz", **inputs)
    want = folder / "want.npz"
    failed = want.with_suffix(".error")
    failed.unlink(missing_ok=True)
    reference = in_child(ort_child, folder / "model.onnx", inputs, want)
    lacks = failed.exists() and re.search(r"(?i)not.?(implemented|supported)|unsupported|only supports?", failed.read_text())
    evaluated = not reference and in_child(evaluator_child, folder / "model.onnx", inputs, want)
    if not reference and not evaluated:
        np.savez(want, **baseline) # nobody knows: there should be no answer
    code, result = pimoe_check(pimoe, folder)
    error = result and result["error"]
    if result is None or code not in ((0, 1, 2) if error else (0, 1)): # 2: inputs that don't fit
        return "crash", f"exit code {code}"
    if error:
        if error["code"] in ("internal", "no-memory", "crash", "timeout") or not error["message"]:
            return "crash", error["message"]
        return "stricter" if reference else "caught", error["message"]
    if not reference and not evaluated:
        warnings = [w["message"] for w in result["warnings"] if w["code"] == "trace_of_hits"]
        if warnings:
            return "warned", warnings[0]
        return "unjudged" if lacks else "accepted", "the reference refuses it"
    if not result["pass"]:
        if not reference: # two definitions, and ours is a third
            return "accepted", "the reference refuses it, the evaluator computes other numbers"
        if in_child(evaluator_child, folder / "model.onnx", inputs, want): # what ONNX leaves open, or says otherwise
            _, again = pimoe_check(pimoe, folder)
            if again and not again["error"] and again["pass"]:
                return "computed", "as ONNX's own evaluator, which ONNX Runtime departs from"
        return "other numbers", f"differs by {result['max_abs_diff']}"
    return "computed", f"{result['moe_layers']} layers"


def try_mutant(options, folder, model, name, mutation, seed, inputs, baseline):
    try:
        made = mutate(model, mutation, seed)
    except (KeyError, IndexError, ValueError, TypeError):
        return None
    if made is None:
        return None
    mutant, done = made
    onnx.save(mutant, folder / "model.onnx")
    verdict, said = judge(options.pimoe, folder, inputs, baseline)
    changed = None
    if verdict == "computed":
        want = np.load(folder / "want.npz")
        changed = any(k not in want or want[k].shape != v.shape or not np.array_equal(want[k], v, equal_nan=False)
                      for k, v in baseline.items())
    return {"model": name, "mutation": mutation, "seed": seed, "done": done, "verdict": verdict, "said": said,
            "changed": changed, "folder": str(folder)}


def usable(options, folder, name, model, inputs):
    """The model's own results, where reference and compiler agree on it unchanged; None otherwise."""
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", **inputs)
    if not in_child(ort_child, folder / "model.onnx", inputs, folder / "want.npz"):
        return None
    code, result = pimoe_check(options.pimoe, folder)
    if code != 0 or not result["pass"]:
        return None
    return dict(np.load(folder / "want.npz"))


# ---- all -------------------------------------------------------------------------------------------------------

def plan(options, models):
    """(model, mutation, seed) in turns, so that each mutation meets many models."""
    random = np.random.default_rng(options.seed)
    names = [m for m in MUTATIONS if not options.only or m in options.only.split(",")]
    seen = set()
    while True:
        for mutation in names:
            model = models[int(random.integers(len(models)))]
            yield model, mutation, int(random.integers(1 << 30))
        seen.add(len(seen))
        if len(seen) > 40 * options.count:
            return


def table(results):
    columns = ("caught", "computed", "stricter", "warned", "unjudged") + FAULTS
    rows = [("mutation", "tried", *columns)]
    for mutation in MUTATIONS:
        own = [r for r in results if r["mutation"] == mutation]
        if own:
            counts = collections.Counter(r["verdict"] for r in own)
            rows.append((mutation, len(own), *(counts[c] for c in columns)))
    counts = collections.Counter(r["verdict"] for r in results)
    rows.append(("all", len(results), *(counts[c] for c in columns)))
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pimoe")
    p.add_argument("--count", type=int, default=40)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--models", action="append", default=[])
    p.add_argument("--match", default="")
    p.add_argument("--only", default="")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--keep")
    p.add_argument("--record")
    p.add_argument("--markdown", action="store_true")
    options = p.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(options.keep or temporary)
        root.mkdir(parents=True, exist_ok=True)
        found = [m for f in options.models for m in folder_models(f)] or [*data_models(), *made_models(root)]
        found = [m for m in found if re.search(options.match, m[0])]
        models, results = [], []

        def prepare(numbered):
            number, (name, model, inputs) = numbered
            folder = root / f"base{number}"
            folder.mkdir(exist_ok=True)
            return name, model, inputs, usable(options, folder, name, model, inputs)

        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for name, model, inputs, baseline in pool.map(prepare, enumerate(found)):
                if baseline is None:
                    print(f"left out: {name} (no agreement on the model as it is)", flush=True)
                else:
                    models.append((name, model, inputs, baseline))
        if not models:
            print("no models")
            return 1
        steps = plan(options, models)

        def one(number):
            folder = root / f"mutant{number}"
            folder.mkdir(exist_ok=True)
            for (name, model, inputs, baseline), mutation, seed in steps_of[number]:
                result = try_mutant(options, folder, model, name, mutation, seed, inputs, baseline)
                if result:
                    return result
            return None

        steps_of = collections.defaultdict(list)
        for number in range(options.count): # a mutation that doesn't fit is tried on other models
            first = next(steps)
            steps_of[number] = [first] + [(models[(first[2] + 7 * k) % len(models)], first[1], first[2] + k)
                                          for k in range(1, len(models) + 1)]
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for result in pool.map(one, range(options.count)):
                if result is None:
                    continue
                results.append(result)
                if result["verdict"] in FAULTS or options.count <= 60:
                    print(f"{result['verdict']:14} {result['model']}: {result['mutation']} ({result['seed']}): "
                          f"{result['done']}: {result['said']}"[:400], flush=True)
        for row in table(results):
            print("| " + " | ".join(str(c) for c in row) + " |" if options.markdown
                  else f"{row[0]:26}" + "".join(f"{str(c):>14}" for c in row[1:]))
            if options.markdown and row[0] == "mutation":
                print("|---" * len(row) + "|")
        changed = sum(bool(r["changed"]) for r in results)
        print(f"{len(results)} mutants of {len(models)} models; {changed} of those computed give other numbers than "
              "the model they came from")
        if options.record:
            pathlib.Path(options.record).write_text(json.dumps(results, indent=1))
    return 1 if any(r["verdict"] in FAULTS for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
