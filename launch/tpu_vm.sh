#!/usr/bin/env bash
# Runs a command of spanbert-jax on Cloud TPU slices, from request to deletion. launch/tpu_vm.md explains each step.
#
#   launch/tpu_vm.sh run --name spanbert --zone us-west4-a --type v5litepod-16 --share 10.0.0.2:/vol1 -- \
#       train --config configs/base.py --config.data.path=/mnt/spanbert/corpora/mine --workdir /mnt/spanbert/runs/base
#   launch/tpu_vm.sh status|logs|down --name spanbert --zone us-west4-a
#
# run: requests the slices, waits for them, installs this checkout on every worker, starts the command on all of them,
#   shows the first one's log, and requests new slices after a preemption. At the end it fetches the logs, deletes the
#   slices and ends with the run's status. If interrupted, the run continues, and the same command attaches to it again.
# status: prints the state of the request. logs: fetches the logs (with --slices as for run). down: deletes the slices,
#   running or not.
#
# --name NAME        name of the request and its slices     --zone ZONE     such as us-west4-a
# --type TYPE        type of a slice, such as v5litepod-16  --slices N      (default 1)
# --share HOST:/DIR  NFS share, mounted at /mnt/spanbert    --project ID    (default: gcloud's)
# --runtime VERSION  of the machines (default: by type)     --network NAME  (default: default)
# --on-demand        not spot: costs more, no preemptions   --keep          does not delete the slices at the end
# --restarts N       of the command on a worker (100)       --poll SECONDS  between polls of the state (30)
# --dry-run          prints every command, runs none
set -euo pipefail

# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { echo "tpu_vm.sh: $*" >&2; }
mistake() { say "$*"; exit 2; }
fail() { say "$*"; exit 1; }
number() { [[ $2 =~ ^[0-9]+$ && $2 -ge $3 ]] || mistake "$1 $2: must be a whole number, $3 or more"; }

read_flags() {
  action=${1:-}
  case $action in
    run | status | logs | down) shift ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    *) mistake "${action:-no command}: the commands are run, status, logs and down; --help shows how" ;;
  esac
  name='' zone='' type='' share='' project='' runtime='' network='' slices=1 restarts=100 poll=30
  spot=true keep=false dry_run=false
  while [[ $# -gt 0 ]]; do
    # --flag=value is --flag value
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
      --) shift; break ;;
      --on-demand) spot=false ;;
      --keep) keep=true ;;
      --dry-run) dry_run=true ;;
      --name | --zone | --type | --share | --project | --runtime | --network | --slices | --restarts | --poll)
        [[ $# -gt 1 && $2 != --* ]] || mistake "$1: needs a value"
        printf -v "${1#--}" %s "$2"
        shift ;;
      *) mistake "unknown flag $1; --help lists the flags; write the command to run after --" ;;
    esac
    shift
  done
  command=("$@")
}

