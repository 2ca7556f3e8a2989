/**
 * Flavours, ranks, topologies and failures combined by chance, each against scripted workers of its own namespace behind one frontend. What must hold
 * in every one of them: an answer with all its tokens whenever a live worker could have given it, hand-over and ranks that fit, nothing booked afterwards.
 */
import assert from 'node:assert/strict'
import { freePort, type Deployment, type WorkerEvent } from '../deployment.ts'
import { seeded, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const flavours = ['vllm', 'trtllm', 'sglang', 'sglang-advertised'] as const
type Flavour = (typeof flavours)[number]

/** What the prefill worker does to its first request, or to all of them. */
const bootstrapFaults = ['none', 'slow:0.3', 'exit', 'exit-after', 'raise-after'] as const
const prefillFaults = ['none', 'raise', 'error-finish', 'empty', 'no-params', 'exit', 'slow:0.3'] as const
/** What a decode worker does to its first request. */
const decodeFaults = ['none', 'exit', 'exit-after:1', 'exit-after:3', 'slow:0.3'] as const

interface Combination {
  readonly model: string
  readonly flavour: Flavour
  readonly prefillRanks: number
  readonly decodeRanks: number
  readonly zones: boolean
  readonly prefillFault: (typeof prefillFaults | typeof bootstrapFaults)[number]
  readonly decodeFault: (typeof decodeFaults)[number]
  readonly isStream: boolean
  readonly tokens: number
}

interface Logged {
  readonly token_ids: readonly number[]
  readonly routing?: { readonly prefill_worker_id?: bigint | number; readonly dp_rank?: number; readonly prefill_dp_rank?: number; readonly routing_constraints?: { readonly required_taints?: readonly string[] } }
  readonly bootstrap_info?: { readonly bootstrap_room: bigint | number }
  readonly prefill_result?: { readonly disaggregated_params?: unknown }
}

type Worker = Awaited<ReturnType<Deployment['worker']>>

const combinationsPerRun = 20

function drawn(random: () => number, index: number): Combination {
  const one = <Item>(items: readonly Item[]): Item => items[Math.floor(random() * items.length)] as Item
  const flavour = one(flavours)
  const isSglang = flavour.startsWith('sglang')
  return {
    model: `model-${index}`, flavour, prefillRanks: one([1, 2, 4]), decodeRanks: one([1, 2]), zones: random() < 0.4,
    // An SGLang decode worker cannot compute a prompt: what fails all its prefill workers fails the request.
    prefillFault: isSglang ? one(bootstrapFaults) : one(prefillFaults), decodeFault: one(decodeFaults), isStream: random() < 0.5, tokens: 2 + Math.floor(random() * 8),
  }
}

const requestsOf = (events: readonly WorkerEvent[]): Logged[] => events.filter(({ ev }) => ev === 'request').map((event) => event['request'] as Logged)

async function startWorkers(deployment: Deployment, { model, flavour, prefillRanks, decodeRanks, zones, prefillFault, decodeFault }: Combination): Promise<{ readonly prefill: readonly Worker[]; readonly decode: readonly Worker[] }> {
  const kind = flavour.startsWith('sglang') ? 'sglang' : flavour
  const zone = (at: number): string[] => (zones ? ['--topology', `zone=z${at}`, '--kv-domain', 'zone', '--kv-enforcement', 'required'] : [])
  const fault = (name: string): string[] => (name === 'none' ? [] : ['--fail', name, '--fail-first', '1'])
  const start = (role: 'prefill' | 'decode', at: number, ranks: number, failing: string): Promise<Worker> => deployment.worker(`${model}-${role}-${at}`, [
    '--role', role, '--flavour', kind, '--model-name', model, '--endpoint', `${model}.${role === 'prefill' ? 'prefill' : 'backend'}.generate`, '--dp-size', `${ranks}`, '--delay', '0.01', '--usage',
    ...zone(at), ...fault(failing), ...(role === 'prefill' && flavour === 'sglang-advertised' ? ['--bootstrap-host', '127.0.0.1', '--bootstrap-port', `${9000 + at}`] : []),
  ])
  // The first of each kind fails once; the second is sound.
  const [p0, p1, d0, d1] = await Promise.all([start('prefill', 0, prefillRanks, prefillFault), start('prefill', 1, prefillRanks, 'none'), start('decode', 0, decodeRanks, decodeFault), start('decode', 1, decodeRanks, 'none')])
  return { prefill: [p0, p1], decode: [d0, d1] }
}

async function ask(port: number, { model, isStream, tokens }: Combination, content: string): Promise<{ readonly status: number; readonly text: string; readonly tokens: number; readonly wanted: number; readonly prefill: string | null }> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(40_000),
    body: JSON.stringify({ model, messages: [{ role: 'user', content }], max_tokens: tokens, stream: isStream, ...(isStream ? { stream_options: { include_usage: true } } : {}) }),
  })
  const text = await response.text()
  return { status: response.status, text, tokens: Number(/"completion_tokens":(\d+)/.exec(text)?.[1]), wanted: tokens, prefill: response.headers.get('x-warmpath-prefill') }
}

