#!/usr/bin/env bash
# launch/tpu_vm.sh runs this on each worker of a TPU slice, as root, so that all workers write to the share as one user:
# tpu_worker.sh prepare SHARE | forget LOGS | start LOGS SLICE RESTARTS COMMAND ... | report LOGS OFFSET
set -euo pipefail

mount_point=/mnt/spanbert
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Outside of the checkout, which each installation replaces.
home=$checkout-home
pid_file=$home/supervisor.pid
# shellcheck source=launch/common.sh
source "$checkout/launch/common.sh"

# Mounts the share and installs this checkout. The Python of the images is older than the program needs, so uv, from the
# Python package index, installs a newer one.
prepare() {
  if ! mountpoint -q "$mount_point"; then
    command -v mount.nfs > /dev/null || { apt-get -qq update && apt-get -qq install --yes nfs-common; }
    mkdir -p "$mount_point"
    # Looks up missing files at the server, not in a cache, so that new files of other workers are found.
    mount -t nfs -o hard,lookupcache=positive "$1" "$mount_point"
  fi
  mkdir -p "$home"
  export UV_PYTHON_INSTALL_DIR=$home/python
  python3 -m pip install --quiet --upgrade --target "$home/uv" uv
  "$home/uv/bin/uv" venv --quiet --clear --python 3.12 "$home/venv"
  "$home/uv/bin/uv" pip install --quiet --python "$home/venv/bin/python" "${checkout}[tpu]"
}

# Starts the run in the background, independently of the connection. Does nothing if it runs already.
start() {
  supervised && return
  mkdir -p "$1" "$home"
  nohup setsid bash "${BASH_SOURCE[0]}" supervise "$@" > "$home/supervisor.log" 2>&1 < /dev/null &
  echo $! > "$pid_file"
}

# Checks the command too: after a restart of the machine, another process may have the same number.
supervised() { [[ -f $pid_file ]] && grep -qs tpu_worker.sh "/proc/$(cat "$pid_file")/cmdline"; }

# Runs the command, and restarts it while its status permits that. The first worker that ends for good writes its status
# to LOGS/status; the others, which then lose it, do not restart.
supervise() {
  local logs=$1 slice=$2 restarts=$3 restart=0 status stopping=false host
  shift 3
  # A worker's name ends in -w-NUMBER; the rest changes with each new slice.
  host=$(hostname)
  exec >> "$logs/slice$slice-worker${host##*-w-}.log" 2>&1
  # The machine is shutting down: the run gets SIGTERM too, saves, and ends.
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
      # Time for the worker that caused the end to write its status.
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

# Prints `ended STATUS`, `running` or `absent`, and then this worker's log from OFFSET on.
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

# Deletes the status of an earlier run, before a new one starts.
forget() { rm -f "$1/status"; }

"$@"
