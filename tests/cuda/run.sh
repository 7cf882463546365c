#!/bin/sh
# Checks the CUDA kernels without a GPU: compiles, disassembles and audits them for sm_80 and
# sm_90a, then runs the same sources on the CPU, bit for bit against an independent specification,
# also under the address and undefined-behaviour sanitizers, and shows that broken kernels fail. The
# programs that the tests of whole plans (`cargo test --test cuda_plans`) have generated are audited too.
# Prints `N passed, M failed`. Needs python3 and g++; NVRTC and ptxas come from PyPI (set
# PAM_CUDA_PYTHON to a python that has the packages to download nothing).
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${CARGO_TARGET_DIR:-$root/target}/cuda-tests
mkdir -p "$work"
passed=0
failed=0

# Adds the counts of a command's last line, or one failure if it printed none.
tally() {
  line=$(tail -n 1 "$1")
  case $line in
  *" passed, "*" failed")
    passed=$((passed + ${line%% passed*}))
    line=${line##*passed, }
    failed=$((failed + ${line%% failed*}))
    ;;
  *) failed=$((failed + 1)) ;;
  esac
  sed '$d' "$1"
}
result() { # result NAME STATUS
  if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAILED $1"; fi
}

python=${PAM_CUDA_PYTHON:-$work/venv/bin/python}
if [ ! -x "$python" ]; then
  python3 -m venv "$work/venv" &&
    "$python" -m pip install -q --disable-pip-version-check -r "$here/requirements.txt" || {
    echo "cannot install NVRTC and ptxas"
    echo "$passed passed, $((failed + 1)) failed"
    exit 1
  }
fi
"$python" "$here/check_code.py" "$work/code" "${CARGO_TARGET_DIR:-$root/target}/tmp/generated" >"$work/code.log" 2>&1
tally "$work/code.log"

flags="-std=c++17 -ffp-contract=off -fno-strict-aliasing -fno-extern-tls-init -Wno-unknown-pragmas"
# compile FOLDER EXTRA-FLAGS: builds the kernels under FOLDER/kernels/cuda with the tests beside them.
compile() {
  src=$1/kernels/cuda
  tests=$1/tests/cuda
  out=$2
  mkdir -p "$out"
  shift 2
  for kernel in "$src"/*.cu; do
    g++ $flags "$@" -include "$tests/shim.h" -x c++ -c "$kernel" -o "$out/$(basename "$kernel").o" || return 1
  done
  for test in "$tests"/*.cpp; do
    g++ $flags "$@" -Wall -include "$tests/shim.h" -c "$test" -o "$out/$(basename "$test").o" || return 1
  done
  for test in "$out"/test_*.o; do
    g++ "$@" "$out"/*.cu.o "$out/shim.cpp.o" "$test" -o "${test%.cpp.o}" || return 1
  done
}

compile "$root" "$work/plain" -O2
result "the kernels compile for the CPU" $?
for test in "$work"/plain/test_*; do
  case $test in *.o) continue ;; esac
  "$test" >"$work/test.log" 2>&1
  tally "$work/test.log"
done

compile "$root" "$work/sanitized" -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
result "the kernels compile under the sanitizers" $?
for test in "$work"/sanitized/test_*; do
  case $test in *.o) continue ;; esac
  ASAN_OPTIONS=detect_stack_use_after_return=0 "$test" brief >"$work/sanitized.log" 2>&1
  tally "$work/sanitized.log"
done

# mutate NAME FILE SED-SCRIPT TEST: the test has to fail on the edited kernel.
mutate() {
  copy=$work/mutant
  rm -rf "$copy"
  mkdir -p "$copy/kernels" "$copy/tests"
  cp -r "$root/kernels/cuda" "$copy/kernels/"
  cp -r "$here" "$copy/tests/"
  sed -i "$3" "$copy/kernels/cuda/$2"
  if cmp -s "$copy/kernels/cuda/$2" "$root/kernels/cuda/$2"; then
    result "$1: the edit did not apply" 1
    return
  fi
  # Only the test at hand is built.
  for test in "$copy"/tests/cuda/test_*.cpp; do
    [ "$(basename "$test")" = "$4.cpp" ] || rm "$test"
  done
  compile "$copy" "$copy/out" -O1 -g -fsanitize=address || { result "$1: does not compile" 1; return; }
  if "$copy/out/$4" brief >"$work/mutant.log" 2>&1; then
    result "$1 was not caught" 1
  else
    result "$1" 0
  fi
}
# The n-th barrier of a file, by deleting the line.
nth() { grep -n '__syncthreads();' "$root/kernels/cuda/$1" | sed -n "$2p" | cut -d: -f1; }
mutate "contract: no barrier before a tile is read" contract.cu "$(nth contract.cu 1)d" test_contract
mutate "contract: no barrier before a tile is overwritten" contract.cu "$(nth contract.cu 2)d" test_contract
mutate "contract: no wait for the copies" contract.cu '/copy_wait<1>/d' test_contract
mutate "grad: no barrier before a tile is read" grad.cu "$(nth grad.cu 1)d" test_contract
mutate "pack: no barrier before the tile is read" tile.cuh "$(nth tile.cuh 1)d" test_contract
mutate "conv: no barrier before a tile is overwritten" conv.cu "$(nth conv.cu 3)d" test_conv
mutate "conv: a column too many" conv.cu 's/col < cols) {/col <= cols) {/' test_conv
mutate "reduce: no barrier before lanes are read" reduce.cu "$(nth reduce.cu 1)d" test_reduce
mutate "reduce: one element too few" reduce.cu 's/r < count; r += 16/r + 1 < count; r += 16/' test_reduce
mutate "pack: reads one row too many" pack.cu 's/row < rows \&\& k < depth/row <= rows \&\& k < depth/' test_contract
mutate "store: one column too many" tile.cuh 's/first_col + j < out.cols/first_col + j <= out.cols/' test_contract
mutate "contract: one k too few" product.cuh 's/k + UNROLL <= count/k + UNROLL < count/; s/; k < count; ++k/; k + 1 < count; ++k/' test_contract
rm -rf "$work/mutant"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
