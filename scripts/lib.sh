# Shared by the scripts beside it: where the repository is, help, and one way to build.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Where scripts/setup puts NVRTC if the machine has none; looked at before all others then.
nvrtc=$root/.cache/cuda
[[ ! -d $nvrtc ]] || export TANDEM_CUDA_PATH=${TANDEM_CUDA_PATH:+$TANDEM_CUDA_PATH:}$nvrtc

# Prints the comment at the top of the calling script.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" | sed '/^[^ ]*set -/d'; }

die() {
  echo "${0##*/}: $*" >&2
  exit 2
}

# build PRESET "TARGETS" [cmake options]: configures build-PRESET and builds TARGETS there (all, if empty).
build() {
  local preset=$1 targets=$2 out
  shift 2
  if ! out=$(cd "$root" && cmake --preset "$preset" "$@" 2>&1); then
    printf '%s\n' "$out" >&2
    exit 1
  fi
  # shellcheck disable=SC2086
  cmake --build "$root/build-$preset" --parallel "$(nproc)" ${targets:+--target $targets} || exit 1
}
