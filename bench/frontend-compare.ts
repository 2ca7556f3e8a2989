/**
 * Our frontend and the real `python -m dynamo.frontend` in one run, on the same trivial Python workers, under the same client, turn by
 * turn: aggregated (two workers) and disaggregated (a prefill and a decode worker), streamed and whole.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Deployment, freePort, type Managed } from '../interop/deployment.ts'
import type { DynamoInstallation } from '../interop/dynamo-venv.ts'
import { repoRoot } from '../test/repo-root.ts'
import type { HttpTurn } from './http-load.ts'
import { runLoadClient } from './load-client.ts'
import { until } from '../test/until.ts'

export const sides = ['real', 'ours'] as const
export type Side = (typeof sides)[number]
export const topologies = ['aggregated', 'disaggregated'] as const
export type Topology = (typeof topologies)[number]

export interface FrontendCell {
  readonly topology: Topology
  readonly stream: boolean
  readonly concurrency: number
  readonly outputTokens: number
}

export interface FrontendCellFigures extends FrontendCell {
  readonly turns: Readonly<Record<Side, readonly HttpTurn[]>>
}

export interface FrontendFigures {
  readonly promptTokens: number
  readonly cells: readonly FrontendCellFigures[]
  /** Lines that each side's frontends wrote to their logs at `info`, the default of both. */
  readonly logLines: Readonly<Record<Side, number>>
}

export interface FrontendRun {
  readonly dynamo: DynamoInstallation
  readonly cliPath: string
  /** Ours of another state takes the place of the real one. */
  readonly otherCliPath: string | null
  readonly cells: readonly FrontendCell[]
  readonly rounds: number
  readonly seconds: number
  readonly profileFolder: string | null
  progress(line: string): void
}

/** With the tiny tokenizer of the bench model about 500 tokens. */
const promptLetters = 640
const loadPath = fileURLToPath(new URL(`./http-load.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}`, import.meta.url))

const rolesOf = { aggregated: ['aggregated', 'aggregated'], disaggregated: ['prefill', 'decode'] } as const

interface Frontend {
  readonly process: Managed
  readonly port: number
}

class Comparison {
  readonly #run: FrontendRun
  readonly #deployment: Deployment
  readonly #frontends = new Map<string, Frontend>()

  constructor(run: FrontendRun) {
    this.#run = run
    this.#deployment = new Deployment(run.dynamo)
  }

