/**
 * The real selection service and ours, side by side, while requests wait: random policy classes, priorities, limits, pins, cancels and frees.
 *
 * Every request is sent to both and left open; after each step both must hold and have let go the same requests, and tell the same loads.
 * Costs never tie, since every worker has a taint that each request likes by a weight of its own; workers with several ranks are reached by pins.
 */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { stringifyJson } from '../../src/dynamo/wire/json.ts'
import { difference } from '../../src/golden/json-compare.ts'
import { EngineSocket } from '../engine-socket.ts'
import { blockSize, bothFollow, bothForgot, engineHashes, model, Prompts } from './selection-prompts.ts'
import { call, comparable, OpenCall, type Body, type Dice, type Reply, type Side } from './selection-sides.ts'

/** Policy classes and what requests may name of them. */
export interface WaitingSetup {
  readonly hasEvents: boolean
  /** Values of the policy-class header. */
  readonly classNames: readonly string[]
}

interface Worker {
  readonly id: number
  readonly size: number
  readonly engines: readonly EngineSocket[]
  readonly held: bigint[][]
}

interface Open {
  readonly id: string
  readonly path: string
  readonly body: Body
  readonly headers: Record<string, string>
  readonly real: OpenCall
  readonly ours: OpenCall
}

const workerIds = [1, 2, 3, 4, 5, 6]
/** Workers up to this id have one rank, the others two. */
const singleMax = 4
const openMax = 14
const sessions = ['s1', 's2', 's3', 's4']

export class WaitingDifferential {
  readonly #dice: Dice
  readonly #real: Side
  readonly #ours: Side
  readonly #setup: WaitingSetup
  readonly #prompts: Prompts
  readonly #workers = new Map<number, Worker>()
  readonly #open = new Map<string, Open>()
  #live: string[] = []
  #selected: string[] = []
  #ids = 0
  #marker = 1_000_000
  /** How often each kind of step was made, and how often requests waited or were refused. */
  readonly counts = new Map<string, number>()

  constructor(dice: Dice, [real, ours]: readonly [Side, Side], setup: WaitingSetup) {
    this.#dice = dice
    this.#real = real
    this.#ours = ours
    this.#setup = setup
    this.#prompts = new Prompts(dice)
  }

