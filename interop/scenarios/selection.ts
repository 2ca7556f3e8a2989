/**
 * The real selection service and ours, side by side under random calls: every answer is compared.
 *
 * Engines are ZeroMQ publishers of this process that both follow. A choice among equal costs is random on both sides: ours has to be able
 * to make the real one's choice, and is then held to it. `WARMPATH_SELECTION_STEPS` and `WARMPATH_SELECTION_SEED` set length and start.
 */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { difference } from '../../src/golden/json-compare.ts'
import { stringifyJson } from '../../src/dynamo/wire/json.ts'
import type { Deployment } from '../deployment.ts'
import { EngineSocket } from '../engine-socket.ts'
import type { Scenario } from '../scenario.ts'
import { blockSize, bothFollow, bothForgot, engineHashes, model, Prompts } from './selection-prompts.ts'
import { call, comparable, Dice, services, type Body, type Reply, type Side } from './selection-sides.ts'

interface Worker {
  readonly id: number | bigint
  start: number
  size: number
  /** By rank. */
  readonly engines: Map<number, EngineSocket>
  /** Chains that each rank holds: tokens and engine hashes, device tier. */
  readonly chains: Map<number, { tokens: number[]; hashes: bigint[] }[]>
}

export class Differential {
  readonly #dice: Dice
  readonly #real: Side
  readonly #ours: Side
  readonly #hasEvents: boolean
  /** Whether blocks are assumed from what is booked. */
  readonly #assumes: boolean
  /** Prompts of selections that may yet be booked. */
  readonly #asked = new Map<string, Body>()
  readonly #workers = new Map<string, Worker>()
  readonly #prompts: Prompts
  readonly #live: string[] = []
  readonly #selected: string[] = []
  #marker = 1_000_000
  #ids = 0
  /** How often each kind of step was made. */
  readonly counts = new Map<string, number>()

  constructor(seed: number, real: Side, ours: Side, hasEvents: boolean, assumes: boolean) {
    this.#dice = new Dice(seed)
    this.#prompts = new Prompts(this.#dice)
    this.#real = real
    this.#ours = ours
    this.#hasEvents = hasEvents
    this.#assumes = assumes
  }

