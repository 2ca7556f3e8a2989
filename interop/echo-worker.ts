/** A worker whose models say what the client wants, and the frontends in front of it. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../test/repo-root.ts'
import { freePort, parseLossless, type Deployment, type Managed } from './deployment.ts'
import { until } from '../test/until.ts'

export interface EchoWorker {
  readonly process: Managed
  /** Its file of what happened, a line of JSON each. */
  readonly log: string
  requests(): readonly { readonly model: string; readonly request: Readonly<Record<string, unknown>> }[]
  /** Requests that saw before their end that the client had left; of those with at least so many prompt tokens. */
  cancelled(tokensMin?: number): number
}

/** One process with a model for each of `NAME[,tool=PARSER][,reasoning=PARSER][,embed=FORM]`. */
export async function echoWorker(deployment: Deployment, models: readonly string[]): Promise<EchoWorker> {
  const path = join(deployment.folder, 'echo.jsonl')
  const worker = deployment.spawn('echo', deployment.dynamo.python, [join(repoRoot, 'interop', 'python', 'echo_worker.py'), '--model-path', deployment.dynamo.modelPath, '--log', path, ...models])
  const events = (): { ev: string; id: string; model: string; request: Readonly<Record<string, unknown>> }[] =>
    (existsSync(path) ? readFileSync(path, 'utf8').split('\n').filter(Boolean).map((line) => parseLossless(line) as never) : [])
  await until('the models are registered', () => {
    if (worker.child.exitCode !== null) throw new Error(worker.log().slice(-1500))
    return events().some(({ ev }) => ev === 'ready')
  }, 60_000)
  const cancelled = (tokensMin = 0): number => {
    const all = events()
    const long = new Set(all.filter(({ ev, request }) => ev === 'request' && ((request['token_ids'] ?? []) as readonly unknown[]).length >= tokensMin).map(({ id }) => id))
    return all.filter(({ ev, id }) => ev === 'cancelled' && long.has(id)).length
  }
  return { process: worker, log: path, requests: () => events().filter(({ ev }) => ev === 'request'), cancelled }
}

/** Waits until a frontend lists the models. */
export const listed = (port: number, models: readonly string[], process?: Managed): Promise<true> => until(`${models.join(', ')} listed`, async () => {
  if (process !== undefined && process.child.exitCode !== null) throw new Error(process.log().slice(-1500))
  try {
    const { data } = (await (await fetch(`http://127.0.0.1:${port}/v1/models`)).json()) as { data: { id: string }[] }
    return models.every((model) => data.some(({ id }) => id === model))
  } catch {
    return false
  }
}, 60_000)

export async function ourFrontend(deployment: Deployment, models: readonly string[], args: readonly string[] = []): Promise<{ readonly port: number; readonly process: Managed }> {
  const port = await freePort()
  const frontend = deployment.warmpath('frontend', ['frontend', '--http-port', port, '--http-host', '127.0.0.1', '--enable-anthropic-api', ...args])
  await listed(port, models, frontend)
  return { port, process: frontend }
}

export async function realFrontend(deployment: Deployment, models: readonly string[]): Promise<number> {
  const port = await freePort()
  // Its KV mode takes no workers that want text.
  const real = deployment.module('real-frontend', 'dynamo.frontend', ['--http-port', port, '--router-mode', 'round-robin', '--enable-anthropic-api'])
  await listed(port, models, real)
  return port
}

export const modelNames = (models: readonly string[]): string[] => models.map((model) => model.split(',')[0] ?? '')