  /** Output goes to files by itself: a pipe would be emptied by us, on the same cores. */
  #spawn(label: string, command: string, args: readonly (string | number)[]): Managed {
    return this.#deployment.spawn(label, 'sh', ['-c', 'exec "$@" >"$0" 2>&1', this.#logPath(label), command, ...args])
  }

  #logPath(label: string): string {
    return join(this.#deployment.folder, `${label}.out`)
  }

  logLines(side: Side): number {
    return [...this.#frontends.keys()].filter((label) => label.startsWith(side)).reduce((sum, label) => sum + readFileSync(this.#logPath(label), 'utf8').split('\n').length - 1, 0)
  }

  async start(): Promise<void> {
    const { dynamo, cells } = this.#run
    for (const topology of topologies.filter((each) => cells.some((cell) => cell.topology === each))) {
      for (const [index, role] of rolesOf[topology].entries()) {
        this.#spawn(`${topology}-worker-${index}`, dynamo.python, [
          join(repoRoot, 'bench', 'python', 'dyn_worker.py'), '--endpoint', `${topology}.${role === 'prefill' ? 'prefill' : 'backend'}.generate`,
          '--model-path', dynamo.modelPath, '--model-name', topology, '--role', role, '--first-token', 40,
        ])
      }
      await this.#deployment.registered(`${topology}/`, rolesOf[topology].length)
      for (const side of sides) await this.#startFrontend(side, topology)
    }
  }

  async #startFrontend(side: Side, topology: Topology): Promise<void> {
    const { dynamo, cliPath, otherCliPath, profileFolder } = this.#run
    const port = await freePort()
    const label = `${side}-${topology}`
    const args = ['--http-port', port, '--http-host', '127.0.0.1', '--namespace', topology, '--router-mode', 'kv']
    const profile = profileFolder === null ? [] : ['--cpu-prof', `--cpu-prof-dir=${profileFolder}`, `--cpu-prof-name=${topology}.cpuprofile`]
    const process_ = side === 'ours'
      ? this.#spawn(label, process.execPath, [...profile, cliPath, 'frontend', ...args])
      : otherCliPath === null
        ? this.#spawn(label, dynamo.python, ['-m', 'dynamo.frontend', ...args])
        : this.#spawn(label, process.execPath, [otherCliPath, 'frontend', ...args])
    this.#frontends.set(label, { process: process_, port })
    await until(`${label} answers in the way of its topology`, () => this.#isReady(label, topology), 90_000)
  }

  /** The real frontend serves a decode worker alone, too, until it has seen the prefill worker: both must be in use. */
  async #isReady(label: string, topology: Topology): Promise<boolean> {
    const { process: managed, port } = this.#frontends.get(label) as Frontend
    if (managed.child.exitCode !== null) throw new Error(`${label} ended with ${managed.child.exitCode}: ${readFileSync(this.#logPath(label), 'utf8').slice(-1500)}`)
    const body = { model: topology, max_tokens: 1, messages: [{ role: 'user', content: 'x' }], nvext: { extra_fields: ['worker_id'] } }
    try {
      const answer = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
        method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal: AbortSignal.timeout(10_000),
      })
      const text = await answer.text()
      return answer.status === 200 && (topology === 'aggregated' || /"prefill_worker_id":\d/.test(text))
    } catch {
      return false
    }
  }

  /** Errors: nothing completed, answers of the wrong length, or a process that has ended. */
  async turn(side: Side, cell: FrontendCell): Promise<HttpTurn> {
    const { topology, stream, concurrency, outputTokens } = cell
    const { process: managed, port } = this.#frontends.get(`${side}-${topology}`) as Frontend
    const args = [
      loadPath, '--port', port, '--model', topology, '--concurrency', concurrency, ...(stream ? ['--stream'] : []), '--output-tokens', outputTokens,
      '--prompt-letters', promptLetters, '--seconds', this.#run.seconds, '--watch-pid', managed.child.pid ?? 0,
    ].map(String)
    const turn = await runLoadClient<HttpTurn>({ file: process.execPath, args, env: process.env, seconds: this.#run.seconds, what: `${side}, ${cellText(cell)}`, tokensPerRequest: outputTokens })
    for (const [label, { process: each }] of this.#frontends) if (each.child.exitCode !== null) throw new Error(`${label} ended with ${each.child.exitCode}`)
    return turn
  }

  async close(): Promise<void> {
    if (this.#run.profileFolder !== null) {
      // A profile is written at an orderly end only.
      for (const [label, { process: managed }] of this.#frontends) if (label.startsWith('ours')) await this.#deployment.stop(managed)
    }
    await this.#deployment.close(false)
  }
}

export const cellText = ({ topology, stream, concurrency, outputTokens }: FrontendCell): string =>
  `${topology}, ${stream ? 'streamed' : 'whole'}, ${concurrency} at once, ${outputTokens} tokens`

/** Runs every cell in every round, in an order that turns from cell to cell. Errors: a turn that does not count. */
export async function compareFrontends(run: FrontendRun): Promise<FrontendFigures> {
  const comparison = new Comparison(run)
  try {
    await comparison.start()
    const cells = run.cells.map((cell) => ({ ...cell, turns: { real: [] as HttpTurn[], ours: [] as HttpTurn[] } }))
    // Code that has not run yet is slow: what is compared is a frontend that serves.
    for (const cell of cells) for (const side of sides) await comparison.turn(side, cell)
    run.progress('warmed up')
    for (let round = 0; round < run.rounds; round += 1) {
      for (const [position, cell] of cells.entries()) {
        for (const side of (round + position) % 2 === 0 ? sides : [...sides].reverse()) {
          const turn = await comparison.turn(side, cell)
          cell.turns[side].push(turn)
          run.progress(`round ${round + 1} ${cellText(cell)}, ${side}: ${turn.cpuUsPerRequest.toFixed(0)} us CPU, first p50 ${turn.firstP50Ms.toFixed(2)} ms, p50 ${turn.latencyP50Ms.toFixed(2)} ms, ` +
            `${turn.requestsPerSecond.toFixed(0)} req/s, ${turn.eventsPerRequest.toFixed(1)} events, ${turn.rssMiB.toFixed(0)} MiB, ${turn.errors} errors`)
        }
      }
    }
    return { promptTokens: cells[0]?.turns.ours[0]?.promptTokens ?? 0, cells, logLines: { real: comparison.logLines('real'), ours: comparison.logLines('ours') } }
  } finally {
    await comparison.close()
  }
}
