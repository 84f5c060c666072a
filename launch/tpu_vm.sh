#!/usr/bin/env bash
# Runs a verb of spanbert-jax on Cloud TPU slices, from the request to the end. launch/tpu_vm.md goes through it.
#
#   launch/tpu_vm.sh run --name spanbert --zone us-west4-a --type v5litepod-16 --share 10.0.0.2:/vol1 -- \
#       train --config configs/base.py --config.data.path=/mnt/spanbert/corpora/mine --workdir /mnt/spanbert/runs/base
#   launch/tpu_vm.sh status|logs|down --name spanbert --zone us-west4-a
#
# run: requests the slices, waits for them, installs this checkout on every worker, starts the command on all of them,
#   shows the first one's log, and requests the slices anew when they are preempted. At the end it brings the logs back,
#   deletes the slices and ends with the run's status. Interrupted, it leaves the run alone; the same command follows on.
# status: the state of the request. logs: brings the logs back (give --slices as for run). down: deletes the slices,
#   running or not.
#
# --name NAME        of the request and of its slices       --zone ZONE     such as us-west4-a
# --type TYPE        of a slice, such as v5litepod-16       --slices N      (default 1)
# --share HOST:/DIR  NFS share, mounted at /mnt/spanbert    --project ID    (default: gcloud's)
# --runtime VERSION  of the machines (default: by type)     --network NAME  (default: default)
# --on-demand        not spot: dearer, not preempted        --keep          leaves the slices when the run has ended
# --restarts N       of the command on a worker (100)       --poll SECONDS  between two looks (30)
# --dry-run          prints every command, runs none
set -euo pipefail

# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { echo "tpu_vm.sh: $*" >&2; }

mistake() {
  say "$*"
  exit 2
}

fail() {
  say "$*"
  exit 1
}

number() {
  [[ $2 =~ ^[0-9]+$ && $2 -ge $3 ]] || mistake "$1 $2: must be a whole number, $3 or more"
}

read_flags() {
  verb=${1:-}
  case $verb in
    run | status | logs | down) shift ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    *) mistake "${verb:-no verb}: the verbs are run, status, logs and down; --help shows how" ;;
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
        [[ $# -gt 1 && $2 != --* ]] || mistake "$1: needs a value behind it"
        printf -v "${1#--}" %s "$2"
        shift ;;
      *) mistake "unknown flag $1; --help shows them, and the command to run stands behind --" ;;
    esac
    shift
  done
  command=("$@")
}

