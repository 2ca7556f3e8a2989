/** The global router between frontends and pools: real and own routers in every combination, behind the real frontend and ours. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, type Deployment, type Managed } from '../deployment.ts'
import type { Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

/** Prompts below 100 tokens with a tight target go to the first pool of each kind, others to the second; high priority to the third. */
const pools = {
  num_prefill_pools: 3, num_decode_pools: 2, prefill_pool_dynamo_namespaces: ['p0', 'p1', 'p2'], decode_pool_dynamo_namespaces: ['d0', 'd1'],
  enable_priority_retry: true,
  prefill_pool_selection_strategy: {
    isl_min: 0, isl_max: 4000, isl_resolution: 2, ttft_min_ms: 10, ttft_max_ms: 1000, ttft_resolution: 2, prefill_pool_mapping: [[0, 1], [1, 1]],
    priority_overrides: [{ min_priority: 50, max_priority: 100, target_pool: 2 }],
  },
  decode_pool_selection_strategy: {
    context_length_min: 0, context_length_max: 4000, context_length_resolution: 2, itl_min_ms: 5, itl_max_ms: 50, itl_resolution: 2, decode_pool_mapping: [[0, 1], [1, 1]],
  },
}

interface Answer {
  readonly choices: readonly { readonly message: { readonly content: string } }[]
  readonly usage: { readonly completion_tokens: number }
  readonly nvext?: { readonly worker_id?: { readonly prefill_worker_id?: number; readonly decode_worker_id?: number } }
}

async function ask(port: number, router: Readonly<Record<string, number>>, hints: Readonly<Record<string, number>> = {}): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(30_000),
    body: JSON.stringify({
      model: 'tiny', messages: [{ role: 'user', content: 'pools behind one name '.repeat(4) }], max_tokens: 5,
      nvext: { router, extra_fields: ['worker_id'], ...(Object.keys(hints).length === 0 ? {} : { agent_hints: hints }) },
    }),
  })
  return { status: response.status, text: await response.text() }
}

