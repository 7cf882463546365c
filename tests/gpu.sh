#!/bin/sh
# Checks and measures the CUDA kernels on a machine with an NVIDIA GPU, which needs neither Rust nor
# network: it takes ready-built executables of `cargo bench -p pam-runtime --bench cuda --no-run` and,
# beside it and named `steps`, of `--bench steps` (release, x86-64), and finds that machine's libnvrtc.
#
#   tests/gpu.sh EXECUTABLE [RESULT-FOLDER] [CACHE-FOLDER]
#
# Every kernel form is compared bit for bit with the specification, directly and replayed from a
# graph; compute-sanitizer looks for bad accesses and races; the benchmark writes cuda.json. Then every
# fixture's step, and the models of target/models, run whole on the GPU: their bits are compared with
# the CPU's, and their times go to cuda_steps.json.
# CACHE-FOLDER may hold kernels compiled beforehand (`XDG_CACHE_HOME=FOLDER EXECUTABLE --compile
# sm_90a`), used only where no libnvrtc is found. Prints `N passed, M failed`.
set -u
exe=${1:?"usage: tests/gpu.sh EXECUTABLE [RESULT-FOLDER] [CACHE-FOLDER]"}
out=${2:-.}
cache=${3:-}
mkdir -p "$out"
chmod +x "$exe" 2>/dev/null
commit=$(git -C "$(dirname "$0")" rev-parse --short HEAD 2>/dev/null || echo "${PAM_COMMIT:-unknown}")
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm --format=csv 2>&1 || {
  echo "no NVIDIA GPU: nothing was measured"
  exit 2
}

# Beside PyTorch's pip packages, wherever that machine's python3 keeps them.
nvrtc=$(python3 - 2>/dev/null <<'PY'
import glob, os, sys
for folder in sys.path:
    for file in sorted(glob.glob(os.path.join(folder, "nvidia", "*", "lib", "libnvrtc.so*"))):
        print(file)
        sys.exit()
PY
)
fresh=$(mktemp -d)
export XDG_CACHE_HOME="$fresh"
if "$exe" --quick >"$out/quick.log" 2>&1; then
  nvrtc=
elif [ -n "$nvrtc" ] && "$exe" --quick --nvrtc "$nvrtc" >"$out/quick.log" 2>&1; then
  :
elif [ -n "$cache" ]; then
  echo "no libnvrtc: using the kernels compiled beforehand"
  nvrtc=
  export XDG_CACHE_HOME="$cache"
  "$exe" --quick >"$out/quick.log" 2>&1
fi
echo "quick check: $(tail -n 1 "$out/quick.log")"

run() { if [ -n "$nvrtc" ]; then "$@" --nvrtc "$nvrtc"; else "$@"; fi; }

if command -v compute-sanitizer >/dev/null 2>&1; then
  for tool in memcheck racecheck; do
    run timeout 100 compute-sanitizer --tool "$tool" --error-exitcode 9 "$exe" --quick \
      >"$out/$tool.log" 2>&1
    echo "$tool: status $?, $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$out/$tool.log" | tail -n 1)"
  done
else
  echo "compute-sanitizer is not installed: skipped"
fi

# A native float32 product without tensor cores, for scale.
python3 - 2>/dev/null <<'PY'
import torch
torch.backends.cuda.matmul.allow_tf32 = False
a, b = torch.randn(2, 4096, 4096, device="cuda")
times = []
for i in range(15):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record(); torch.mm(a, b); end.record(); end.synchronize()
    times.append(begin.elapsed_time(end))
ms = sorted(times)[7]
print(f"torch.mm float32 4096^3: {ms:.3f} ms, {4096 ** 3 / ms / 1e6:.0f} GMAC/s")
PY

run "$exe" --json "$out/cuda.json" --commit "$commit" >"$out/bench.log" 2>"$out/rows.log"
status=$?
steps=$(dirname "$exe")/steps
if [ -x "$steps" ]; then
  root=$(cd "$(dirname "$0")/.." && pwd)
  CARGO_TARGET_DIR=$out run "$steps" --device cuda --root "$root" >"$out/steps.log" 2>&1 || status=1
  if command -v compute-sanitizer >/dev/null 2>&1; then
    run timeout 200 compute-sanitizer --tool memcheck --error-exitcode 9 "$steps" --device cuda \
      --root "$root" mlp >"$out/steps-memcheck.log" 2>&1
    echo "memcheck of a whole step: status $?"
  fi
  cat "$out/steps.log"
  # PyTorch's float32 step of the same model and batch, without tensor cores.
  (cd "$root/fixtures" && python3 - <<'PY'
import importlib, torch
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
torch.set_default_device("cuda")
for name in ("deit_tiny", "iwslt"):
    torch.manual_seed(20231217)
    f = importlib.import_module(f"models.{name}").build()
    x, y = f.batch
    times = []
    for i in range(15):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        f.optimizer.zero_grad()
        f.loss(f.model(*x.values()), *y.values()).backward()
        f.optimizer.step()
        end.record(); end.synchronize()
        times.append(begin.elapsed_time(end))
    print(f"PyTorch float32 {name}: {sorted(times)[7]:.3f} ms")
PY
  ) 2>&1 | tail -n 4
fi
rm -rf "$fresh"
cat "$out/rows.log"
grep -E '"(device|driver|nvrtc|raw_over_literature|commit)"' "$out/bench.log"
grep FAILED "$out/bench.log" | head -n 20
tail -n 1 "$out/bench.log"
exit $status
