/** The two selection services of a differential run: how they are started, asked and compared, and the dice that choose what is asked. */
import { request, type ClientRequest } from 'node:http'
import { parseLossless, freePort, type Deployment } from '../deployment.ts'
import { stringifyJson } from '../../src/dynamo/wire/json.ts'
import { until } from '../../test/until.ts'

/** A JSON object; integers beyond 2^53 are bigints. */
export type Body = Record<string, unknown>

export interface Reply { readonly status: number; readonly body: unknown }

/** Repeatable chance. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  float(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  below(count: number): number {
    return Math.floor(this.float() * count)
  }

  chance(share: number): boolean {
    return this.float() < share
  }

  of<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)] as Item
  }
}

/** A service that is asked. */
export interface Side { readonly url: string }

/** One call with JSON. Errors: no answer within 20 s. */
export async function call(side: Side, method: string, path: string, body?: Body, headers: Record<string, string> = {}): Promise<Reply> {
  const response = await fetch(`${side.url}${path}`, {
    method, headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers }, ...(body === undefined ? {} : { body: stringifyJson(body) }),
    signal: AbortSignal.timeout(20_000),
  }).catch((error: unknown) => { throw new Error(`${side.url}: no answer to ${method} ${path} ${stringifyJson(body ?? null).slice(0, 1500)}`, { cause: error }) })
  const text = await response.text()
  return { status: response.status, body: text === '' ? null : parseLossless(text) }
}

/** Mistakes in bodies are told in each one's own words; lists without order are sorted; random ids are left out. */
export function comparable(path: string, { status, body }: Reply): unknown {
  if (status === 400 || status === 415 || status === 422) {
    const { error } = body as { error?: string }
    if (status !== 400 || error === undefined) return { status }
  }
  const sorted = (rows: unknown): unknown => [...(rows as Body[])].sort((a, b) => (stringifyJson([a['worker_id'], a['dp_rank']]) < stringifyJson([b['worker_id'], b['dp_rank']]) ? -1 : 1))
  const record = (each: unknown): unknown => ({ ...(each as Body), taints: [...((each as Body)['taints'] as string[])].sort() })
  if (status < 300 && path.startsWith('/workers')) return { status, body: Array.isArray(body) ? body.map(record) : record(body) }
  if (path === '/ready') return { status, body: { ...(body as Body), workers: ((body as Body)['workers'] as unknown[]).map(record) } }
  if (status < 300 && path === '/potential_loads') return { status, body: sorted(body) }
  if (status < 300 && path.startsWith('/loads')) return { status, body: (body as Body[]).map((each) => ({ ...each, loads: sorted(each['loads']) })) }
  return { status, body }
}

/** The real service and ours, started alike, in this order. */
export async function services(deployment: Deployment, name: string, env: NodeJS.ProcessEnv): Promise<[Side, Side]> {
  const [realPort, port] = [await freePort(), await freePort()]
  const real = deployment.module(`real-${name}`, 'dynamo.select_service', ['--port', realPort, '--session-affinity-ttl-secs', 600], env)
  const ours = deployment.warmpath(`ours-${name}`, ['select-service', '--port', port, '--host', '127.0.0.1', '--session-affinity-ttl-secs', 600], env)
  const sides: [Side, Side] = [{ url: `http://127.0.0.1:${realPort}` }, { url: `http://127.0.0.1:${port}` }]
  for (const [side, managed] of [[sides[0], real], [sides[1], ours]] as const) {
    await until(`${managed.label} answers`, async () => {
      if (managed.child.exitCode !== null) throw new Error(`${managed.label} ended: ${managed.log().slice(-800)}`)
      return fetch(`${side.url}/health`).then(({ ok }) => ok, () => false)
    }, 60_000)
  }
  return sides
}

/** A call that may wait for its answer without limit; `leave` ends it unanswered. */
export class OpenCall {
  /** Null: not answered yet. */
  reply: Reply | null = null
  /** Why there will be no answer; null: there may be one. */
  failure: Error | null = null
  readonly #request: ClientRequest

  constructor(side: Side, path: string, body: Body, headers: Record<string, string>) {
    this.#request = request(`${side.url}${path}`, { method: 'POST', agent: false, headers: { 'content-type': 'application/json', ...headers } }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.once('end', () => { this.reply = { status: response.statusCode ?? 0, body: parseLossless(Buffer.concat(chunks).toString('utf8')) } })
    })
    this.#request.on('error', (error) => { this.failure = error })
    this.#request.end(stringifyJson(body))
  }

  leave(): void {
    this.#request.destroy()
  }
}
