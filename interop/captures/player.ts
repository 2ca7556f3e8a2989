/** Plays a recorded scenario with our frontend in the place of Dynamo's; the workers are real. */
import { setTimeout as delay } from 'node:timers/promises'
import { freePort, parseLossless, stringifyLossless, type Deployment, type Managed, type WorkerEvent } from '../deployment.ts'
import { expand, type CallStep, type Outcome, type Step } from './capture.ts'
import { loggedRequests, normalOutcome, type LoggedRequest } from './normal-form.ts'
import { until } from '../../test/until.ts'

export interface PlayOptions {
  /** Workers that the frontend uses once `label` has joined or left; default: all that live. */
  readonly usable?: Readonly<Record<string, number>>
  readonly args?: readonly string[]
  /** Before this call discovery has forgotten the workers that were killed. */
  readonly goneBefore?: number
}

export interface Played {
  readonly step: CallStep
  readonly outcome: Outcome
  readonly tookMs: number
}

interface Worker {
  readonly process: Managed
  readonly id: bigint
  readonly events: () => readonly WorkerEvent[]
  /** Of the blocks whose events it publishes; null: it publishes none. */
  readonly blockSize: number | null
  /** It decodes: a model of such workers is listed. */
  readonly decodes: boolean
  /** It was asked to leave, and its records are gone. */
  readonly hasLeft: boolean
}

type Answer = Record<string, unknown> & { readonly body?: { readonly usage?: { readonly prompt_tokens?: number } } }

/** Of `/v1/models/{id}/ready`, what is looked at. */
interface ReadinessReport {
  readonly ready: boolean
  readonly namespaces: Readonly<Record<string, { readonly ready: boolean; readonly worker_types: Readonly<Record<string, { readonly workers: number }>> }>>
}

const headersCompared = ['x-request-id', 'cache-control', 'retry-after'] as const

/** Long: a machine may be slow, and a wait that ends ends at once. */
const waitMs = 60_000
/** For the ends of all requests of a call in the logs of their workers. */
const legsMs = 20_000
const mockerBlockSize = 16

export class Player {
  readonly #deployment: Deployment
  readonly #options: PlayOptions
  readonly #workers = new Map<string, Worker>()
  readonly #labels = new Map<string, string>()
  readonly #seen = new Set<string>()
  #usable = 0
  #sources = 0
  #port = 0
  #routesByEvents = false
  #decodesByEvents = false
  /** Of real mockers, which log nothing: prompts so far, and what the index must hold after the last new one. */
  readonly #prompts = new Set<string>()
  #indexWanted = 0
  #legsMs = legsMs
  #turn = 0
  #frontend: Managed | null = null

  constructor(deployment: Deployment, options: PlayOptions = {}) {
    this.#deployment = deployment
    this.#options = options
  }

  get frontendLog(): string {
    return this.#frontend?.log() ?? ''
  }

