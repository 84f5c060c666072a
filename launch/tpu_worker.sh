#!/usr/bin/env bash
# What launch/tpu_vm.sh does on each worker of a TPU slice, as root, so that all of them write to the share as the same
# user: tpu_worker.sh prepare SHARE | forget LOGS | start LOGS SLICE RESTARTS VERB ... | report LOGS OFFSET
set -euo pipefail

mount_point=/mnt/spanbert
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Beside the checkout, which is replaced when it is installed again.
home=$checkout-home
pid_file=$home/supervisor.pid
# shellcheck source=launch/common.sh
source "$checkout/launch/common.sh"

# Mounts the share and installs this checkout. The images bring an older Python than the program needs, so uv, which
# comes from the Python package index, fetches one.
prepare() {
  if ! mountpoint -q "$mount_point"; then
    command -v mount.nfs > /dev/null || { apt-get -qq update && apt-get -qq install --yes nfs-common; }
    mkdir -p "$mount_point"
    # Files that another worker has just made are looked for at the server, not in a list of what was missing before.
    mount -t nfs -o hard,lookupcache=positive "$1" "$mount_point"
  fi
  mkdir -p "$home"
  export UV_PYTHON_INSTALL_DIR=$home/python
  python3 -m pip install --quiet --upgrade --target "$home/uv" uv
  "$home/uv/bin/uv" venv --quiet --clear --python 3.12 "$home/venv"
  "$home/uv/bin/uv" pip install --quiet --python "$home/venv/bin/python" "${checkout}[tpu]"
}

# Starts the run in the background, where the end of the connection does not reach it. Does nothing while it runs.
start() {
  supervised && return
  mkdir -p "$1" "$home"
  nohup setsid bash "${BASH_SOURCE[0]}" supervise "$@" > "$home/supervisor.log" 2>&1 < /dev/null &
  echo $! > "$pid_file"
}

# Not only whether there is such a process: after the machine has started anew its number may be another one's.
supervised() {
  [[ -f $pid_file ]] && grep -qs tpu_worker.sh "/proc/$(cat "$pid_file")/cmdline"
}

# Runs the command again as long as its status asks for it. The first worker that ends for good says so in LOGS/status,
# and the others, which end because it is gone, do not run again.
supervise() {
  local logs=$1 slice=$2 restarts=$3 restart=0 status stopping=false host
  shift 3
  # A worker's name ends in -w-NUMBER; the rest of it changes when the slice is created anew.
  host=$(hostname)
  exec >> "$logs/slice$slice-worker${host##*-w-}.log" 2>&1
  # The machine is being shut down: the run hears of it too, saves, and ends.
  trap 'stopping=true' TERM
  # shellcheck source=launch/tpu_flags.sh
  source "$checkout/launch/tpu_flags.sh"
  cd "$checkout"
  while true; do
    status=0
    PYTHONUNBUFFERED=1 "$home/venv/bin/spanbert-jax" "$@" || status=$?
    if $stopping; then
      echo "tpu_worker.sh: status $status; stopped with the machine"
      exit "$status"
    fi
    if ! retryable "$status" || ((restart >= restarts)); then
      (set -o noclobber; echo "$status" > "$logs/status") 2> /dev/null || true
    else
      # Time for the worker that says why to say so.
      sleep 15
    fi
    if [[ -s $logs/status ]]; then
      echo "tpu_worker.sh: status $status here, $(cat "$logs/status") of the run"
      exit "$(cat "$logs/status")"
    fi
    restart=$((restart + 1))
    echo "tpu_worker.sh: status $status: restart $restart of $restarts"
  done
}

# The first line is `ended STATUS`, `running` or `absent`; what follows is this worker's log from OFFSET on.
report() {
  local log
  if [[ -s $1/status ]]; then
    echo "ended $(cat "$1/status")"
  elif supervised; then
    echo running
  else
    echo absent
  fi
  log=$1/slice0-worker0.log
  [[ ! -f $log ]] || tail -c "+$(($2 + 1))" "$log"
}

# Forgets how an earlier run ended, before a new one is started.
forget() {
  rm -f "$1/status"
}

"$@"