  close(): void {
    for (const { engines } of this.#workers.values()) for (const engine of engines.values()) engine.close()
  }

  async step(): Promise<void> {
    const kinds: readonly (readonly [string, number, () => Promise<void>])[] = [
      ['worker', this.#workers.size < 3 ? 30 : 3, () => this.#register()],
      ['patch', 3, () => this.#patch()], ['delete', this.#workers.size > 3 ? 2 : 0, () => this.#delete()],
      ['events', this.#hasEvents ? 16 : 0, () => this.#events()],
      ['select', 16, () => this.#select(false)], ['reserve', 22, () => this.#select(true)], ['replay', 6, () => this.#replay()], ['explicit', 5, () => this.#explicit()],
      ['life', 22, () => this.#life()], ['reports', 14, () => this.#reports()], ['session', 6, () => this.#session()], ['mistake', 3, () => this.#mistake()],
    ]
    let left = this.#dice.float() * kinds.reduce((sum, [, weight]) => sum + weight, 0)
    for (const [name, weight, make] of kinds) {
      left -= weight
      if (left >= 0) continue
      this.counts.set(name, (this.counts.get(name) ?? 0) + 1)
      return make()
    }
  }

  /** The original applies changes of workers a little after its answer: waits until both tell the same loads. */
  async #settled(): Promise<void> {
    for (let tries = 0; tries < 100; tries++) {
      const [real, ours] = await Promise.all([call(this.#real, 'GET', '/loads'), call(this.#ours, 'GET', '/loads')])
      if (difference(comparable('/loads', real), comparable('/loads', ours)) === null) return
      await delay(20)
    }
  }

  /** Calls both; the answers must be the same. */
  async #same(method: string, path: string, body?: Body): Promise<Reply> {
    const [real, ours] = await Promise.all([call(this.#real, method, path, body), call(this.#ours, method, path, body)])
    this.#compare(`${method} ${path}`, path, body, real, ours)
    return real
  }

  #compare(what: string, path: string, body: Body | undefined, real: Reply, ours: Reply): void {
    const differs = difference(comparable(path, real), comparable(path, ours))
    assert.equal(differs, null, `${what} ${stringifyJson(body ?? null)}: real (expected) and ours (got) differ: ${differs}`)
  }

  // ---- Workers -------------------------------------------------------------------------------------------------------------

  async #register(): Promise<void> {
    const dice = this.#dice
    const id = dice.of([1, 2, 3, 4, 5, 6, 2n ** 63n + 7n, 2n ** 64n - 1n])
    const known = this.#workers.get(`${id}`)
    // Without events the original still credits a rank that was gone with what it once assumed: ranks stay then.
    const stays = known !== undefined && !this.#hasEvents
    const start = stays ? known.start : dice.chance(0.7) ? 0 : dice.below(5)
    const size = stays ? known.size : dice.of([1, 1, 1, 2, 3])
    const worker: Worker = known ?? { id, start, size, engines: new Map(), chains: new Map() }
    const body: Body = {
      worker_id: id, model_name: model, endpoint: `http://worker-${id}`, block_size: blockSize, data_parallel_start_rank: start, data_parallel_size: size,
      ...(dice.chance(0.6) ? { max_num_batched_tokens: 64 + dice.below(400) } : {}), ...(dice.chance(0.6) ? { total_kv_blocks: 50 + dice.below(200) } : {}),
      ...(dice.chance(0.6) ? { taints: ['a', 'b', 'c'].filter(() => dice.chance(0.4)) } : {}), ...(dice.chance(0.3) ? { topology_domains: { zone: dice.of(['x', 'y']) } } : {}),
    }
    if (this.#hasEvents) body['kv_events_endpoints'] = await this.#addresses(worker, start, size)
    if (dice.chance(0.9)) Object.assign(body, this.#hintFields(id, start, size))
    await this.#same('POST', '/workers', body)
    Object.assign(worker, { start, size })
    this.#workers.set(`${id}`, worker)
    await this.#settled()
    if (known !== undefined) await bothForgot([this.#real, this.#ours], id, (rank) => rank >= start && rank < start + size)
    await this.#connected(worker)
  }

  /** What makes a worker give, or take, hints where more of a prompt is to be had. */
  #hintFields(id: number | bigint, start: number, size: number): Body {
    const dice = this.#dice
    const endpoints: Body = {}
    for (let rank = start; rank < start + size; rank++) if (dice.chance(0.8)) endpoints[rank] = dice.chance(0.1) ? '' : `tcp://worker-${id}:${9000 + rank}`
    return {
      router_hint_worker_type: dice.of(['decode', 'decode', 'decode', 'prefill', '']), router_hint_source_control_endpoints: endpoints,
      ...(dice.chance(0.15) ? { kv_event_source_mode: dice.of(['state_agent_v2', 'zmq']) } : {}),
    }
  }

  async #addresses(worker: Worker, start: number, size: number): Promise<Body> {
    const addresses: Body = {}
    for (let rank = start; rank < start + size; rank++) {
      const engine = worker.engines.get(rank) ?? await EngineSocket.start()
      worker.engines.set(rank, engine)
      addresses[rank] = engine.address
    }
    for (const rank of worker.chains.keys()) if (rank < start || rank >= start + size) worker.chains.delete(rank)
    return addresses
  }

  /** Both follow every rank: each has seen a marker. */
  async #connected(worker: Worker): Promise<void> {
    if (!this.#hasEvents) return
    for (let rank = worker.start; rank < worker.start + worker.size; rank++) await this.#mark(worker, rank)
  }

  /** Waits until both have applied all that a rank sent. */
  async #mark(worker: Worker, rank: number): Promise<void> {
    this.#marker += 1
    const engine = worker.engines.get(rank)
    if (engine !== undefined) await bothFollow([this.#real, this.#ours], engine, { workerId: worker.id, rank }, this.#marker)
  }

  async #patch(): Promise<void> {
    const worker = this.#anyWorker()
    const dice = this.#dice
    const body: Body = dice.of<Body>([{ total_kv_blocks: 10 + dice.below(100) }, { taints: ['a', 'c'] }, { max_num_batched_tokens: 32 + dice.below(100) }, { topology_domains: { zone: 'y' } }, { endpoint: `http://other-${dice.below(9)}` }, {}])
    await this.#same('PATCH', `/workers/${worker?.id ?? 99}`, body)
    await this.#settled()
  }

  async #delete(): Promise<void> {
    const worker = this.#anyWorker()
    await this.#same('DELETE', `/workers/${worker?.id ?? 99}`)
    await this.#settled()
    if (worker === undefined) return
    await bothForgot([this.#real, this.#ours], worker.id, () => false)
    for (const engine of worker.engines.values()) engine.close()
    this.#workers.delete(`${worker.id}`)
  }

  #anyWorker(): Worker | undefined {
    return this.#workers.size === 0 ? undefined : this.#dice.of([...this.#workers.values()])
  }

  // ---- Events --------------------------------------------------------------------------------------------------------------

  async #events(): Promise<void> {
    const worker = this.#anyWorker()
    if (worker === undefined) return
    const dice = this.#dice
    const rank = worker.start + dice.below(worker.size)
    const chains = worker.chains.get(rank) ?? []
    worker.chains.set(rank, chains)
    const events: unknown[] = []
    for (let count = 1 + dice.below(3); count > 0; count--) {
      const held = chains.length > 0 ? dice.of(chains) : undefined
      if (held !== undefined && dice.chance(0.25)) {
        events.push(['BlockRemoved', held.hashes.slice(dice.below(held.hashes.length))])
        chains.splice(chains.indexOf(held), 1)
      } else if (dice.chance(0.03)) {
        events.push(['AllBlocksCleared'])
        chains.length = 0
      } else {
        const tokens = this.#prompts.next()
        const hashes = engineHashes(tokens)
        if (hashes.length === 0) continue
        const medium = dice.chance(0.7) ? null : dice.of(['CPU', 'DISK', 'EXTERNAL'])
        events.push(['BlockStored', hashes, null, tokens.slice(0, hashes.length * blockSize), blockSize, null, medium])
        if (medium === null) chains.push({ tokens, hashes })
      }
    }
    await worker.engines.get(rank)?.send(events)
    await this.#mark(worker, rank)
  }

  // ---- Selections ----------------------------------------------------------------------------------------------------------

  #promptBody(): Body {
    const dice = this.#dice
    const tokens = this.#prompts.next()
    if (dice.chance(0.06)) {
      const blocks = 1 + dice.below(5)
      const hashes = Array.from({ length: blocks }, () => -BigInt(dice.below(2 ** 31)) * 4_294_967_291n)
      return { block_hashes: hashes, sequence_hashes: hashes.map((hash) => -hash), isl_tokens: blocks * blockSize + dice.below(blockSize) }
    }
    return {
      token_ids: tokens, ...(dice.chance(0.1) ? { lora_name: dice.of(['l1', 'l2']) } : {}), ...(dice.chance(0.1) ? { cache_salt: dice.of(['s1', '']) } : {}),
      ...(dice.chance(0.05) ? { is_eagle: true } : {}), ...(dice.chance(0.05) ? { block_mm_infos: [null, { mm_objects: [{ mm_hash: 5n + 2n ** 63n, offsets: [[0, 2]] }] }] } : {}),
    }
  }

  #selectBody(): Body {
    const dice = this.#dice
    const worker = this.#anyWorker()
    const rankOf = (): number => (worker?.start ?? 0) + dice.below((worker?.size ?? 1) + (dice.chance(0.1) ? 1 : 0))
    const constraints = {
      ...(dice.chance(0.5) ? { required_taints: dice.chance(0.2) ? ['dynamo.topology/zone=x'] : [dice.of(['a', 'b', 'nobody'])] } : {}),
      ...(dice.chance(0.6) ? { preferred_taints: { a: dice.float() * 2, b: -dice.float() } } : {}),
    }
    return {
      model_name: model, ...this.#promptBody(),
      ...(dice.chance(0.15) ? { router_config_override: { ...(dice.chance(0.5) ? { track_prefill_tokens: dice.chance(0.5) } : {}), overlap_score_credit: dice.float() } } : {}),
      ...(dice.chance(0.2) ? { expected_output_tokens: dice.below(100) } : {}), ...(dice.chance(0.15) ? { routing_constraints: constraints } : {}),
      ...(dice.chance(0.1) ? { allowed_worker_ids: [...this.#workers.values()].filter(() => dice.chance(0.5)).map(({ id }) => id) } : {}),
      ...(dice.chance(0.1) ? { pinned_worker: { worker_id: worker?.id ?? 9, dp_rank: rankOf() } } : {}),
      ...(dice.chance(0.1) ? { affinity_target: { worker_id: (dice.chance(0.5) ? worker : this.#anyWorker())?.id ?? 9, dp_rank: dice.chance(0.5) ? null : rankOf() } } : {}),
    }
  }

  async #select(reserve: boolean): Promise<void> {
    const dice = this.#dice
    const body = this.#selectBody()
    const path = reserve ? '/select_and_reserve' : '/select'
    if (reserve || dice.chance(0.4)) body['selection_id'] = this.#id(reserve)
    if (!reserve && dice.chance(0.2)) body['advisory'] = true
    await this.#choose(path, body)
  }

  #id(mayRepeat: boolean): string {
    if (mayRepeat && this.#live.length > 0 && this.#dice.chance(0.04)) return this.#dice.of(this.#live)
    this.#ids += 1
    return `id/${this.#ids}`
  }

  /** Lets the real one choose; ours must be able to choose the same, and is then held to it. */
  async #choose(path: string, body: Body): Promise<void> {
    const real = await call(this.#real, 'POST', path, body)
    const chosen = real.body as Body
    const { selection_id: selectionId, ...question } = body
    if (real.status === 200 && body['pinned_worker'] === undefined) {
      let found = false
      const seen = new Set<string>()
      for (let tries = 0; tries < 400 && !found; tries++) {
        const { status, body: answer } = await call(this.#ours, 'POST', '/select', question)
        const { worker_id: workerId, dp_rank: rank } = answer as Body
        seen.add(`${status} ${workerId}.${rank}`)
        found = status === 200 && `${workerId}.${rank}` === `${chosen['worker_id']}.${chosen['dp_rank']}`
      }
      assert.ok(found, `${path} ${stringifyJson(body)}: the real one chose ${chosen['worker_id']}.${chosen['dp_rank']}, ours ${[...seen].join(', ')}`)
    }
    const held = real.status === 200 ? { ...body, pinned_worker: { worker_id: chosen['worker_id'], dp_rank: chosen['dp_rank'] } } : body
    this.#compare(path, path, body, real, await call(this.#ours, 'POST', path, held))
    if (chosen['kv_hint'] !== undefined) this.counts.set('hints', (this.counts.get('hints') ?? 0) + 1)
    if (real.status !== 200 || selectionId === undefined) return
    if (path === '/select_and_reserve') {
      this.#live.push(selectionId as string)
      await this.#noted(body)
    } else {
      this.#selected.push(selectionId as string)
      this.#asked.set(selectionId as string, body)
    }
  }

  async #replay(): Promise<void> {
    const id = this.#selected.length > 0 && this.#dice.chance(0.9) ? this.#dice.of(this.#selected) : 'never'
    const { status } = await this.#same('POST', '/reservations', { model_name: model, selection_id: id })
    if (status !== 201) return
    this.#live.push(id)
    await this.#noted(this.#asked.get(id))
  }

  async #explicit(): Promise<void> {
    const dice = this.#dice
    const worker = this.#anyWorker()
    const id = this.#id(true)
    const prompt = this.#promptBody()
    const { status } = await this.#same('POST', '/reservations', {
      model_name: model, selection_id: id, worker_id: worker?.id ?? 9, ...(dice.chance(0.8) ? { dp_rank: (worker?.start ?? 0) + dice.below((worker?.size ?? 1) + 1) } : {}), ...prompt,
      ...(dice.chance(0.6) ? { effective_prefill_tokens: dice.below(20) } : {}), ...(dice.chance(0.2) ? { track_prefill_tokens: dice.chance(0.5) } : {}),
    })
    if (status !== 201) return
    this.#live.push(id)
    await this.#noted(prompt)
  }

  async #life(): Promise<void> {
    const dice = this.#dice
    const at = dice.below(this.#live.length)
    const id = this.#live[at] ?? 'none'
    const path = `/reservations/${encodeURIComponent(id)}`
    if (dice.chance(this.#live.length > 12 ? 0.7 : 0.35)) {
      await this.#same('DELETE', path)
      if (!dice.chance(0.05)) this.#live.splice(at, 1)
    } else if (dice.chance(0.5)) await this.#same('POST', `${path}/prefill_complete`, {})
    else await this.#same('POST', `${path}/output_block`, dice.chance(0.7) ? { decay_fraction: dice.of([0.5, 0.75, 1, 0, 1.5, 0.1, 0.1, 0.3, 0.7]) } : {})
  }

  /** The original notes what it assumes a little after its answer: waits until both know of a booked prompt. */
  async #noted(prompt: Body | undefined): Promise<void> {
    if (!this.#assumes || prompt === undefined) return
    const { token_ids, block_hashes, sequence_hashes, isl_tokens, lora_name, cache_salt, is_eagle, block_mm_infos } = prompt
    const question = { model_name: model, token_ids, block_hashes, sequence_hashes, isl_tokens, lora_name, cache_salt, is_eagle, block_mm_infos }
    for (let tries = 0; tries < 100; tries++) {
      const [real, ours] = await Promise.all([call(this.#real, 'POST', '/overlap_scores', question), call(this.#ours, 'POST', '/overlap_scores', question)])
      if (difference(real, ours) === null) return
      await delay(20)
    }
  }

  // ---- The rest ------------------------------------------------------------------------------------------------------------

  async #reports(): Promise<void> {
    const dice = this.#dice
    const overridden = dice.chance(0.2) ? { router_config_override: { track_prefill_tokens: dice.chance(0.5) } } : {}
    const path = dice.of(['/potential_loads', '/overlap_scores', '/loads', '/workers', '/ready'])
    if (path === '/potential_loads' || path === '/overlap_scores') await this.#same('POST', path, { model_name: model, ...this.#promptBody(), ...overridden })
    else await this.#same('GET', path === '/ready' || dice.chance(0.5) ? path : `${path}?model_name=${dice.of([model, 'other'])}`)
  }

  /** Sessions on workers with one rank: where a session begins is said, so that both begin it there. */
  async #session(): Promise<void> {
    const single = [...this.#workers.values()].filter(({ size }) => size === 1)
    if (single.length === 0) return
    const session = `s${this.#dice.below(4)}`
    const id = this.#id(false)
    const prompt = this.#prompts.next()
    const { status } = await this.#same('POST', '/select_and_reserve', {
      model_name: model, selection_id: id, token_ids: prompt, allowed_worker_ids: [this.#dice.of(single).id],
      ...(this.#dice.chance(0.5) ? { session_id: session } : { session_context: { session_id: session, input_trigger: 'user_message' } }),
    })
    if (status !== 200) return
    this.#live.push(id)
    await this.#noted({ token_ids: prompt })
  }

  async #mistake(): Promise<void> {
    const path = this.#dice.of(['/select', '/select_and_reserve', '/potential_loads', '/workers', '/reservations', '/overlap_scores'])
    await this.#same('POST', path, this.#dice.of<Body>([
      { model_name: model, token_ids: [-1] }, { model_name: model, token_ids: 'x' }, { model_name: 5 }, { model_name: model, selection_id: 'q', router_config_override: { router_temperature: -1 }, token_ids: [] },
      { model_name: model, selection_id: 'q', block_hashes: [1], sequence_hashes: [1, 2], isl_tokens: 3 }, { model_name: 'unknown', selection_id: 'q', token_ids: [1] },
      { model_name: model, selection_id: 'q', sequence_hashes: [1] }, { worker_id: 5000, data_parallel_size: 5000 }, { worker_id: -3 },
    ]))
  }
}

interface Setup { readonly name: string; readonly env: NodeJS.ProcessEnv; readonly hasEvents: boolean }

const setups: readonly Setup[] = [
  { name: 'events', env: {}, hasEvents: true },
  { name: 'approximate', env: { DYN_ROUTER_USE_KV_EVENTS: 'false', DYN_ROUTER_TTL_SECS: '3600' }, hasEvents: false },
  { name: 'weights', env: { DYN_ROUTER_KV_OVERLAP_SCORE_CREDIT: '0.6', DYN_ROUTER_KV_OVERLAP_SCORE_CREDIT_DECAY: '0.8', DYN_ROUTER_DECODE_ACTIVE_REQUEST_WEIGHT: '2', DYN_ROUTER_PREFILL_LOAD_SCALE: '1.5', DYN_ROUTER_PREDICTED_TTL_SECS: '3600' }, hasEvents: true },
  { name: 'loads', env: { DYN_ROUTER_TRACK_PREFILL_TOKENS: 'false', DYN_ROUTER_USE_KV_EVENTS: 'false', DYN_OVERLAP_SCORE_WEIGHT: '0' }, hasEvents: false },
]

async function differential(deployment: Deployment): Promise<void> {
  const steps = Number(process.env['WARMPATH_SELECTION_STEPS'] ?? 320)
  const seed = Number(process.env['WARMPATH_SELECTION_SEED'] ?? 20_261)
  const only = process.env['WARMPATH_SELECTION_SETUP']
  const counts = new Map<string, number>()
  for (const [index, { name, env, hasEvents }] of setups.entries()) {
    if (only !== undefined && only !== name) continue
    const own = seed + index
    const [real, ours] = await services(deployment, name, env)
    const run = new Differential(own, real, ours, hasEvents, !hasEvents || env['DYN_ROUTER_PREDICTED_TTL_SECS'] !== undefined)
    let step = 0
    try {
      for (; step < Math.ceil(steps / setups.length); step++) await run.step()
    } catch (error) {
      throw new Error(`setup ${name}, step ${step}: WARMPATH_SELECTION_SETUP=${name} WARMPATH_SELECTION_SEED=${seed} WARMPATH_SELECTION_STEPS=${steps} replays it: ${(error as Error).message}`, { cause: error })
    } finally {
      run.close()
    }
    for (const [kind, count] of run.counts) counts.set(kind, (counts.get(kind) ?? 0) + count)
    await deployment.stop(deployment.labelled(`ours-${name}`))
    await deployment.stop(deployment.labelled(`real-${name}`), 'SIGKILL')
  }
  process.stdout.write(`  ${[...counts.values()].reduce((sum, count) => sum + count, 0)} steps, every answer equal: ${[...counts].map(([kind, count]) => `${kind} ${count}`).join(', ')}\n`)
}

export const selectionScenarios: readonly Scenario[] = [{ name: 'selection', timeoutSeconds: Number(process.env['WARMPATH_SELECTION_STEPS'] ?? 0) > 1000 ? 3600 : 120, run: differential }]

