#!/bin/sh
# Checks and measures the CUDA kernels on a machine with an NVIDIA GPU, which needs neither Rust nor
# network: it takes a ready-built executable of `cargo bench -p pam-runtime --bench cuda --no-run`
# (release, x86-64) and finds that machine's libnvrtc.
#
#   tests/gpu.sh EXECUTABLE [RESULT-FOLDER] [CACHE-FOLDER]
#
# Every kernel form is compared bit for bit with the specification, directly and replayed from a
# graph; compute-sanitizer looks for bad accesses and races; then the benchmark writes cuda.json.
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
rm -rf "$fresh"
cat "$out/rows.log"
grep -E '"(device|driver|nvrtc|raw_over_literature|commit)"' "$out/bench.log"
grep FAILED "$out/bench.log" | head -n 20
tail -n 1 "$out/bench.log"
exit $status
