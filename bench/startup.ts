/** How long a start takes until help is printed and until the router is in discovery, and what it holds when idle. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Deployment, type Managed } from '../interop/deployment.ts'
import type { DynamoInstallation } from '../interop/dynamo-venv.ts'
import { repoRoot } from '../test/repo-root.ts'
import { elapsedNs } from './measure.ts'
import { rssMiB } from './process-tree.ts'

export interface StartupFigures {
  readonly helpSeconds: readonly number[]
  /** From the start of the process until `generate` is in file discovery, with a worker there. */
  readonly registeredSeconds: Readonly<Record<'real' | 'ours', readonly number[]>>
  readonly idleRssMiB: Readonly<Record<'real' | 'ours', number>>
}

export const idleSeconds = 10

const endpoint = 'startup.backend.generate'

/** Errors: a router that ends, one that does not register, or a record left behind by an earlier start. */
async function startOnce(deployment: Deployment, side: 'real' | 'ours', cliPath: string): Promise<{ seconds: number; router: Managed }> {
  const records = (): number => deployment.records('instances', 'startup/router/generate').length
  const limitMs = performance.now() + 60_000
  while (records() > 0) {
    if (performance.now() > limitMs) throw new Error('the record of the start before is still in discovery')
    await delay(50)
  }
  const args = ['--endpoint', endpoint, '--router-block-size', '16']
  const beginMs = performance.now()
  const router = side === 'real'
    ? deployment.module('real', 'dynamo.router', args)
    : deployment.spawn('ours', process.execPath, [cliPath, 'router', ...args])
  while (records() === 0) {
    if (router.child.exitCode !== null) throw new Error(`${side} ended with ${router.child.exitCode}: ${router.log().slice(-800)}`)
    if (performance.now() > beginMs + 60_000) throw new Error(`${side} is not registered after 60 s`)
    await delay(2)
  }
  return { seconds: (performance.now() - beginMs) / 1000, router }
}

async function idleRss(deployment: Deployment, side: 'real' | 'ours', cliPath: string): Promise<number> {
  const { router } = await startOnce(deployment, side, cliPath)
  await delay(idleSeconds * 1000)
  const rss = rssMiB(router.child.pid ?? 0)
  await deployment.stop(router)
  return rss
}

/** `starts` starts of each, turn by turn. */
export async function measureStartup(dynamo: DynamoInstallation, cliPath: string, starts: number): Promise<StartupFigures> {
  const helpSeconds = Array.from({ length: starts }, () => elapsedNs(() => {
    const child = spawnSync(process.execPath, [cliPath, '--help'])
    if (child.status !== 0 || child.stdout.length === 0) throw new Error(`--help ended with ${child.status}: ${child.stderr}`)
  }) / 1e9)
  const deployment = new Deployment(dynamo, { DYN_LOG: 'warn' })
  try {
    deployment.spawn('worker', dynamo.python, [join(repoRoot, 'bench', 'python', 'dyn_worker.py'), '--endpoint', endpoint, '--model-path', dynamo.modelPath])
    await deployment.registered('startup/backend/generate', 1)
    const registered = { real: [] as number[], ours: [] as number[] }
    for (let start = 0; start < starts; start += 1) {
      for (const side of start % 2 === 0 ? ['real', 'ours'] as const : ['ours', 'real'] as const) {
        const { seconds, router } = await startOnce(deployment, side, cliPath)
        registered[side].push(seconds)
        await deployment.stop(router)
      }
    }
    const real = await idleRss(deployment, 'real', cliPath)
    const ours = await idleRss(deployment, 'ours', cliPath)
    return { helpSeconds, registeredSeconds: registered, idleRssMiB: { real, ours } }
  } finally {
    await deployment.close(false)
  }
}
