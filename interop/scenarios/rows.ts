/**
 * The failure table of two-stage serving, row by row, on scripted workers: once with what our frontend does by default, once with retries, fall-back
 * and migration off. `docs/compatibility.md` says what is expected.
 */
import assert from 'node:assert/strict'
import { freePort, type Deployment, type Managed } from '../deployment.ts'
import type { Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

type Worker = Awaited<ReturnType<Deployment['worker']>>

interface Row {
  readonly name: string
  readonly flavour?: 'vllm' | 'trtllm' | 'sglang' | 'sglang-advertised'
  /** Arguments of each prefill worker; left out: one sound one. */
  readonly prefill?: readonly (readonly string[])[]
  readonly decode?: readonly (readonly string[])[]
  readonly body?: (pools: Pools) => Readonly<Record<string, unknown>>
  readonly on: Outcome
  readonly off: Outcome
}

/** `tokens`: of the whole answer. `prefill`: `x-warmpath-prefill`. */
type Outcome =
  | { readonly status: 200; readonly tokens: number; readonly prefill: RegExp }
  /** `stream`: of a stream that begins well and breaks. */
  | { readonly status: number; readonly stream?: number }

interface Pools {
  readonly prefill: readonly Worker[]
  readonly decode: readonly Worker[]
}

const tokens = 6
const remote: Outcome = { status: 200, tokens, prefill: /^remote$/ }
const alone: Outcome = { status: 200, tokens, prefill: /^fallback:/ }
const once = (mode: string): readonly string[] => ['--fail', mode, '--fail-first', '1']
const always = (mode: string): readonly string[] => ['--fail', mode]

const rows: readonly Row[] = [
  { name: 'prefill raises', prefill: [always('raise')], on: alone, off: { status: 500 } },
  { name: 'prefill ends with an error', prefill: [always('error-finish')], on: alone, off: { status: 500 } },
  { name: 'prefill hands nothing over', prefill: [always('no-params')], on: alone, off: { status: 500 } },
  { name: 'prefill gives nothing', prefill: [always('empty')], on: alone, off: { status: 500 } },
  { name: 'no context id', flavour: 'trtllm', prefill: [always('null-ctx')], on: alone, off: { status: 500 } },
  { name: 'prefill ends the answer', prefill: [always('eos')], on: { status: 200, tokens: 1, prefill: /^remote$/ }, off: { status: 200, tokens: 1, prefill: /^remote$/ } },
  { name: 'prefill dies', prefill: [always('exit')], on: alone, off: { status: 503 } },
  { name: 'one of two prefill workers raises', prefill: [once('raise'), once('raise')], on: alone, off: { status: 500 } },
  { name: 'bad request', prefill: [always('value-error')], on: { status: 400 }, off: { status: 400 } },
  { name: 'decode raises', decode: [always('raise-after:2')], on: { status: 500, stream: 500 }, off: { status: 500, stream: 500 } },
  { name: 'decode dies before its output', decode: [once('exit'), once('none')], on: remote, off: { status: 503 } },
  { name: 'decode dies in the middle', decode: [once('exit-after:2'), once('none')], on: remote, off: { status: 503, stream: 503 } },
  { name: 'bootstrap prefill dies after its hand-over', flavour: 'sglang-advertised', prefill: [once('exit-after'), once('none')], on: remote, off: { status: 503, stream: 503 } },
  { name: 'bootstrap prefill raises after its hand-over', flavour: 'sglang-advertised', prefill: [once('raise-after'), once('none')], on: remote, off: { status: 500, stream: 500 } },
  { name: 'late bootstrap prefill raises', flavour: 'sglang', prefill: [once('raise-after'), once('none')], on: remote, off: { status: 500, stream: 500 } },
  { name: 'a worker that is not there', body: () => ({ nvext: { prefill_worker_id: 12345 } }), on: { status: 400 }, off: { status: 400 } },
  { name: 'a taint that nobody has', body: () => ({ nvext: { routing_constraints: { required_taints: ['gold'] } } }), on: { status: 503 }, off: { status: 503 } },
]

async function startPools(deployment: Deployment, model: string, { flavour = 'vllm', prefill = [[]], decode = [[]] }: Row): Promise<Pools> {
  const kind = flavour.startsWith('sglang') ? 'sglang' : flavour
  const start = (role: 'prefill' | 'decode', component: string, at: number, more: readonly string[]): Promise<Worker> => deployment.worker(`${model}-${role}-${at}`, [
    '--role', role, '--flavour', kind, '--model-name', model, '--endpoint', `${model}.${component}.generate`, '--usage', '--delay', '0.02', ...more,
    ...(role === 'prefill' && flavour === 'sglang-advertised' ? ['--bootstrap-host', '127.0.0.1', '--bootstrap-port', `${9100 + at}`] : []),
  ])
  const [prefillWorkers, decodeWorkers] = await Promise.all([Promise.all(prefill.map((more, at) => start('prefill', 'prefill', at, more))), Promise.all(decode.map((more, at) => start('decode', 'backend', at, more)))])
  return { prefill: prefillWorkers, decode: decodeWorkers }
}

async function ask(port: number, model: string, body: Readonly<Record<string, unknown>>): Promise<{ readonly status: number; readonly text: string; readonly prefill: string }> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(30_000),
    body: JSON.stringify({ model, max_tokens: tokens, ...body }),
  })
  return { status: response.status, text: await response.text(), prefill: response.headers.get('x-warmpath-prefill') ?? '' }
}