  async play(steps: readonly Step[]): Promise<Played[]> {
    const played: Played[] = []
    for (const step of steps) {
      if (step.op === 'call' && played.length === this.#options.goneBefore) await this.#forgotten()
      if (step.op === 'call') played.push(await this.call(step))
      else await this.#do(step)
    }
    return played
  }

  async #do(step: Exclude<Step, CallStep>): Promise<void> {
    const deployment = this.#deployment
    switch (step.op) {
      case 'worker': return this.#start(step.label, step.args)
      case 'module': {
        const args = step.args.map((arg, index) => (step.args[index - 1] === '--model-path' ? deployment.dynamo.modelPath : arg))
        deployment.module(step.label, step.module, args)
        this.#usable += Number(args[args.indexOf('--num-workers') + 1])
        // Decode mockers publish nothing.
        if (!args.includes('decode')) this.#sources += Number(args[args.indexOf('--num-workers') + 1])
        return
      }
      case 'frontend': {
        this.#port = await freePort()
        this.#routesByEvents = step.args.includes('kv')
        this.#decodesByEvents = step.args.includes('--router-conditional-disagg')
        // Old errors: the flat form is what was recorded.
        this.#frontend = deployment.warmpath(`frontend-${this.#turn}`, ['frontend', '--http-port', this.#port, '--http-host', '127.0.0.1', '--dynamo-errors', ...step.args, ...(this.#options.args ?? [])], { DYN_LOG: 'debug' })
        await until('the frontend answers', async () => (await this.#get('/live')) !== null, waitMs)
        return this.settle()
      }
      case 'stop': return this.#stop(step.label, step.signal)
      case 'listed': await until('the model is listed', async () => (await this.#get('/v1/models'))?.includes('"id"') ?? false, waitMs); return this.settle()
      case 'settle': return this.settle()
      case 'deployment': return this.#end()
      case 'ready': return
    }
  }

  /** The next steps have a deployment of their own. */
  async #end(): Promise<void> {
    const all = [...[...this.#workers.values()].map((worker) => worker.process), ...(this.#frontend === null ? [] : [this.#frontend])]
    await Promise.all(all.map((process) => this.#deployment.stop(process, 'SIGTERM')))
    this.#workers.clear()
    this.#frontend = null
    this.#usable = 0
    this.#turn += 1
  }

  /** Records of the dead go when their lease ends. */
  async #forgotten(): Promise<void> {
    for (const [label, worker] of this.#workers) {
      if (worker.hasLeft || !isDead(worker)) continue
      await until(`the records of ${label} are gone`, async () => (await this.#get('/health'))?.includes(`${worker.id}`) === false, waitMs)
      this.#workers.set(label, { ...worker, hasLeft: true })
      this.#usable -= 1
    }
    await this.settle()
  }

  async #start(label: string, args: readonly string[]): Promise<void> {
    const worker = await this.#deployment.worker(this.#turn === 0 ? label : `${label}-${this.#turn}`, args)
    const argument = (name: string): string | undefined => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined)
    this.#workers.set(label, { ...worker, blockSize: args.includes('--publish-kv') ? Number(argument('--block-size') ?? 16) : null, decodes: argument('--role') !== 'prefill', hasLeft: false })
    this.#labels.set(`${worker.id}`, label)
    this.#usable = this.#options.usable?.[label] ?? this.#usable + 1
    if (this.#frontend !== null) await this.settle()
  }

  async #stop(label: string, signal: NodeJS.Signals): Promise<void> {
    const worker = this.#workers.get(label) as Worker
    await this.#deployment.stop(worker.process, signal)
    if (signal === 'SIGKILL') return
    this.#workers.set(label, { ...worker, hasLeft: true })
    this.#usable = this.#options.usable?.[`${label} left`] ?? this.#usable - 1
    await this.settle()
  }

  /**
   * Until the frontend has as many workers and sources of events as it should, in discovery and in routing, and what it says of the model does
   * not change any more: a model whose needs are met is listed.
   */
  async settle(): Promise<void> {
    if (this.#frontend === null) return
    let seen = ''
    // Records of the dead stay for a while.
    const least = this.#usable - [...this.#workers.values()].filter((worker) => !worker.hasLeft && isDead(worker)).length
    const isExpected = (count: number): boolean => count >= least && count <= this.#usable
    const wanted = `${least === this.#usable ? '' : `${least} to `}${this.#usable} workers, ${this.#sources} or more sources of events, and a model that is listed if its needs are met`
    try {
      await until(wanted, async () => {
        const [routed, sources, report] = [await this.#gauge('warmpath_workers'), await this.#gauge('dynamo_component_router_kv_zmq_ingress_sources'), await this.#report()]
        seen = `${routed} workers in routing, ${sources} sources, readiness ${JSON.stringify(report)}`
        return isExpected(routed) && sources >= this.#sources && this.#isSettled(report, isExpected) && await this.#knowsAll()
      }, waitMs)
    } catch (error) {
      throw new Error(`${(error as Error).message}; the frontend has ${seen}`)
    }
  }

  /** Those that get no requests, too. */
  async #knowsAll(): Promise<boolean> {
    const health = await this.#get('/health') ?? ''
    return [...this.#workers.values()].every((worker) => isDead(worker) || health.includes(`${worker.id}`))
  }

  #isSettled(report: ReadinessReport | null, isExpected: (count: number) => boolean): boolean {
    // Without a worker that decodes clients cannot know the model.
    if (report === null) return ![...this.#workers.values()].some((worker) => worker.decodes && !isDead(worker))
    const namespaces = Object.values(report.namespaces)
    const workers = namespaces.flatMap(({ worker_types: types }) => Object.values(types)).reduce((sum, { workers: count }) => sum + count, 0)
    return isExpected(workers) && report.ready === namespaces.some(({ ready }) => ready)
  }

  async #report(): Promise<ReadinessReport | null> {
    const text = await this.#get('/v1/models/tiny/ready')
    const report = text === null ? null : parsed(text) as Partial<ReadinessReport> | null
    return typeof report === 'object' && report !== null && report.namespaces !== undefined ? report as ReadinessReport : null
  }

  async #gauge(name: string): Promise<number> {
    return Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\d+)`, 'm').exec(await this.#get('/metrics') ?? '')?.[1] ?? -1)
  }

  async #get(path: string): Promise<string | null> {
    if (this.#frontend !== null && this.#frontend.child.exitCode !== null) throw new Error(this.#frontend.log().slice(-1500))
    try {
      return await (await fetch(`http://127.0.0.1:${this.#port}${path}`, { signal: AbortSignal.timeout(5000) })).text()
    } catch {
      return null
    }
  }

  async call(step: CallStep): Promise<Played> {
    await this.#followed()
    const prompt = JSON.stringify((step.body as { readonly messages?: unknown } | undefined)?.messages ?? null)
    const before = this.#sources > 0 && !this.#prompts.has(prompt) ? await this.#gauge('warmpath_index_entries') : null
    this.#prompts.add(prompt)
    const startedMs = performance.now()
    const answer = await this.#send(step)
    const tookMs = performance.now() - startedMs
    if (before !== null) this.#indexWanted = before + Math.floor((answer.body?.usage?.prompt_tokens ?? 0) / mockerBlockSize)
    const requests = await this.#requestsOf(step)
    return { step, tookMs, outcome: normalOutcome(answer, requests, (id) => this.#labels.get(id)) }
  }

  /** Until the index holds what the workers have published of the calls so far. */
  async #followed(): Promise<void> {
    if (!this.#routesByEvents) return
    const wanted = Math.max(this.#indexWanted, this.#published())
    if (wanted > 0) await until(`the index holds ${wanted} blocks`, async () => (await this.#gauge('warmpath_index_entries')) >= wanted, waitMs)
  }

  /** Blocks of the prompts that scripted workers have published, once per worker that holds them. */
  #published(): number {
    let count = 0
    for (const { blockSize, decodes, hasLeft: isGone, events } of this.#workers.values()) {
      if (blockSize === null || isGone || (decodes && !this.#decodesByEvents)) continue
      const held = new Set<string>()
      for (const { ev, request } of events()) {
        if (ev !== 'request') continue
        const tokens = (request as { readonly token_ids: readonly number[] }).token_ids
        for (let end = blockSize; end <= tokens.length; end += blockSize) held.add(tokens.slice(0, end).join())
      }
      count += held.size
    }
    return count
  }

  async #send({ method, path, body, headers = {}, recorded, leaveAfter = hasLeft(recorded) ? 2 : undefined }: CallStep): Promise<Answer> {
    const raw = (body as { readonly $raw?: string } | undefined)?.$raw
    const text = body === undefined ? undefined : raw ?? stringifyLossless(this.#withIds(expand(body)))
    const sent = Object.fromEntries(Object.entries({ 'Content-Type': 'application/json', ...headers }).map(([name, value]) => [name, String(this.#withIds(value))]))
    const leaving = new AbortController()
    const request = async (): Promise<Answer> => {
      const response = await fetch(`http://127.0.0.1:${this.#port}${path}`, {
        method, headers: sent, redirect: 'manual', signal: AbortSignal.any([leaving.signal, AbortSignal.timeout(waitMs)]), ...(text === undefined ? {} : { body: text }),
      })
      return answerOf(response, await response.text())
    }
    if (leaveAfter === undefined) return request()
    // Not before a worker has the request: else there would be nothing to leave.
    const answer = request().catch((error: Error) => { if (!leaving.signal.aborted) throw error; return { left: true } })
    await delay(leaveAfter * 1000)
    await until('a worker has the request', () => this.#fresh().length > 0 || (recorded?.legs?.length ?? 0) === 0, waitMs)
    leaving.abort()
    return answer
  }

  #withIds(value: unknown): unknown {
    if (Array.isArray(value)) return value.map((item) => this.#withIds(item))
    if (typeof value === 'string') {
      const label = /^<id of (.+)>$/.exec(value)?.[1]
      return label === undefined ? value : (this.#workers.get(label) as Worker).id
    }
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, this.#withIds(item)]))
  }

  /** What workers had since the last call, by call. */
  #fresh(): (readonly [string, readonly LoggedRequest[]])[] {
    return [...loggedRequests(new Map([...this.#workers].map(([label, worker]) => [label, worker.events()])))].filter(([id]) => !this.#seen.has(id))
  }

  /** What workers had of this call, once all of it has ended. */
  async #requestsOf({ recorded }: CallStep): Promise<LoggedRequest[]> {
    const expected = recorded?.legs?.length ?? 0
    const end = performance.now() + this.#legsMs
    for (;;) {
      const fresh = this.#fresh()
      const requests = fresh.flatMap(([, each]) => each)
      const isLate = performance.now() > end
      if (isLate || (requests.length >= expected && requests.every(({ ended }) => ended !== 'open'))) {
        // It will fail: the calls that follow are only to show how.
        if (isLate) this.#legsMs = 1000
        for (const [id] of fresh) this.#seen.add(id)
        return requests
      }
      await delay(20)
    }
  }
}

const isDead = ({ process: { child } }: Worker): boolean => child.exitCode !== null || child.signalCode !== null

/** A client that lost patience with an answer that never ends. */
const hasLeft = (recorded: Outcome | undefined): boolean => (recorded?.answer as { readonly left?: boolean } | undefined)?.left === true

function answerOf(response: Response, text: string): Answer {
  const headers = headersCompared.flatMap((name) => (response.headers.has(name) ? [[name, response.headers.get(name)] as const] : []))
  const answer: Record<string, unknown> = { status: response.status, ...(headers.length === 0 ? {} : { headers: Object.fromEntries(headers) }) }
  if (response.headers.get('content-type')?.includes('event-stream') === true) return { ...answer, events: eventsOf(text) }
  try {
    return { ...answer, body: parseLossless(text) as NonNullable<Answer['body']> }
  } catch {
    return text === '' ? answer : { ...answer, text }
  }
}

function eventsOf(text: string): Record<string, unknown>[] {
  return text.split('\n\n').filter((block) => block.trim() !== '').map((block) => {
    const event: Record<string, unknown> = {}
    for (const line of block.split('\n')) {
      const [, name, value] = /^(data|event|): ?(.*)$/.exec(line) ?? []
      if (name === undefined || value === undefined) event['other'] = line
      else event[name === '' ? 'comment' : name] = name === 'event' ? value : parsed(value)
    }
    return event
  })
}

function parsed(text: string): unknown {
  try {
    return parseLossless(text)
  } catch {
    return text
  }
}
