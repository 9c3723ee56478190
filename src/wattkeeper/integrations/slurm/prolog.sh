#!/bin/sh
# Slurm prolog: note which GPUs a job gets on this node.
log=${WATTKEEPER_GPU_LOG:-/var/log/wattkeeper-gpus.log}
echo "$(date +%s) start $SLURM_JOB_ID $(hostname -s) $SLURM_JOB_GPUS" >>"$log"
exit 0
