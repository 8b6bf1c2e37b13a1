"""What the benchmarks share: where things are, running programs, medians, tables. Standard library only."""
import datetime
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.environ.get("BENCH_WORK", os.path.join(ROOT, "build", "bench"))
CLASSICS = os.path.join(ROOT, "samples", "classics")


def busy_cores(seconds=0.5):
    """Cores that others keep busy, while this process sleeps."""
    def used():
        with open("/proc/stat", encoding="utf-8") as f:
            words = [int(w) for w in f.readline().split()[1:]]
        return sum(words[:3]) + sum(words[5:8])  # user, nice, system, interrupts, stolen
    before = used()
    time.sleep(seconds)
    return (used() - before) / os.sysconf("SC_CLK_TCK") / seconds


BUSY_BEFORE = busy_cores()  # what others did before this benchmark began


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(3)


def note(message):
    print(message, file=sys.stderr, flush=True)


def environment(variable, name, packages, modules):
    """The Python of an environment that has the packages: the one that the variable names, or build/NAME, made the first time."""
    venv = os.environ.get(variable, os.path.join(ROOT, "build", name))
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        note(f"making {venv} (once)")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    if subprocess.run([python, "-c", f"import {modules}"], capture_output=True).returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
    return python


def pimoec():
    path = os.environ.get("PIMOEC", os.path.join(ROOT, "build", "bin", "pimoec"))
    if not os.access(path, os.X_OK):
        fail(f"{path} is not there: run scripts/build first, or set PIMOEC")
    return path


def tool(name):
    """One of the C programs of this folder, compiled for this machine."""
    os.makedirs(WORK, exist_ok=True)
    source, program = os.path.join(ROOT, "bench", name + ".c"), os.path.join(WORK, name)
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        compiler = next((c for c in ("clang-22", "clang", "gcc", "cc") if shutil.which(c)), None) or fail("no C compiler")
        subprocess.run([compiler, "-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-pthread", source, "-o", program],
                       check=True)
    return program


def calibrate(threads, what):
    """What the machine reaches now: `what` is read or compute."""
    return json.loads(subprocess.run([tool("calibrate"), str(threads), what], check=True, capture_output=True, text=True).stdout)


def measure(command, runs=1, stdin=None, expect=0):
    """Runs a command with measure_process: (list of its figures per run, standard output, standard error)."""
    out, err = os.path.join(WORK, "last.out"), os.path.join(WORK, "last.err")
    options = ["-n", str(runs), "-o", out, "-e", err] + (["-i", stdin] if stdin else [])
    done = subprocess.run([tool("measure_process"), *options, *command], check=True, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    with open(out, encoding="utf-8", errors="replace") as f:
        text = f.read()
    with open(err, encoding="utf-8", errors="replace") as f:
        messages = f.read()
    for row in rows:
        if row["exit"] != expect:
            fail(f"{' '.join(command)} ended with {row['exit']}: {messages.strip()[-600:]}")
    return rows, text, messages


def program_json(command, stdin=None):
    return json.loads(measure(command, stdin=stdin)[1])


def compile_model(model, name, *options):
    """Compiles into WORK/name; returns (path, figures of the compiler's process)."""
    out = os.path.join(WORK, name)
    rows, _, _ = measure([pimoec(), "-q", model, "-o", out, *options])
    return out, rows[0]


def code_bytes(program):
    """Size of an executable without its weights: the trailer says how long those are (runtime/artifact_format.h)."""
    size = os.path.getsize(program)
    with open(program, "rb") as f:
        f.seek(size - 56)
        trailer = f.read(56)
    payload, magic = struct.unpack("<Q", trailer[:8])[0], struct.unpack("<Q", trailer[48:])[0]
    if magic != 0x31454F4D4950:
        fail(f"{program} has no trailer")
    return size - payload, payload


def middle(values):
    return statistics.median(values)


def machine():
    model, cores = "unknown", os.cpu_count()
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        lines = f.read().splitlines()
    words = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if ":" in line}
    model = f"{words.get('model name', model)} (family {words.get('cpu family')}, model {words.get('model')})"
    flags = words.get("flags", "").split()
    return {"cpu": model, "cores": cores, "avx512": "avx512f" in flags, "avx512_bf16": "avx512_bf16" in flags,
            "date": datetime.date.today().isoformat(), "busy_cores": round(max(BUSY_BEFORE, busy_cores()), 2)}


def save(name, result):
    result = {"schema_version": 1, "benchmark": name, "machine": machine(), **result}
    path = os.path.join(WORK, name + ".json")
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
    os.replace(path + ".tmp", path)
    note(f"written: {path}")
    return result


def table(head, rows):
    """A table as Markdown, its columns in line."""
    rows = [[str(c) for c in row] for row in [head, *rows]]
    width = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, width)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in width) + "|")
    return "\n".join(lines)


def verdict(value, target, least=True):
    good = value >= target if least else value <= target
    return "reached" if good else "missed"
