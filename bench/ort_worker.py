"""The side of bench/onnx-vs-ort that runs ONNX Runtime: reads a request per line (JSON), answers each with a line.

{"do": "open", "model": FILE, "threads": N}   -> {"inputs": [[name, type, [dims]]…], "version": …}
{"do": "run", "inputs": FILE.npz, "outputs": FILE.npz, "seconds": S}
    runs once for the outputs (written to the file when named), then for S seconds: {"median_ms": …, "runs": …}
An answer with "error" says what ONNX Runtime said.
"""
import json
import statistics
import sys
import time

import numpy as np
import onnxruntime as ort

session = None


def open_model(request):
    global session
    options = ort.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
    return {"version": ort.__version__, "inputs": [[i.name, i.type, i.shape] for i in session.get_inputs()]}


def run(request):
    with np.load(request["inputs"]) as archive:
        inputs = {name: archive[name] for name in archive.files}
    values = session.run(None, inputs)
    if request.get("outputs"):
        np.savez(request["outputs"], **{o.name: v for o, v in zip(session.get_outputs(), values)})
    times, end = [], time.perf_counter() + request["seconds"]
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 100000):
        start = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - start)
    return {"median_ms": statistics.median(times) * 1e3, "runs": len(times)}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"open": open_model, "run": run}[request["do"]](request)
        except Exception as error:  # whatever the runtime throws is the answer
            answer = {"error": str(error).strip().split("\n")[0][:300] or type(error).__name__}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
