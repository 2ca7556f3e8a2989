#!/usr/bin/env bash
# Prefill and decode in pools of their own, in four commands: a frontend over the decode pool, a router over the prefill pool,
# a decode worker that asks that router to have prompts computed, and prefill workers. The workers are simulated; with real
# engines the same four commands hold, with the engines' own workers in place of the last two.
#
# Needs Dynamo's Python package for the frontend. Settings: PYTHON, WARMPATH, MODEL_PATH (a model folder), HTTP_PORT.
set -euo pipefail
PYTHON=${PYTHON:-python3}
WARMPATH=${WARMPATH:-npx warmpath}
MODEL_PATH=${MODEL_PATH:?set MODEL_PATH to a model folder: tokenizer, chat template, config}
HTTP_PORT=${HTTP_PORT:-8000}
export DYN_DISCOVERY_BACKEND=${DYN_DISCOVERY_BACKEND:-file}

pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait' EXIT INT TERM

# 1. The frontend looks at decode load only: what a prompt would find in a cache is the prefill router's business.
"$PYTHON" -m dynamo.frontend --router-mode kv --http-port "$HTTP_PORT" --kv-overlap-score-weight 0 &
pids+=($!)

# 2. The prefill router, as Dynamo's own documentation starts its standalone router.
$WARMPATH router --endpoint dynamo.prefill.generate --router-block-size 64 --router-reset-states --no-router-track-active-blocks &
pids+=($!)

# 3. A decode worker that asks the router first and decodes with what it hands over.
$WARMPATH worker --endpoint dynamo.decode.generate --role decode --model-name tiny --model-path "$MODEL_PATH" --block-size 64 \
  --prefill-router dynamo.router.generate &
pids+=($!)

# 4. Two prefill workers.
for _ in 1 2; do
  $WARMPATH worker --endpoint dynamo.prefill.generate --role prefill --model-name tiny-prefill --model-path "$MODEL_PATH" --block-size 64 &
  pids+=($!)
done
wait