  close(): void {
    for (const { engines } of this.#workers.values()) for (const engine of engines) engine.close()
    for (const { real, ours } of this.#open.values()) {
      real.leave()
      ours.leave()
    }
  }

  async begin(): Promise<void> {
    for (const id of [1, 2, 5]) await this.#register(id)
  }

  async step(): Promise<void> {
    const isFull = this.#open.size >= openMax
    const kinds: readonly (readonly [string, number, () => Promise<void>])[] = [
      ['reserve', isFull ? 0 : 34, () => this.#ask('/select_and_reserve')], ['select', isFull ? 0 : 6, () => this.#ask('/select')], ['advisory', 3, () => this.#advise()],
      ['free', this.#live.length > 0 ? (isFull ? 40 : 18) : 0, () => this.#free()], ['prefilled', this.#live.length > 0 ? 12 : 0, () => this.#prefilled()],
      ['output', this.#live.length > 0 ? 3 : 0, () => this.#output()], ['cancel', this.#open.size > 0 ? 6 : 0, () => this.#cancel()],
      ['explicit', 2, () => this.#explicit()], ['replay', this.#selected.length > 0 ? 3 : 0, () => this.#replay()],
      ['events', this.#setup.hasEvents ? 6 : 0, () => this.#events()], ['reports', 4, () => this.#reports()],
      ['register', 2, () => this.#register(this.#dice.of(workerIds))], ['patch', 2, () => this.#patch()], ['delete', this.#workers.size > 2 ? 1 : 0, () => this.#delete()],
    ]
    let left = this.#dice.float() * kinds.reduce((sum, [, weight]) => sum + weight, 0)
    for (const [name, weight, make] of kinds) {
      left -= weight
      if (left >= 0) continue
      this.#count(name)
      await make()
      return this.#settle(name)
    }
  }

  /** Ends all that is booked until nothing waits any more. */
  async finish(): Promise<void> {
    while (this.#live.length > 0) {
      await this.#free()
      await this.#settle('the end')
    }
    assert.deepEqual([...this.#open.keys()], [], 'requests that wait when nothing is booked')
  }

  #count(name: string): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1)
  }

  // ---- Comparing -----------------------------------------------------------------------------------------------------------

  /** Waits until both have done all that the step made them do, and compares what was answered meanwhile. */
  async #settle(what: string): Promise<void> {
    const end = Date.now() + 20_000
    for (;;) {
      const told = await this.#unsettled()
      if (told === null) break
      assert.ok(Date.now() < end, `after ${what}: ${told}`)
      await delay(4)
    }
    for (const open of this.#open.values()) this.#take(open)
  }

  /** In what the sides differ, or what is still under way; null: nothing. */
  async #unsettled(): Promise<string | null> {
    const [real, ours] = await Promise.all([call(this.#real, 'GET', '/loads'), call(this.#ours, 'GET', '/loads')])
    const both = [...this.#open.values()]
    const answered = (side: 'real' | 'ours'): string => both.filter((open) => open[side].reply !== null).map(({ id }) => id).join(' ')
    if (answered('real') !== answered('ours')) {
      const open = both.map(({ id, path, headers, body, real: { reply }, ours: { reply: own } }) =>
        stringifyJson({ id, path, headers, body: { ...body, token_ids: undefined }, tokens: (body['token_ids'] as number[]).length, real: reply, ours: own }))
      return `answered by one only:\n${open.join('\n')}\n${stringifyJson(real.body)}`
    }
    const differs = difference(comparable('/loads', real), comparable('/loads', ours))
    if (differs !== null) return `loads differ: ${differs}`
    const held = both.filter((open) => open.real.reply === null).length
    const pending = (real.body as Body[]).reduce((sum, row) => sum + Number(row['pending_count']), 0)
    return pending === held ? null : `${held} requests are unanswered, ${pending} wait`
  }

  #take(open: Open): void {
    const { id, path, body, headers, real, ours } = open
    for (const { failure } of [real, ours]) if (failure !== null) throw failure
    if (real.reply === null || ours.reply === null) return
    this.#open.delete(id)
    this.#compare(`${path} ${stringifyJson(headers)} ${stringifyJson(body)}`, path, real.reply, ours.reply)
    if (real.reply.status === 429) this.#count('refused')
    if (real.reply.status !== 200) return
    if (path === '/select') this.#selected.push(id)
    else this.#live.push(id)
  }

  #compare(what: string, path: string, real: Reply, ours: Reply): void {
    const differs = difference(comparable(path, real), comparable(path, ours))
    assert.equal(differs, null, `${what}: real (expected) and ours (got) differ: ${differs}`)
  }

  /** Calls both, one answer each; they must be the same. */
  async #same(method: string, path: string, body?: Body): Promise<Reply> {
    const [real, ours] = await Promise.all([call(this.#real, method, path, body), call(this.#ours, method, path, body)])
    this.#compare(`${method} ${path} ${stringifyJson(body ?? null)}`, path, real, ours)
    return real
  }

  // ---- Requests ------------------------------------------------------------------------------------------------------------

  #question(): Body {
    const dice = this.#dice
    const worker = this.#anyWorker()
    const isPinned = dice.chance(0.2)
    const preferred = Object.fromEntries(workerIds.map((id) => [`w${id}`, 0.05 + dice.float()]))
    const single = [...this.#workers.keys()].filter((id) => id <= singleMax)
    return {
      model_name: model, token_ids: this.#prompts.next(blockSize),
      ...(dice.chance(0.3) ? { priority_jump: dice.of([-5e6, 0, 1e6, 2e6, 5e6]) } : {}), ...(dice.chance(0.2) ? { strict_priority: dice.below(3) } : {}),
      ...(dice.chance(0.1) ? { router_config_override: { track_prefill_tokens: dice.chance(0.5) } } : {}), ...(dice.chance(0.1) ? { expected_output_tokens: dice.below(50) } : {}),
      ...(isPinned ? { pinned_worker: { worker_id: worker?.id ?? 9, dp_rank: dice.below((worker?.size ?? 1) + (dice.chance(0.05) ? 1 : 0)) } } : {
        routing_constraints: { required_taints: ['one', ...(dice.chance(0.2) ? [dice.of(['a', 'b', 'c', 'dynamo.topology/zone=x'])] : [])], preferred_taints: preferred },
        ...(dice.chance(0.15) ? { allowed_worker_ids: workerIds.filter(() => dice.chance(0.6)) } : {}),
        ...(dice.chance(0.1) && single.length > 0 ? { affinity_target: { worker_id: dice.of(single), dp_rank: dice.chance(0.5) ? null : 0 } } : {}),
      }),
    }
  }

  /** Sometimes of a session that none of the open requests is of: those would wait for it before they wait in the queue. */
  #inSession(body: Body): Body {
    if (body['pinned_worker'] !== undefined || body['affinity_target'] !== undefined || !this.#dice.chance(0.15)) return body
    const open = new Set([...this.#open.values()].map(({ body: { session_id: session } }) => session))
    const free = sessions.filter((session) => !open.has(session))
    return free.length === 0 ? body : { ...body, session_id: this.#dice.of(free) }
  }

  #headers(): Record<string, string> {
    const { classNames } = this.#setup
    return classNames.length > 0 && this.#dice.chance(0.8) ? { 'x-dynamo-meta-policy-class': this.#dice.of(classNames) } : {}
  }

  #newId(): string {
    this.#ids += 1
    return `r${this.#ids}`
  }

  async #ask(path: string): Promise<void> {
    const waiting = this.#waitingBookings().map(({ id }) => id)
    if (waiting.length > 0 && this.#dice.chance(0.02)) {
      await this.#same('POST', '/select_and_reserve', { ...this.#question(), selection_id: this.#dice.of(waiting) })
      return
    }
    const id = this.#newId()
    const question = { ...this.#question(), selection_id: id }
    const body = path === '/select' ? question : this.#inSession(question)
    const headers = this.#headers()
    this.#open.set(id, { id, path, body, headers, real: new OpenCall(this.#real, path, body, headers), ours: new OpenCall(this.#ours, path, body, headers) })
    await this.#settle(path)
    if (this.#open.has(id)) this.#count('waited')
  }

  #waitingBookings(): Open[] {
    return [...this.#open.values()].filter(({ path }) => path === '/select_and_reserve')
  }

  async #advise(): Promise<void> {
    await this.#same('POST', '/select', { ...this.#question(), advisory: true })
  }

  /** Leaves a booking that waits: the original keeps a mere question in its queue until its turn. */
  async #cancel(): Promise<void> {
    const bookings = this.#waitingBookings()
    if (bookings.length === 0) return
    const { id, real, ours } = this.#dice.of(bookings)
    this.#open.delete(id)
    real.leave()
    ours.leave()
  }

  #takeLive(): string {
    const [id] = this.#live.splice(this.#dice.below(this.#live.length), 1)
    return id!
  }

  async #free(): Promise<void> {
    await this.#same('DELETE', `/reservations/${this.#takeLive()}`)
  }

  async #prefilled(): Promise<void> {
    await this.#same('POST', `/reservations/${this.#dice.of(this.#live)}/prefill_complete`, {})
  }

  async #output(): Promise<void> {
    await this.#same('POST', `/reservations/${this.#dice.of(this.#live)}/output_block`, this.#dice.chance(0.5) ? { decay_fraction: 0.5 } : {})
  }

  async #explicit(): Promise<void> {
    const worker = this.#anyWorker()
    const id = this.#newId()
    const { status } = await this.#same('POST', '/reservations', {
      model_name: model, selection_id: id, worker_id: worker?.id ?? 9, dp_rank: this.#dice.below(worker?.size ?? 1), token_ids: this.#prompts.next(blockSize), effective_prefill_tokens: this.#dice.below(4),
    })
    if (status === 201) this.#live.push(id)
  }

  async #replay(): Promise<void> {
    const [id] = this.#selected.splice(this.#dice.below(this.#selected.length), 1)
    const { status } = await this.#same('POST', '/reservations', { model_name: model, selection_id: id })
    if (status === 201) this.#live.push(id!)
  }

  async #reports(): Promise<void> {
    await this.#same('POST', this.#dice.of(['/potential_loads', '/overlap_scores']), { model_name: model, token_ids: this.#prompts.next(blockSize) })
  }

  // ---- Workers -------------------------------------------------------------------------------------------------------------

  #anyWorker(): Worker | undefined {
    return this.#workers.size === 0 ? undefined : this.#dice.of([...this.#workers.values()])
  }

  #taints(id: number): string[] {
    return [`w${id}`, ...(id <= singleMax ? ['one'] : []), ...['a', 'b'].filter(() => this.#dice.chance(0.5))]
  }

  async #register(id: number): Promise<void> {
    const dice = this.#dice
    const known = this.#workers.get(id)
    const size = id <= singleMax ? 1 : 2
    const engines = known?.engines ?? (this.#setup.hasEvents ? await Promise.all(Array.from({ length: size }, () => EngineSocket.start())) : [])
    await this.#same('POST', '/workers', {
      worker_id: id, model_name: model, endpoint: `http://worker-${id}`, block_size: blockSize, data_parallel_size: size, taints: this.#taints(id),
      max_num_batched_tokens: 40 + dice.below(300), ...(dice.chance(0.5) ? { total_kv_blocks: 50 + dice.below(200) } : {}), ...(dice.chance(0.3) ? { topology_domains: { zone: dice.of(['x', 'y']) } } : {}),
      ...(engines.length > 0 ? { kv_events_endpoints: Object.fromEntries(engines.map(({ address }, rank) => [rank, address])) } : {}),
    })
    const worker: Worker = known ?? { id, size, engines, held: [] }
    this.#workers.set(id, worker)
    for (const [rank, engine] of engines.entries()) await this.#follow(worker, engine, rank)
  }

