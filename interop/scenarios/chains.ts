/** Routers in chains: behind the real frontend, in front of each other, and the four-command set-up for prefill and decode. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../../test/repo-root.ts'
import { cliPath, freePort, generateRequest, type Deployment } from '../deployment.ts'
import { routerEndpoint, workerOf, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { ready } from './endpoints.ts'
import { until } from '../../test/until.ts'

async function chat(port: number, content: string, stream: boolean): Promise<{ status: number; body: string }> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(30_000),
    body: JSON.stringify({ model: 'routed', messages: [{ role: 'user', content }], max_tokens: 5, stream }),
  })
  return { status: response.status, body: await response.text() }
}

async function counter(port: number, name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`, { signal: AbortSignal.timeout(5000) })).text()
  return text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `)).reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}

async function behindFrontend(deployment: Deployment): Promise<void> {
  // The workers live in a namespace that the frontend does not look at: it can only see the router's card.
  deployment.mocker('mockers', ['--num-workers', 2, '--endpoint', 'dyn://front-pool.backend.generate'])
  await deployment.registered('front-pool/backend/generate', 2, undefined, 'mdc')
  const metricsPort = await freePort()
  await deployment.router(['--endpoint', 'front.backend.generate', '--register-model', 'routed'], {
    env: { DYN_SYSTEM_PORT: `${metricsPort}`, DYN_NAMESPACE: 'front', DYN_NAMESPACE_WORKER_SUFFIX: 'pool' }, namespace: 'front',
  })
  await deployment.registered('front/router/generate', 1, undefined, 'mdc')
  const port = await freePort()
  deployment.module('frontend', 'dynamo.frontend', ['--http-port', port, '--namespace', 'front', '--router-mode', 'round-robin'])
  await until('the frontend lists the model', async () => {
    try {
      return (await (await fetch(`http://127.0.0.1:${port}/v1/models`)).text()).includes('"routed"')
    } catch {
      return false
    }
  }, 60_000)
  await until('the first answer', async () => (await chat(port, 'warm up', false)).status === 200, 20_000)
  const before = await counter(metricsPort, 'dynamo_component_router_requests_total')
  for (let round = 0; round < 10; round += 1) {
    const { status, body } = await chat(port, `the router sends each request ${round}`, round % 2 === 0)
    assert.equal(status, 200, body)
    assert.ok(round % 2 === 0 ? body.trimEnd().endsWith('data: [DONE]') : body.includes('"choices"'), body)
  }
  assert.equal(await counter(metricsPort, 'dynamo_component_router_requests_total') - before, 10, 'each request came through the router')
  assert.equal((await fetch(`http://127.0.0.1:${metricsPort}/health`)).status, 200)
}

async function inFrontOfRouters(deployment: Deployment): Promise<void> {
  const workers = await Promise.all(['a', 'b'].map((pool) => deployment.worker(`w-${pool}`, ['--endpoint', `${pool}.backend.generate`])))
  for (const pool of ['a', 'b']) {
    // Both lower routers serve one endpoint; they have no card.
    await deployment.router(['--endpoint', `${pool}.backend.generate`, '--router-block-size', '16', '--force'], { label: `router-${pool}`, namespace: pool, component: 'router' })
  }
  await deployment.router(['--endpoint', 'a.router.generate', '--router-block-size', '16'], { label: 'upper', namespace: 'a', component: 'upper' })
  const driver = await deployment.driver()
  await until('the upper router knows the lower one', async () => {
    const scores = (await driver.call('a.upper.get_overlap_scores', { token_ids: [1] })).outputs[0] as OverlapAnswer | undefined
    return scores?.workers.length === 1
  })
  const { outputs, error } = await driver.call('a.upper.generate', generateRequest(Array.from({ length: 32 }, (_, index) => index)))
  assert.equal(error, null)
  assert.equal(workerOf(outputs), workers[0]?.id, 'the shown worker is the one that works')
}

async function sharedName(deployment: Deployment): Promise<void> {
  await deployment.router(['--endpoint', 'dynamo.prefill.generate', '--router-block-size', '16'], { label: 'first' })
  const second = deployment.warmpath('second', ['router', '--endpoint', 'dynamo.decode.generate', '--router-block-size', '16'])
  assert.equal(await second.exited, 1)
  assert.match(second.log(), /dynamo\.router\.generate is served by a live router for dynamo\.prefill\.generate.*--component NAME/)
  // A replica for the same target may share the name.
  deployment.warmpath('replica', ['router', '--endpoint', 'dynamo.prefill.generate', '--router-block-size', '16'])
  await deployment.registered('dynamo/router/generate', 2)
  const forced = deployment.warmpath('forced', ['router', '--endpoint', 'dynamo.decode.generate', '--router-block-size', '16', '--force'])
  await deployment.registered('dynamo/router/generate', 3, forced)
}

/** The commands of the example, run as they stand, but for the port. */
async function disaggregatedExample(deployment: Deployment): Promise<void> {
  const script = join(repoRoot, 'examples', 'disagg-router.sh')
  assert.ok(readFileSync(script, 'utf8').includes('--kv-overlap-score-weight 0'))
  const port = await freePort()
  const example = deployment.spawn('example', 'bash', [script], {
    PYTHON: deployment.dynamo.python, MODEL_PATH: deployment.dynamo.modelPath, HTTP_PORT: `${port}`, WARMPATH: `${process.execPath} ${cliPath}`,
  })
  await until('the decode model is served', async () => {
    if (example.child.exitCode !== null) throw new Error(example.log().slice(-2000))
    try {
      return (await (await fetch(`http://127.0.0.1:${port}/v1/models`)).text()).includes('"tiny"')
    } catch {
      return false
    }
  }, 90_000)
  const answer = await until('an answer through both stages', async () => {
    const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(30_000),
      body: JSON.stringify({ model: 'tiny', messages: [{ role: 'user', content: 'prefill workers process the prompt '.repeat(20) }], max_tokens: 6 }),
    })
    const text = await response.text()
    return response.status === 200 && example.log().includes('prefill handed over') ? text : null
  }, 60_000)
  assert.match(answer, /"completion_tokens":6/)
}

