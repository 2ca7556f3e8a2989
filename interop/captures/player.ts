/** Plays a recorded scenario with our frontend in the place of Dynamo's; the workers are real. */
import { setTimeout as delay } from 'node:timers/promises'
import { freePort, parseLossless, stringifyLossless, until, type Deployment, type Managed, type WorkerEvent } from '../deployment.ts'
import { expand, type CallStep, type Outcome, type Step } from './capture.ts'
import { loggedRequests, normalOutcome, type LoggedRequest } from './normal-form.ts'

export interface PlayOptions {
  /** Workers that the frontend uses once `label` has joined or left; default: all that live. */
  readonly usable?: Readonly<Record<string, number>>
  readonly args?: readonly string[]
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
}

const headersCompared = ['x-request-id', 'cache-control', 'retry-after'] as const

export class Player {
  readonly #deployment: Deployment
  readonly #options: PlayOptions
  readonly #workers = new Map<string, Worker>()
  readonly #labels = new Map<string, string>()
  readonly #seen = new Set<string>()
  #usable = 0
  #sources = 0
  #publishes = false
  #port = 0
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
        this.#publishes = true
        return
      }
      case 'frontend': {
        this.#port = await freePort()
        // Old errors: the flat form is what was recorded.
        this.#frontend = deployment.warmpath(`frontend-${this.#turn}`, ['frontend', '--http-port', this.#port, '--http-host', '127.0.0.1', '--dynamo-errors', ...step.args, ...(this.#options.args ?? [])], { DYN_LOG: 'debug' })
        await until('the frontend answers', async () => (await this.#get('/live')) !== null)
        return this.settle()
      }
      case 'stop': return this.#stop(step.label, step.signal)
      case 'listed': await until('the model is listed', async () => (await this.#get('/v1/models'))?.includes('"id"') ?? false); return this.settle()
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

  async #start(label: string, args: readonly string[]): Promise<void> {
    const worker = await this.#deployment.worker(this.#turn === 0 ? label : `${label}-${this.#turn}`, args)
    this.#workers.set(label, worker)
    this.#labels.set(`${worker.id}`, label)
    this.#usable = this.#options.usable?.[label] ?? this.#usable + 1
    if (args.includes('--publish-kv')) this.#publishes = true
    if (this.#frontend !== null) await this.settle()
  }

  async #stop(label: string, signal: NodeJS.Signals): Promise<void> {
    const worker = this.#workers.get(label) as Worker
    await this.#deployment.stop(worker.process, signal)
    if (signal === 'SIGKILL') return
    this.#usable = this.#options.usable?.[`${label} left`] ?? this.#usable - 1
    await this.settle()
  }

  /** Until the frontend has as many workers and sources of events as it should. */
  async settle(): Promise<void> {
    if (this.#frontend === null) return
    await until(`the frontend uses ${this.#usable} workers and ${this.#sources} sources of events`, async () =>
      (await this.#gauge('warmpath_workers')) === this.#usable && (await this.#gauge('dynamo_component_router_kv_zmq_ingress_sources')) >= this.#sources)
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
    const indexed = !this.#publishes ? 0 : await this.#gauge('warmpath_index_entries')
    const startedMs = performance.now()
    const answer = await this.#send(step)
    const tookMs = performance.now() - startedMs
    const requests = await this.#requestsOf(step)
    if (this.#publishes) await this.#followed(indexed)
    return { step, tookMs, outcome: normalOutcome(answer, requests, (id) => this.#labels.get(id)) }
  }

  /** Until the index has grown: most prompts are new to it. */
  async #followed(before: number): Promise<void> {
    const end = performance.now() + 1000
    while ((await this.#gauge('warmpath_index_entries')) <= before && performance.now() < end) await delay(20)
  }

  async #send({ method, path, body, headers = {}, recorded, leaveAfter = hasLeft(recorded) ? 2 : undefined }: CallStep): Promise<unknown> {
    const raw = (body as { readonly $raw?: string } | undefined)?.$raw
    const text = body === undefined ? undefined : raw ?? stringifyLossless(this.#withIds(expand(body)))
    const sent = Object.fromEntries(Object.entries({ 'Content-Type': 'application/json', ...headers }).map(([name, value]) => [name, String(this.#withIds(value))]))
    try {
      const response = await fetch(`http://127.0.0.1:${this.#port}${path}`, {
        method, headers: sent, redirect: 'manual', signal: AbortSignal.timeout((leaveAfter ?? 60) * 1000), ...(text === undefined ? {} : { body: text }),
      })
      return answerOf(response, await response.text())
    } catch (error) {
      if (leaveAfter !== undefined && (error as Error).name === 'TimeoutError') return { left: true }
      throw error
    }
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

  /** What workers had of this call, once all of it has ended. */
  async #requestsOf({ recorded, leaveAfter }: CallStep): Promise<LoggedRequest[]> {
    const expected = recorded?.legs?.length ?? 0
    const end = performance.now() + (leaveAfter === undefined ? 1500 : 8000)
    for (;;) {
      const all = loggedRequests(new Map([...this.#workers].map(([label, worker]) => [label, worker.events()])))
      const fresh = [...all].filter(([id]) => !this.#seen.has(id))
      const requests = fresh.flatMap(([, each]) => each)
      if ((requests.length >= expected && requests.every(({ ended }) => ended !== 'open')) || performance.now() > end) {
        for (const [id] of fresh) this.#seen.add(id)
        return requests
      }
      await delay(20)
    }
  }
}

/** A client that lost patience with an answer that never ends. */
const hasLeft = (recorded: Outcome | undefined): boolean => (recorded?.answer as { readonly left?: boolean } | undefined)?.left === true

function answerOf(response: Response, text: string): Record<string, unknown> {
  const headers = headersCompared.flatMap((name) => (response.headers.has(name) ? [[name, response.headers.get(name)] as const] : []))
  const answer: Record<string, unknown> = { status: response.status, ...(headers.length === 0 ? {} : { headers: Object.fromEntries(headers) }) }
  if (response.headers.get('content-type')?.includes('event-stream') === true) return { ...answer, events: eventsOf(text) }
  try {
    return { ...answer, body: parseLossless(text) }
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
