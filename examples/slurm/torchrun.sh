#!/bin/bash
# Pre-training on four machines with eight GPUs each, under SLURM, by torchrun. From the repository's root:
#   sbatch examples/slurm/torchrun.sh RECIPE.yaml [--any_field value ...]
# A recipe's batch size is per process: give --training.batch_size the recipe's divided by 32.
#
# Five minutes before the time is over SLURM tells this shell (SIGUSR1), which has the run save and stop (SIGTERM to its
# processes) and then puts the job back into the queue. A preempted job gets SIGTERM from SLURM itself, which also requeues it, as
# it does after a machine has failed. Every start says --resume: it goes on from the newest sound checkpoint, or begins.
#SBATCH --job-name=hf-maskssl
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log

set -u
# The seconds that torchrun leaves its processes to save after a signal; without it they are 30.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-8}" ACCELERATE_MIXED_PRECISION="${ACCELERATE_MIXED_PRECISION:-bf16}"
first_machine=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

stopped=""
stop() {
  stopped=yes
  scancel --signal=TERM "$SLURM_JOB_ID" # to the processes of the step, not to this shell
}
trap stop USR1

srun --kill-on-bad-exit=1 torchrun \
  --nnodes="$SLURM_NNODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-8}" \
  --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$first_machine:${MASTER_PORT:-29500}" \
  examples/run_pretrain.py "$@" --resume &
step=$!

wait "$step"
code=$?
while [ "$code" -gt 128 ] && kill -0 "$step" 2>/dev/null; do # a signal has ended `wait`, not the step
  wait "$step"
  code=$?
done
if [ -n "$stopped" ]; then
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$code"