check_flags() {
  [[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    mistake "--name '$name': must be given: up to 40 small letters, digits and hyphens, beginning with a letter"
  [[ -n $zone ]] || mistake "--zone: must be given, such as us-west4-a; the table in launch/tpu_vm.md has more"
  number --slices "$slices" 1
  number --restarts "$restarts" 0
  number --poll "$poll" 0
  [[ $verb == run ]] || return 0
  [[ -n $type ]] || mistake "--type: must be given, such as v5litepod-16; the table in launch/tpu_vm.md has more"
  [[ $share == *:/* ]] ||
    mistake "--share '$share': must be given as HOST:/DIR, an NFS share such as Filestore's; what is saved lies there"
  [[ ${#command[@]} -gt 0 ]] || mistake "no command; write -- train --config FILE --workdir /mnt/spanbert/runs/NAME"
  [[ " ${command[*]} " == *" --workdir /mnt/spanbert/"* || " ${command[*]} " == *" --workdir=/mnt/spanbert/"* ]] ||
    mistake "--workdir: must lie under /mnt/spanbert, the share; the disk of a TPU is lost when it is preempted"
  if [[ -z $runtime ]]; then
    case $type in
      v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
      v5p-*) runtime=v2-alpha-tpuv5 ;;
      v6e-*) runtime=v2-alpha-tpuv6e ;;
      v[234]-*) runtime=tpu-ubuntu2204-base ;;
      *) mistake "--type $type: which --runtime it needs is not known here; give one" ;;
    esac
  fi
}

# Runs gcloud, or prints what would be run. What it complains of goes to gcloud.log, behind the command.
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

# What the last command complained of, in one line.
complaint() {
  awk '/^\$ gcloud /{words = ""; next} {words = words " " $0} END{print substr(words, 2, 400)}' "$folder/gcloud.log"
}

# Ends with a line that says what is wrong and what to do, where a second try would end the same way.
give_up_on() {
  local words=$1 limit=''
  [[ $words =~ ([A-Za-z0-9]+ForTPUAPI) ]] && limit=" (${BASH_REMATCH[1]})"
  case $words in
    *"no more capacity"* | *"not have enough resources"*) ;;
    *[Qq]uota* | *RESOURCE_EXHAUSTED*)
      fail "no quota is left in $zone for this${type:+, $type}$limit; ask for more in the console under IAM & Admin," \
        "Quotas, or give another --zone, --type or --project" ;;
    *"gcloud auth login"* | *UNAUTHENTICATED*) fail "gcloud is not logged in; run: gcloud auth login" ;;
    *"core/project"* | *"property [project]"* | *"project [None]"*)
      fail "gcloud does not know the project; add --project ID, or run: gcloud config set project ID" ;;
    *SERVICE_DISABLED* | *"has not been used in project"*)
      fail "the project does not use Cloud TPU yet; run: gcloud services enable tpu.googleapis.com" ;;
    *PERMISSION_DENIED* | *"Permission"*denied*)
      fail "the account may not use TPUs in zone $zone; look for the zone in gcloud compute tpus locations list, or ask" \
        "for the role TPU Admin" ;;
    *INVALID_ARGUMENT* | *NOT_FOUND* | *"Invalid value"* | *"unrecognized arguments"*) fail "gcloud refuses this: $words" ;;
  esac
}

# After a call that failed: ends where there is no use trying again, and says what was the matter where there is.
check() {
  give_up_on "$(complaint)"
  say "gcloud did not succeed: $(complaint)"
}

describe() { call compute tpus queued-resources describe "$name" "${where[@]}" "--format=value($1)"; }

# The state of the request; NONE where there is none, and nothing where gcloud does not tell.
state() {
  describe state.state || { [[ $(complaint) == *NOT_FOUND* ]] && echo NONE; } || true
}

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

# Does something for each slice, all at the same time: each may take minutes.
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

# Forgets how an earlier run of this name has ended.
forget() { ssh_to "${nodes[0]}" 0 "$worker_script forget $(quoted "$logs")"; }

# Installs this checkout on every worker, then starts the command on all.
set_out() {
  local archive=(git -C "$checkout" archive --format=tar.gz --output="$PWD/$folder/spanbert-jax.tar.gz" HEAD)
  if $dry_run; then quoted "${archive[@]}"; else
    "${archive[@]}" || fail "$checkout is no git checkout; its last commit is what is installed on the workers"
    say "installing on every worker; $folder/setup.log and gcloud.log tell what happens"
  fi
  everywhere install && forget && everywhere start
}

# Asks the first worker how the run stands, and for what its log has beyond the $1 bytes that are here. New slices have
# nothing that could answer.
ask() {
  ssh_to "${nodes[0]}" 0 "if [ -d spanbert-jax ]; then $worker_script report $(quoted "$logs" "$1"); else echo absent; fi"
}

# Prints what is new in the first worker's log, and leaves in `standing` how the run stands.
follow() {
  local log=$folder/slice0-worker0.log answer=$folder/answer
  touch "$log"
  standing=''
  ask "$(stat --format=%s "$log")" > "$answer" || return
  read -r standing < "$answer"
  tail -n +2 "$answer" | tee -a "$log"
}

bring_logs() {
  call compute tpus tpu-vm scp "${nodes[0]}:$logs/*" "$folder/" "${where[@]}" --worker=0 --quiet
}

finish() {
  bring_logs || say "the logs of the other workers could not be brought back: $(complaint)"
  forget || true
  if $keep; then
    say "the slices are left, and cost money until: $down"
  else
    delete || say "the slices could not be deleted and cost money; try: $down"
  fi
  say "the run ended with status $1; its logs are in $folder"
  exit "$1"
}

# Looks again and again how things stand, and does what is to be done next.
run() {
  local now last='' was_active=false
  trap 'say "the run goes on and costs money; the same command follows it, and this ends it: $down"; exit 130' INT TERM
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
        follow || say "no answer from the first worker, trying again: $(complaint)"
        case $standing in
          absent) set_out || say "not all workers could be set up, trying again: $(complaint)" ;;
          ended*) finish "${standing#ended }" ;;
        esac ;;
      FAILED | SUSPENDED)
        if [[ $now == FAILED ]] && ! $was_active; then
          words=$(describe state.failedData.error.message)
          delete || true
          give_up_on "$words"
          fail "the request failed and was deleted; try again, or another --zone or --type: $words"
        fi
        say "the slices were taken away; requesting them anew"
        delete || say "trying again: $(complaint)" ;;
      '') check ;;
    esac
    # In the background, so that a signal is not waited out.
    sleep "$poll" &
    wait $!
  done
}

dry_run() {
  echo "# The slices are requested, and looked at every $poll seconds until they are ACTIVE."
  request
  describe state.state
  echo "# This checkout is installed on every worker, and the command started on all."
  set_out
  echo "# Every $poll seconds: how the run stands, and what is new in its log."
  ask 0
  echo "# When the slices are SUSPENDED, which is what a preemption leaves, all of the above again after:"
  delete
  echo "# When the run has ended: the logs come to $folder, and the slices are deleted unless --keep is given."
  bring_logs
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
case $verb in
  run) if $dry_run; then dry_run; else run; fi ;;
  status)
    now=$(state)
    [[ -n $now ]] || { check; exit 1; }
    echo "$now" ;;
  logs) bring_logs || { check; exit 1; } ;;
  down) delete || { check; exit 1; } ;;
esac