async function listed(port: number, frontend: Managed, model: string): Promise<void> {
  await until(`${model} is listed`, async () => {
    if (frontend.child.exitCode !== null) throw new Error(frontend.log().slice(-1500))
    try {
      return (await (await fetch(`http://127.0.0.1:${port}/v1/models`)).text()).includes(`"${model}"`)
    } catch {
      return false
    }
  }, 60_000)
}

/** One row with one frontend, as a whole answer and as a stream, each with workers of its own: some of them die of it. */
async function check(deployment: Deployment, row: Row, { frontend, port, mode }: { readonly frontend: Managed; readonly port: number; readonly mode: 'on' | 'off' }, at: number): Promise<void> {
  const wanted = row[mode]
  for (const isStream of [false, true]) {
    const model = `row-${at}-${mode}-${isStream ? 'stream' : 'whole'}`
    const pools = await startPools(deployment, model, row)
    await listed(port, frontend, model)
    // What fails may be one of two: as many requests as it takes to meet it.
    const all = [...pools.prefill, ...pools.decode]
    const hasFailed = (): boolean => all.some(({ events }) => events().some(({ ev }) => ev === 'fail'))
    const answers: Awaited<ReturnType<typeof ask>>[] = []
    for (let round = 0; round < (all.length > 2 ? 30 : 1) && !(round > 0 && hasFailed()); round += 1) {
      answers.push(await ask(port, model, { messages: [{ role: 'user', content: `${round} boats in the harbour` }], ...row.body?.(pools), ...(isStream ? { stream: true, stream_options: { include_usage: true } } : {}) }))
    }
    const shown = `${row.name}, ${mode}, ${isStream ? 'stream' : 'whole'}: ${JSON.stringify(answers)}`
    const isWhole = (answer: (typeof answers)[number], count: number): boolean => answer.status === 200 && Number(/"completion_tokens":(\d+)/.exec(answer.text)?.[1]) === count && !answer.text.includes('"error"')
    if ('tokens' in wanted) {
      for (const answer of answers) assert.ok(isWhole(answer, wanted.tokens), shown)
      assert.ok(answers.some(({ prefill }) => wanted.prefill.test(prefill)), shown)
    } else {
      const broken = answers.filter((answer) => !isWhole(answer, tokens))
      assert.ok(broken.length > 0, shown)
      for (const { status, text } of broken) {
        if (!isStream || wanted.stream === undefined) assert.equal(status, wanted.status, shown)
        else {
          assert.equal(status === 200 ? Number(/"status":(\d+)/.exec(text)?.[1]) : status, wanted.stream, shown)
          if (status === 200) assert.ok(text.trimEnd().endsWith('data: [DONE]'), shown)
        }
      }
    }
    for (const { process } of all) deployment.signal(process, 'SIGKILL')
  }
}

async function failureRows(deployment: Deployment, part: number, parts: number): Promise<void> {
  const start = async (mode: 'on' | 'off', args: readonly (string | number)[]): Promise<Parameters<typeof check>[2]> => {
    const port = await freePort()
    return { mode, port, frontend: deployment.warmpath(mode, ['frontend', '--http-port', port, '--http-host', '127.0.0.1', '--first-output-timeout', 10, ...args]) }
  }
  const frontends = await Promise.all([start('on', []), start('off', ['--retry-limit', 0, '--migration-limit', 0, '--on-prefill-error', 'fail'])])
  for (const [at, row] of rows.entries()) {
    if (at % parts === part) await Promise.all(frontends.map((frontend) => check(deployment, row, frontend, at)))
  }
}

/** A client that goes while its answer is written: the decode worker is told. */
async function clientLeaves(deployment: Deployment): Promise<void> {
  const { decode } = await startPools(deployment, 'left', { name: '', on: remote, off: remote, decode: [['--delay', '0.1']] })
  const port = await freePort()
  const frontend = deployment.warmpath('frontend', ['frontend', '--http-port', port, '--http-host', '127.0.0.1'])
  await listed(port, frontend, 'left')
  const leave = new AbortController()
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, signal: leave.signal,
    body: JSON.stringify({ model: 'left', messages: [{ role: 'user', content: 'x' }], max_tokens: 200, stream: true }),
  })
  await response.body?.getReader().read()
  leave.abort()
  await until('the decode worker is told', () => decode[0]?.events().some(({ ev }) => ev === 'cancelled'))
  await until('nothing is booked', async () => /^warmpath_bookings_entries 0$/m.test(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()))
}

const partCount = 3

export const rowScenarios: readonly Scenario[] = [
  ...Array.from({ length: partCount }, (_, part): Scenario => ({ name: `rows-${part + 1}`, timeoutSeconds: 180, run: (deployment) => failureRows(deployment, part, partCount) })),
  { name: 'rows-client-leaves', run: clientLeaves },
]
