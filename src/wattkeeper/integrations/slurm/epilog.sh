#!/bin/sh
# Slurm epilog: note which GPUs a job gives back on this node.
log=${WATTKEEPER_GPU_LOG:-/var/log/wattkeeper-gpus.log}
echo "$(date +%s) end $SLURM_JOB_ID $(hostname -s) $SLURM_JOB_GPUS" >>"$log"
exit 0