  async #follow({ id }: Worker, engine: EngineSocket, rank: number): Promise<void> {
    this.#marker += 1
    await bothFollow([this.#real, this.#ours], engine, { workerId: id, rank }, this.#marker)
  }

  async #patch(): Promise<void> {
    const worker = this.#anyWorker()
    if (worker === undefined) return
    await this.#same('PATCH', `/workers/${worker.id}`, this.#dice.of<Body>([{ max_num_batched_tokens: 40 + this.#dice.below(300) }, { taints: this.#taints(worker.id) }, { total_kv_blocks: 70 }]))
  }

  async #delete(): Promise<void> {
    const worker = this.#anyWorker()
    if (worker === undefined) return
    await this.#same('DELETE', `/workers/${worker.id}`)
    await bothForgot([this.#real, this.#ours], worker.id, () => false)
    for (const engine of worker.engines) engine.close()
    this.#workers.delete(worker.id)
  }

  async #events(): Promise<void> {
    const worker = this.#anyWorker()
    if (worker === undefined) return
    const dice = this.#dice
    const rank = dice.below(worker.size)
    const engine = worker.engines[rank]!
    if (worker.held.length > 0 && dice.chance(0.25)) {
      const [hashes] = worker.held.splice(dice.below(worker.held.length), 1)
      await engine.send([['BlockRemoved', hashes!.slice(dice.below(hashes!.length))]])
    } else {
      const tokens = this.#prompts.next(blockSize)
      const hashes = engineHashes(tokens)
      await engine.send([['BlockStored', hashes, null, tokens.slice(0, hashes.length * blockSize), blockSize, null, dice.chance(0.8) ? null : dice.of(['CPU', 'DISK'])]])
      worker.held.push(hashes)
    }
    await this.#follow(worker, engine, rank)
  }
}