/** Requests that each pool has taken, by `kind pool`. */
async function taken(metricsPort: number): Promise<Map<string, number>> {
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`, { signal: AbortSignal.timeout(5000) })).text()
  return new Map([...text.matchAll(/^warmpath_global_router_requests_total\{kind="(\w+)",pool="(\w+)"\} (\d+)/gm)].map(([, kind, pool, count]) => [`${kind} ${pool}`, Number(count)]))
}

async function servesModel(port: number, frontend: Managed): Promise<void> {
  await until('the frontend serves the model', async () => {
    if (frontend.child.exitCode !== null) throw new Error(frontend.log().slice(-1500))
    try {
      return (await ask(port, { ttft_target: 20, itl_target: 6 })).status === 200
    } catch {
      return false
    }
  }, 90_000)
}

async function everyCombination(deployment: Deployment): Promise<void> {
  const workers = new Map<string, bigint[]>()
  for (const pool of ['p0', 'p1', 'p2', 'd0', 'd1']) {
    const isPrefill = pool.startsWith('p')
    deployment.mocker(`mocker-${pool}`, ['--disaggregation-mode', isPrefill ? 'prefill' : 'decode', '--num-workers', 1, '--endpoint', `dyn://${pool}.${isPrefill ? 'prefill' : 'backend'}.generate`])
  }
  // p0 and d1 behind the real router, the others behind ours.
  const target = (pool: string): string[] => ['--endpoint', pool.startsWith('p') ? `${pool}.prefill.generate` : `${pool}.backend.generate`, '--router-block-size', '16']
  const config = join(deployment.folder, 'pools.json')
  writeFileSync(config, JSON.stringify(pools))
  const metricsPort = await freePort()
  const globalRouter = deployment.warmpath('global-router', ['global-router', '--config', config, '--model-name', 'tiny', '--default-ttft-target-ms', 100], { DYN_SYSTEM_PORT: `${metricsPort}` })
  await Promise.all([
    deployment.realRouter(target('p0'), 'router-p0'), deployment.realRouter(target('d1'), 'router-d1'),
    ...['p1', 'p2', 'd0'].map((pool) => deployment.router(target(pool), { label: `router-${pool}`, namespace: pool })),
  ])
  for (const pool of ['p0', 'p1', 'p2', 'd0', 'd1']) {
    workers.set(pool, await deployment.registered(`${pool}/${pool.startsWith('p') ? 'prefill' : 'backend'}/generate`, 1, undefined, 'mdc'))
  }
  await deployment.registered('dynamo/global_router/decode_generate', 1, globalRouter, 'mdc')
  const [realPort, ownPort] = [await freePort(), await freePort()]
  const real = deployment.module('real-frontend', 'dynamo.frontend', ['--http-port', realPort, '--namespace', 'dynamo', '--router-mode', 'round-robin'])
  const own = deployment.warmpath('frontend', ['frontend', '--http-port', ownPort, '--http-host', '127.0.0.1', '--namespace', 'dynamo'])
  await servesModel(realPort, real)
  await servesModel(ownPort, own)
  const targets = { p0: 20, p1: 900, d0: 6, d1: 45 } as const
  for (const port of [realPort, ownPort]) {
    for (const prefill of ['p0', 'p1'] as const) {
      for (const decode of ['d0', 'd1'] as const) {
        const before = await taken(metricsPort)
        const { status, text } = await ask(port, { ttft_target: targets[prefill], itl_target: targets[decode] })
        assert.equal(status, 200, `${prefill} ${decode}: ${text}`)
        assert.equal((JSON.parse(text) as Answer).usage.completion_tokens, 5)
        const after = await taken(metricsPort)
        for (const [kind, pool] of [['prefill', prefill], ['decode', decode]] as const) {
          assert.equal((after.get(`${kind} ${pool}`) ?? 0) - (before.get(`${kind} ${pool}`) ?? 0), 1, `${kind} through ${pool}`)
        }
        if (port !== ownPort) continue
        // Not this router's id but the workers' own.
        const shown = /"prefill_worker_id":(\d+).*"decode_worker_id":(\d+)|"decode_worker_id":(\d+).*"prefill_worker_id":(\d+)/.exec(text)
        const [shownPrefill, shownDecode] = shown?.[1] === undefined ? [shown?.[4], shown?.[3]] : [shown[1], shown[2]]
        assert.deepEqual([shownPrefill, shownDecode], [String(workers.get(prefill)?.[0]), String(workers.get(decode)?.[0])], text)
      }
    }
    const before = await taken(metricsPort)
    assert.equal((await ask(port, { ttft_target: 20, itl_target: 6 }, { priority: 70 })).status, 200)
    assert.equal(((await taken(metricsPort)).get('prefill p2') ?? 0) - (before.get('prefill p2') ?? 0), 1, 'high priority goes to the third pool')
  }
  await retried(deployment, metricsPort, ownPort)
  assert.equal(await deployment.stop(globalRouter, 'SIGTERM', 30_000), 0, 'drained')
  await until('its cards are gone', () => deployment.records('mdc', 'dynamo/global_router/').length === 0, 5000)
}

/** The router of the second decode pool dies: requests for it are answered by the first. */
async function retried(deployment: Deployment, metricsPort: number, port: number): Promise<void> {
  const [record] = deployment.records('instances', 'd1/router/generate')
  assert.ok(record !== undefined)
  const processes = deployment.labelled('router-d1')
  deployment.signal(processes, 'SIGKILL')
  await processes.exited
  const before = await taken(metricsPort)
  const { status, text } = await ask(port, { ttft_target: 900, itl_target: 45 })
  assert.equal(status, 200, text)
  const after = await taken(metricsPort)
  assert.ok((after.get('decode d0') ?? 0) > (before.get('decode d0') ?? 0), 'the faster pool answered')
}

export const globalRouterScenarios: readonly Scenario[] = [{ name: 'global-router', timeoutSeconds: 240, run: everyCombination }]
