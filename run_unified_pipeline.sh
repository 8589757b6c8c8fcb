#!/usr/bin/env bash
# Predict, evaluate and aggregate several methods over several seeds, as the original project's script does.
# Every switch can be overridden from the environment, e.g.  RUN_INFERENCE=false SEEDS="0 1" bash run_unified_pipeline.sh
# A missing seed is reported and the rest goes on; the exit code is 0 only if nothing was missing or failed.
set -euo pipefail

RUN_INFERENCE="${RUN_INFERENCE:-true}"
RUN_EVALUATION="${RUN_EVALUATION:-true}"
RUN_AGGREGATION="${RUN_AGGREGATION:-true}"
GT_PATH="${GT_PATH:-./Dataset/AMOS22/labelsVa}"
NUM_CLASSES="${NUM_CLASSES:-16}"
SEEDS="${SEEDS:-0 1 2}"
GPU_ID="${GPU_ID-0}"

# "name;log root;npy path;nii path;task", one per method. From the environment: the same, separated by newlines or spaces.
if [[ -n "${METHODS_TO_PROCESS:-}" ]]; then
  mapfile -t METHODS_TO_PROCESS < <(printf '%s\n' "${METHODS_TO_PROCESS}" | tr ' ' '\n' | sed '/^$/d')
else
  METHODS_TO_PROCESS=(
    "duomodnet;./logs/amos/duomodnet;./Dataset/AMOS22_preprocessed/imagesVa;./Dataset/AMOS22/imagesVa;amos"
    "cps;./logs/amos/cps;./Dataset/AMOS22_preprocessed/imagesVa;./Dataset/AMOS22/imagesVa;amos"
    "supervised;./logs/amos/supervised;./Dataset/AMOS22_preprocessed/imagesVa;./Dataset/AMOS22/imagesVa;amos"
  )
fi

config="$(mktemp --suffix=.yaml)"
trap 'rm -f "${config}"' EXIT
{
  echo "gt_path: '${GT_PATH}'"
  echo "num_classes: ${NUM_CLASSES}"
  echo "seeds: [$(echo "${SEEDS}" | xargs | tr ' ' ',')]"
  echo "gpu: '${GPU_ID}'"
  echo "stages: {inference: ${RUN_INFERENCE}, evaluation: ${RUN_EVALUATION}, aggregation: ${RUN_AGGREGATION}}"
  echo "methods:"
  for entry in "${METHODS_TO_PROCESS[@]}"; do
    IFS=';' read -r name log_root npy_path nii_path task <<< "${entry}"
    echo "  - {name: '${name}', log_root: '${log_root}', npy_path: '${npy_path}', nii_path: '${nii_path}', task: '${task}'}"
  done
} > "${config}"

if command -v duomod > /dev/null; then
  duomod pipeline "${config}"
else
  "${PYTHON:-python3}" -c 'import sys; sys.path.insert(0, "src"); from duomod.cli import main; main()' pipeline "${config}"
fi