check_flags() {
  [[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    mistake "--name '$name': must be given: up to 40 lower-case letters, digits and hyphens, starting with a letter"
  [[ -n $zone ]] || mistake "--zone: must be given, such as us-west4-a; the table in launch/tpu_vm.md has more"
  number --slices "$slices" 1
  number --restarts "$restarts" 0
  number --poll "$poll" 0
  [[ $action == run ]] || return 0
  [[ -n $type ]] || mistake "--type: must be given, such as v5litepod-16; the table in launch/tpu_vm.md has more"
  [[ $share == *:/* ]] ||
    mistake "--share '$share': must be given as HOST:/DIR, an NFS share such as Filestore's, for checkpoints and logs"
  [[ ${#command[@]} -gt 0 ]] || mistake "no command; write -- train --config FILE --workdir /mnt/spanbert/runs/NAME"
  [[ " ${command[*]} " == *" --workdir /mnt/spanbert/"* || " ${command[*]} " == *" --workdir=/mnt/spanbert/"* ]] ||
    mistake "--workdir: must be under /mnt/spanbert, the share; the disk of a TPU is lost when it is preempted"
  if [[ -z $runtime ]]; then
    case $type in
      v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
      v5p-*) runtime=v2-alpha-tpuv5 ;;
      v6e-*) runtime=v2-alpha-tpuv6e ;;
      v[234]-*) runtime=tpu-ubuntu2204-base ;;
      *) mistake "--type $type: unknown type; give the --runtime that it needs" ;;
    esac
  fi
}

# Runs gcloud, or prints its command. Its error messages go to gcloud.log, after the command.
call() {
  if $dry_run; then
    quoted gcloud "$@"
    return
  fi
  local status=0 complaint
  complaint=$(mktemp)
  gcloud "$@" 2> "$complaint" || status=$?
  { echo "\$ $(quoted gcloud "$@")"; cat "$complaint"; } >> "$folder/gcloud.log"
  rm -f "$complaint"
  return "$status"
}

# The error message of the last command, in one line.
complaint() {
  awk '/^\$ gcloud /{words = ""; next} {words = words " " $0} END{print substr(words, 2, 400)}' "$folder/gcloud.log"
}

# Exits with a line that states what is wrong and what to do, if a retry cannot succeed.
give_up_on() {
  local words=$1 limit=''
  [[ $words =~ ([A-Za-z0-9]+ForTPUAPI) ]] && limit=" (${BASH_REMATCH[1]})"
  case $words in
    *"no more capacity"* | *"not have enough resources"*) ;;
    *[Qq]uota* | *RESOURCE_EXHAUSTED*)
      fail "no quota is left in $zone for this${type:+, $type}$limit; request more in the console under IAM & Admin," \
        "Quotas, or use another --zone, --type or --project" ;;
    *"gcloud auth login"* | *UNAUTHENTICATED*) fail "gcloud is not logged in; run: gcloud auth login" ;;
    *"core/project"* | *"property [project]"* | *"project [None]"*)
      fail "gcloud does not know the project; add --project ID, or run: gcloud config set project ID" ;;
    *SERVICE_DISABLED* | *"has not been used in project"*)
      fail "the project does not use Cloud TPU yet; run: gcloud services enable tpu.googleapis.com" ;;
    *PERMISSION_DENIED* | *"Permission"*denied*)
      fail "the account may not use TPUs in zone $zone; check the zone with gcloud compute tpus locations list, or" \
        "ask for the role TPU Admin" ;;
    *INVALID_ARGUMENT* | *NOT_FOUND* | *"Invalid value"* | *"unrecognized arguments"*) fail "gcloud rejects this: $words" ;;
  esac
}

# After a failed call: exits if a retry cannot succeed, else prints the error.
check() {
  give_up_on "$(complaint)"
  say "gcloud failed: $(complaint)"
}

describe() { call compute tpus queued-resources describe "$name" "${where[@]}" "--format=value($1)"; }

# The state of the request; NONE if there is no request, empty if gcloud fails.
state() { describe state.state || { [[ $(complaint) == *NOT_FOUND* ]] && echo NONE; } || true; }

request() {
  local flags=(--accelerator-type="$type" --runtime-version="$runtime")
  if ((slices > 1)); then
    flags+=(--node-count="$slices" --node-prefix="$name")
  else
    flags+=(--node-id="$name")
  fi
  if $spot; then flags+=(--spot); fi
  if [[ -n $network ]]; then flags+=(--network="$network"); fi
  call compute tpus queued-resources create "$name" "${where[@]}" "${flags[@]}" --async --quiet
}

delete() { call compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet; }

ssh_to() {
  local node=$1 worker=$2
  shift 2
  call compute tpus tpu-vm ssh "$node" "${where[@]}" --worker="$worker" --quiet --command="$*"
}

# Runs a function for all slices in parallel, because each call may take minutes.
everywhere() {
  local index jobs=() job failed=false
  for index in "${!nodes[@]}"; do
    if $dry_run; then "$@" "${nodes[index]}" "$index"; continue; fi
    "$@" "${nodes[index]}" "$index" >> "$folder/setup.log" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || failed=true; done
  ! $failed
}

install() {
  call compute tpus tpu-vm scp "$folder/spanbert-jax.tar.gz" "$1:" "${where[@]}" --worker=all --quiet &&
    ssh_to "$1" all "sudo rm -rf spanbert-jax && mkdir spanbert-jax &&" \
      "tar -xzf spanbert-jax.tar.gz -C spanbert-jax && $worker_script prepare $(quoted "$share")"
}

start() { ssh_to "$1" all "$worker_script start $(quoted "$logs" "$2" "$restarts" "${command[@]}")"; }

# Deletes the exit status of an earlier run of this name.
forget() { ssh_to "${nodes[0]}" 0 "$worker_script forget $(quoted "$logs")"; }

# Installs this checkout on every worker, then starts the command on all.
install_and_start() {
  local archive=(git -C "$checkout" archive --format=tar.gz --output="$PWD/$folder/spanbert-jax.tar.gz" HEAD)
  if $dry_run; then quoted "${archive[@]}"; else
    "${archive[@]}" || fail "$checkout is not a git checkout; its last commit would be installed on the workers"
    say "installing on every worker; see $folder/setup.log and gcloud.log"
  fi
  everywhere install && forget && everywhere start
}

# Prints the state of the run on the first worker, and its log after the first $1 bytes. On new slices nothing is
# installed yet.
report() {
  ssh_to "${nodes[0]}" 0 "if [ -d spanbert-jax ]; then $worker_script report $(quoted "$logs" "$1"); else echo absent; fi"
}

# Prints the new part of the first worker's log, and sets `run_state`.
follow() {
  local log=$folder/slice0-worker0.log report=$folder/report
  touch "$log"
  run_state=''
  report "$(stat --format=%s "$log")" > "$report" || return
  read -r run_state < "$report"
  tail -n +2 "$report" | tee -a "$log"
}

fetch_logs() { call compute tpus tpu-vm scp "${nodes[0]}:$logs/*" "$folder/" "${where[@]}" --worker=0 --quiet; }

finish() {
  fetch_logs || say "the logs of the other workers could not be fetched: $(complaint)"
  forget || true
  if $keep; then
    say "the slices are kept, and cost money until you run: $down"
  else
    delete || say "the slices could not be deleted and still cost money; try: $down"
  fi
  say "the run ended with status $1; its logs are in $folder"
  exit "$1"
}

# Polls the states of the request and of the run, and acts on them, until the run has ended.
run() {
  local now last='' was_active=false
  trap 'say "the run continues and costs money; the same command follows it; this ends it: $down"; exit 130' INT TERM
  while true; do
    now=$(state)
    if [[ -n $now && $now != "$last" ]]; then
      say "$name in $zone: $now"
      last=$now
    fi
    case $now in
      NONE) request || check ;;
      ACTIVE)
        was_active=true
        follow || say "no answer from the first worker, retrying: $(complaint)"
        case $run_state in
          absent) install_and_start || say "not all workers could be set up, retrying: $(complaint)" ;;
          ended*) finish "${run_state#ended }" ;;
        esac ;;
      FAILED | SUSPENDED)
        if [[ $now == FAILED ]] && ! $was_active; then
          words=$(describe state.failedData.error.message)
          delete || true
          give_up_on "$words"
          fail "the request failed and was deleted; try again, or another --zone or --type: $words"
        fi
        say "the slices were preempted; requesting new ones"
        delete || say "retrying: $(complaint)" ;;
      '') check ;;
    esac
    # In the background, so that a signal is handled at once.
    sleep "$poll" &
    wait $!
  done
}

dry_run() {
  echo "# Request the slices, and poll their state every $poll seconds until they are ACTIVE."
  request
  describe state.state
  echo "# Install this checkout on every worker, and start the command on all of them."
  install_and_start
  echo "# Every $poll seconds: the state of the run, and the new part of its log."
  report 0
  echo "# When a preemption has SUSPENDED the slices, delete the request, then repeat all of the above:"
  delete
  echo "# When the run has ended: fetch the logs to $folder, and delete the slices unless --keep is given."
  fetch_logs
  forget
  delete
}

read_flags "$@"
check_flags
where=(--zone="$zone")
if [[ -n $project ]]; then where+=(--project="$project"); fi
if ((slices == 1)); then nodes=("$name"); else mapfile -t nodes < <(seq -f "$name-%g" 0 $((slices - 1))); fi
worker_script="sudo bash spanbert-jax/launch/tpu_worker.sh"
logs=/mnt/spanbert/logs/$name
folder=logs/$name
down=$(quoted "$0" down --name "$name" "${where[@]}")
if ! $dry_run; then
  command -v gcloud > /dev/null ||
    mistake "gcloud is not on PATH; install it from https://cloud.google.com/sdk/docs/install, then run: gcloud init"
  mkdir -p "$folder"
fi
case $action in
  run) if $dry_run; then dry_run; else run; fi ;;
  status)
    now=$(state)
    [[ -n $now ]] || { check; exit 1; }
    echo "$now" ;;
  logs) fetch_logs || { check; exit 1; } ;;
  down) delete || { check; exit 1; } ;;
esac