async function restartUnderClients(deployment: Deployment): Promise<void> {
  const worker = await deployment.worker('w0')
  const target = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'] as const
  const first = await deployment.router(target)
  const driver = await deployment.driver()
  await ready(driver, worker.id)
  deployment.warmpath('second', ['router', ...target])
  await deployment.registered('dynamo/router/generate', 2)
  const answers: Promise<unknown>[] = []
  const errors: string[] = []
  let stopped: Promise<number | null> | null = null
  for (let count = 0; count < 60; count += 1) {
    // Dynamo's client gives up a request that has no prologue yet when a record goes, and its frontend then migrates it: so do we, once.
    const ask = async (): Promise<void> => {
      const request = generateRequest([count, 1, 2])
      const first = await driver.call(routerEndpoint.generate, request, { quiet: true })
      const isMigratable = (first.error?.message ?? '').startsWith('Unavailable: Worker disconnected before response stream was established')
      const { error } = isMigratable ? await driver.call(routerEndpoint.generate, request, { quiet: true }) : first
      if (error !== null) errors.push(error.message)
    }
    answers.push(ask())
    if (count === 20) stopped = deployment.stop(first, 'SIGTERM', 30_000)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await Promise.all(answers)
  assert.equal(await stopped, 0)
  assert.deepEqual(errors, [], 'no request is lost while one of two routers drains')
}

export const chainScenarios: readonly Scenario[] = [
  { name: 'chain-behind-frontend', run: behindFrontend },
  { name: 'chain-in-front-of-routers', run: inFrontOfRouters },
  { name: 'chain-shared-name', run: sharedName },
  { name: 'chain-rolling-restart', run: restartUnderClients },
  { name: 'chain-disagg-example', timeoutSeconds: 200, run: disaggregatedExample },
]
