#!/usr/bin/env bash
# A real Slurm on this machine, for tests: three nodes of two CPUs and two GPUs that are none, two partitions
# of which `high` preempts `main`.
#
#   up.sh DIR [accounting]        then: export SLURM_CONF=DIR/slurm.conf        and in the end: down.sh DIR
#
# Needs root, and the packages slurm-wlm, munge, iproute2; with accounting also slurmdbd and mariadb-server.
# DIR must be new. All daemons write their process ids and logs below it; munged serves all clusters, and stays.
set -euo pipefail
dir=$1 accounting=${2:-}
host=$(hostname -s)
mkdir -p "$dir"/{state,log,pid} /run/munge
chmod 755 "$dir" /run/munge

await() { # await SECONDS COMMAND...
  local rounds=$(($1 * 10)); shift
  for _ in $(seq "$rounds"); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
  echo "in vain waited for: $*" >&2
  return 1
}

if ! munge -n >/dev/null 2>&1; then
  chown -R munge: /etc/munge /run/munge /var/lib/munge /var/log/munge
  runuser -u munge -- /usr/sbin/munged
  await 10 munge -n
fi

store="AccountingStorageType=accounting_storage/none"
if [ -n "$accounting" ]; then
  mkdir "$dir/db"
  chown mysql: "$dir/db"
  socket=$dir/db/socket
  mariadb-install-db --no-defaults --user=mysql --datadir="$dir/db" --auth-root-authentication-method=socket \
    --skip-test-db >"$dir/log/install.log" 2>&1
  mariadbd --no-defaults --user=mysql --datadir="$dir/db" --socket="$socket" --pid-file="$dir/db/pid" \
    --bind-address=127.0.0.1 --port=23306 --innodb-buffer-pool-size=64M >"$dir/log/mariadb.log" 2>&1 &
  await 30 mariadb --no-defaults -S "$socket" -e "select 1"
  mariadb --no-defaults -S "$socket" -e "create database slurm; create user slurm@'127.0.0.1' identified by 'slurm';
    create user slurm@localhost identified by 'slurm'; grant all on slurm.* to slurm@'127.0.0.1', slurm@localhost"
  cat >"$dir/slurmdbd.conf" <<END
AuthType=auth/munge
DbdHost=localhost
DbdPort=26819
SlurmUser=root
PidFile=$dir/pid/slurmdbd
LogFile=$dir/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=23306
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
END
  chmod 600 "$dir/slurmdbd.conf"
  store="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=26819"
fi

# A requeued job waits for cred_expire seconds; under five are two minutes. So long as SlurmdTimeout may a node
# be silent.
cat >"$dir/slurm.conf" <<END
ClusterName=longtail
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=26817
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/pid/slurmctld
SlurmdPidFile=$dir/pid/slurmd-%n
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=8
KillWait=2
GresTypes=gpu
$store
END
for n in 1 2 3; do
  mkdir "$dir/spool-n$n"
  for g in 0 1; do mknod "$dir/gpu$n-$g" c 1 3; done
  echo "NodeName=n$n Name=gpu Count=2 File=$dir/gpu$n-[0-1]" >>"$dir/gres.conf"
  echo "NodeName=n$n NodeHostname=$host NodeAddr=127.0.0.1 Port=$((26820 + n)) CPUs=2 Gres=gpu:2" >>"$dir/slurm.conf"
done
cat >>"$dir/slurm.conf" <<END
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
END

export SLURM_CONF=$dir/slurm.conf
if [ -n "$accounting" ]; then
  slurmdbd
  await 30 sacctmgr -n show cluster
  sacctmgr -i add cluster longtail >/dev/null
  sacctmgr -i add account tests >/dev/null
  sacctmgr -i add user root account=tests >/dev/null
fi
slurmctld
for n in 1 2 3; do slurmd -N "n$n"; done
all_idle() { [ "$(sinfo -h -N -p main -t idle -o %N | wc -l)" = 3 ]; }
await 30 all_idle
