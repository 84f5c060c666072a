#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, to try launch/slurm.sbatch on: slurm_cluster.sh start|stop FOLDER
#
# Needs Debian's slurm-wlm and munge, and root. Everything it writes lies in FOLDER; the cluster is found by
# SLURM_CONF=FOLDER/slurm.conf. Jobs of the partition `urgent` take the place of those of `normal`, which are requeued.
set -euo pipefail

command=${1:-} folder=${2:-}
[[ $command =~ ^(start|stop)$ && -n $folder ]] || { echo "usage: $0 start|stop FOLDER" >&2; exit 2; }

# Ends what a pid file names, and waits until it is gone, or a zombie where nobody asks for its status.
end() {
  local pid
  pid=$(cat "$1" 2> /dev/null) || return 0
  kill "$pid" 2> /dev/null || return 0
  while grep -q '^State:[[:space:]]*[^Z]' "/proc/$pid/status" 2> /dev/null; do sleep 0.1; done
}

if [[ $command == stop ]]; then
  for daemon in slurmd slurmctld munged; do end "$folder/$daemon.pid"; done
  exit
fi

for program in munged slurmctld slurmd sbatch; do
  PATH=$PATH:/usr/sbin command -v "$program" > /dev/null ||
    { echo "$0: $program is missing; apt-get install slurm-wlm munge" >&2; exit 2; }
done
PATH=$PATH:/usr/sbin
[[ $(id -u) == 0 ]] || { echo "$0: must be run as root, which Slurm starts the tasks as" >&2; exit 2; }
# munged refuses folders that others than its user may write to, up to the root.
mkdir -p "$folder"/{state,spool,munge}
folder=$(cd "$folder" && pwd)
chmod 755 "$folder"
host=$(hostname -s)
dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 2> /dev/null
chmod 400 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

# No cgroups and no affinity, which need rights that a container has not. KillWait is the time to save that a job gets;
# a requeued job waits until its old credential has expired.
cat > "$folder/slurm.conf" << END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobCompType=jobcomp/none
SchedulerParameters=batch_sched_delay=1,sched_interval=2
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=normal Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
END
export SLURM_CONF=$folder/slurm.conf
slurmctld
slurmd
for _ in {1..60}; do
  [[ $(sinfo --noheader --format=%T --partition=normal 2> /dev/null) == idle ]] && exit
  sleep 1
done
echo "$0: the node has not become idle within a minute; see $folder/slurmctld.log and slurmd.log" >&2
exit 1
