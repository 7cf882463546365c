"""Median time of a model in onnxruntime: ``reference.py MODEL INPUTS.npz THREADS SECONDS``.

Prints milliseconds. Outputs are written to memory of their own, so that no copy to Python counts.
"""

import sys
import time

import numpy as np
import onnxruntime as ort


def main() -> None:
    model, inputs, threads, seconds = sys.argv[1:]
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = int(threads), 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    with np.load(inputs) as file:
        values = {name: ort.OrtValue.ortvalue_from_numpy(file[name]) for name in file.files}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    # The first run tells the shapes; later ones write into its results.
    session.run_with_iobinding(binding)
    for output, value in zip(session.get_outputs(), binding.get_outputs()):
        binding.bind_ortvalue_output(output.name, value)
    times, end = [], time.perf_counter() + float(seconds)
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        session.run_with_iobinding(binding)
        times.append(time.perf_counter() - begin)
    print(sorted(times)[len(times) // 2] * 1e3)


main()