/** Of the decode requests: hand-over, ranks, rooms and zones fit the prefill that came before. */
function checkLegs({ prefill, decode }: { readonly prefill: readonly Worker[]; readonly decode: readonly Worker[] }, { flavour, prefillRanks, decodeRanks, zones, prefillFault }: Combination): void {
  for (const worker of prefill) for (const { routing } of requestsOf(worker.events())) assert.ok((routing?.dp_rank ?? 0) < prefillRanks)
  for (const [at, worker] of decode.entries()) {
    for (const request of requestsOf(worker.events())) {
      const { routing, bootstrap_info: info, prefill_result: result } = request
      assert.ok((routing?.dp_rank ?? 0) < decodeRanks)
      const giver = prefill.findIndex(({ id }) => id === BigInt(routing?.prefill_worker_id ?? 0))
      if (info === undefined && result === undefined) continue
      assert.ok(giver >= 0, 'a decode request names who computed its prompt')
      if (zones) {
        assert.equal(giver, at, 'both stages are in one zone')
        assert.deepEqual(routing?.routing_constraints?.required_taints, [`dynamo.topology/zone=z${giver}`])
      }
      const handed = (prefill[giver] as Worker).events().filter(({ ev }) => ev === 'chunk').map((event) => (event['output'] as { readonly disaggregated_params?: unknown }).disaggregated_params)
      if (result !== undefined) assert.ok(handed.some((params) => same(params, result.disaggregated_params)), 'the hand-over is verbatim')
      if (info === undefined || flavour !== 'sglang-advertised') continue
      const asked = requestsOf((prefill[giver] as Worker).events()).filter(({ bootstrap_info: left }) => left?.bootstrap_room === info.bootstrap_room)
      // A prefill worker that died may not have come to log its leg.
      if (asked.length === 0 && prefillFault === 'exit' && giver === 0) continue
      assert.equal(asked.length, 1, 'both legs have one room')
      assert.equal(BigInt(info.bootstrap_room) % BigInt(prefillRanks), BigInt(asked[0]?.routing?.dp_rank ?? -1), 'the room names the rank')
    }
  }
}

const text = (value: unknown): string => JSON.stringify(value, (_name, item: unknown) => (typeof item === 'bigint' ? `${item}` : item))
const same = (left: unknown, right: unknown): boolean => text(left) === text(right)

async function combinations(deployment: Deployment): Promise<void> {
  const seed = Number(process.env['WARMPATH_COMBINATIONS_SEED'] ?? Math.floor(Math.random() * 1e6))
  process.stdout.write(`     seed ${seed} (WARMPATH_COMBINATIONS_SEED)\n`)
  const random = seeded(seed)
  const port = await freePort()
  const frontend = deployment.warmpath('frontend', ['frontend', '--http-port', port, '--http-host', '127.0.0.1', '--first-output-timeout', 10], { DYN_LOG: 'info' })
  for (let index = 0; index < combinationsPerRun; index += 1) {
    const combination = drawn(random, index)
    try {
      const workers = await startWorkers(deployment, combination)
      await until(`${combination.model} is listed`, async () => {
        if (frontend.child.exitCode !== null) throw new Error(frontend.log().slice(-1500))
        try {
          return (await (await fetch(`http://127.0.0.1:${port}/v1/models`)).text()).includes(`"${combination.model}"`)
        } catch {
          return false
        }
      })
      const answers = await Promise.all(Array.from({ length: 6 }, (_, at) => ask(port, combination, `prompt ${at} of the river and the town `.repeat(1 + at))))
      for (const answer of answers) {
        assert.deepEqual([answer.status, answer.tokens, answer.text.includes('"error"')], [200, answer.wanted, false], answer.text.slice(0, 500))
      }
      checkLegs(workers, combination)
      for (const { process } of [...workers.prefill, ...workers.decode]) deployment.signal(process, 'SIGKILL')
    } catch (error) {
      const state = await fetch(`http://127.0.0.1:${port}/v1/models/${combination.model}/ready`, { signal: AbortSignal.timeout(5000) }).then((response) => response.text(), String)
      throw new Error(`${text(combination)}: ${(error as Error).message}\nreadiness: ${state}\nthe frontend said last: ${frontend.log().slice(-1500)}`, { cause: error })
    }
  }
  await until('nothing is booked', async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    return /^warmpath_active_requests 0$/m.test(metrics) && /^warmpath_bookings_entries 0$/m.test(metrics)
  }, 30_000)
}

export const combinationScenarios: readonly Scenario[] = [{ name: 'combinations', timeoutSeconds: 300, run: combinations }]
