#!/usr/bin/env bash
# Predict, evaluate and aggregate several methods over several seeds, as the original project's script does.
# Every switch can be overridden from the environment, e.g.  RUN_INFERENCE=false SEEDS="0 1" bash run_unified_pipeline.sh
# A missing seed is reported and the rest goes on; the exit code is 0 only if nothing was missing or failed.
set -euo pipefail

# "name;log root;npy path;nii path;task", one per method; from the environment: the same, separated by newlines or spaces.
# While the list is empty, it is every method under LOG_ROOT that has seed folders. To choose, write lines like this one:
from_environment="${METHODS_TO_PROCESS:-}"
METHODS_TO_PROCESS=(
  # "slcnet;./logs/amos/slcnet;./Dataset/AMOS22_preprocessed/imagesVa;./Dataset/AMOS22/imagesVa;amos"
)

RUN_INFERENCE="${RUN_INFERENCE:-true}"
RUN_EVALUATION="${RUN_EVALUATION:-true}"
RUN_AGGREGATION="${RUN_AGGREGATION:-true}"
LOG_ROOT="${LOG_ROOT:-./logs/amos}"
NPY_PATH="${NPY_PATH:-./Dataset/AMOS22_preprocessed/imagesVa}"
NII_PATH="${NII_PATH:-./Dataset/AMOS22/imagesVa}"
TASK="${TASK:-amos}"
GT_PATH="${GT_PATH:-./Dataset/AMOS22/labelsVa}"
NUM_CLASSES="${NUM_CLASSES:-16}"
SEEDS="${SEEDS:-0 1 2}"
GPU_ID="${GPU_ID-0}"

if [[ -n "${from_environment}" ]]; then
  mapfile -t METHODS_TO_PROCESS < <(printf '%s\n' "${from_environment}" | tr ' ' '\n' | sed '/^$/d')
elif [[ ${#METHODS_TO_PROCESS[@]} -eq 0 ]]; then
  for folder in "${LOG_ROOT}"/*/; do
    folder="${folder%/}"
    compgen -G "${folder}/seed_*/" > /dev/null || continue
    # A variant's folder has a name of its own; the run knows its method. Runs made elsewhere are named by their folder.
    name="$(sed -n 's/^model: *//p' "${folder}"/seed_*/config.yaml 2> /dev/null | head -n 1 || true)"
    METHODS_TO_PROCESS+=("${name:-${folder##*/}};${folder};${NPY_PATH};${NII_PATH};${TASK}")
  done
  if [[ ${#METHODS_TO_PROCESS[@]} -eq 0 ]]; then
    echo "error: ${LOG_ROOT}: no method with seed folders (such as slcnet/seed_0); train one, or name LOG_ROOT" >&2
    exit 2
  fi
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
