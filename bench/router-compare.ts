/**
 * Our router and the real `python -m dynamo.router` in one run: each serves two trivial Python workers, under the same
 * client, turn by turn. `direct` is the client on a worker: what no router can go below.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Deployment, type Managed } from '../interop/deployment.ts'
import type { DynamoInstallation } from '../interop/dynamo-venv.ts'
import { repoRoot } from '../test/repo-root.ts'
import { runLoadClient } from './load-client.ts'
import { median } from './measure.ts'

/** One turn of the client; also its output. */
export interface Turn {
  readonly completed: number
  readonly errors: number
  readonly tokensPerRequest: number
  readonly requestsPerSecond: number
  /** CPU time of the router's process tree (direct: of one of two workers). */
  readonly cpuUsPerRequest: number
  readonly firstP50Ms: number
  readonly firstP99Ms: number
  readonly latencyP50Ms: number
  readonly latencyP99Ms: number
  readonly rssMiB: number
}

export const targets = ['direct', 'real', 'ours'] as const
export type Target = (typeof targets)[number]

export interface Cell {
  readonly mode: 'generate' | 'best'
  readonly concurrency: number
  readonly outputTokens: number
}

export interface CellFigures extends Cell {
  readonly turns: Readonly<Record<Target, readonly Turn[]>>
}

export interface RouterFigures {
  readonly inputTokens: number
  readonly cells: readonly CellFigures[]
  /** More arguments of both routers. */
  readonly routerArguments: readonly string[]
  /** Lines that each router wrote to its log during the run: the real one at `warn`, ours at `info`. */
  readonly logLines: Readonly<Record<'real' | 'ours', number>>
}

export interface RouterRun {
  readonly dynamo: DynamoInstallation
  readonly cliPath: string
  /** Ours of another state takes the place of the real one. */
  readonly otherCliPath: string | null
  readonly cells: readonly Cell[]
  readonly rounds: number
  readonly seconds: number
  /** For both routers, besides endpoint and block size. */
  readonly routerArguments: readonly string[]
  /** Files for `node --cpu-prof` of our router go here; null: not profiled, as figures that count must be. */
  readonly profileFolder: string | null
  progress(line: string): void
}

const inputTokens = 512
const workersEach = 2

/** The middle over rounds of one figure. */
export const middle = (turns: readonly Turn[], figure: keyof Turn): number => median(turns.map((turn) => turn[figure]))

class Comparison {
  readonly #run: RouterRun
  readonly #deployment: Deployment
  readonly #watched = new Map<Target, Managed>()

  constructor(run: RouterRun) {
    this.#run = run
    this.#deployment = new Deployment(run.dynamo, { DYN_LOG: 'warn' })
  }

  /** Output goes to files by itself: a pipe would be emptied by us, on the same cores. */
  #spawn(label: string, command: string, args: readonly (string | number)[], env: NodeJS.ProcessEnv = {}): Managed {
    return this.#deployment.spawn(label, 'sh', ['-c', 'exec "$@" >"$0" 2>&1', this.#logPath(label), command, ...args], env)
  }

  #logPath(label: string): string {
    return join(this.#deployment.folder, `${label}.out`)
  }

  logLines(label: string): number {
    return readFileSync(this.#logPath(label), 'utf8').split('\n').length - 1
  }

  async start(): Promise<void> {
    const { dynamo, cliPath, otherCliPath, profileFolder } = this.#run
    for (const side of ['real', 'ours'] as const) {
      for (let index = 0; index < workersEach; index += 1) {
        const worker = this.#spawn(`${side}-worker-${index}`, dynamo.python, [
          join(repoRoot, 'bench', 'python', 'dyn_worker.py'), '--endpoint', `${side}.backend.generate`, '--model-path', dynamo.modelPath, '--model-name', `tiny-${side}`,
        ])
        if (side === 'real' && index === 0) this.#watched.set('direct', worker)
      }
      await this.#deployment.registered(`${side}/backend/generate`, workersEach)
    }
    const profile = profileFolder === null ? [] : ['--cpu-prof', `--cpu-prof-dir=${profileFolder}`]
    this.#watched.set('real', otherCliPath === null
      ? this.#spawn('real-router', dynamo.python, ['-m', 'dynamo.router', ...this.#routerArguments('real')])
      : this.#spawn('real-router', process.execPath, [otherCliPath, 'router', ...this.#routerArguments('real')], { DYN_LOG: 'info' }))
    // The real router writes a line per request even at `warn`; ours does so from `info` on.
    this.#watched.set('ours', this.#spawn('our-router', process.execPath, [...profile, cliPath, 'router', ...this.#routerArguments('ours')], { DYN_LOG: 'info' }))
    for (const side of ['real', 'ours'] as const) {
      await this.#deployment.registered(`${side}/router/generate`, 1)
      await this.#deployment.registered(`${side}/router/best_worker_id`, 1)
    }
  }

  #routerArguments(side: 'real' | 'ours'): string[] {
    return ['--endpoint', `${side}.backend.generate`, '--router-block-size', '16', ...this.#run.routerArguments]
  }

  /** Errors: nothing completed, answers of the wrong length, or a deployment that is no longer what was started. */
  async turn(target: Target, cell: Cell): Promise<Turn> {
    const watched = this.#watched.get(target) as Managed
    const router = target === 'direct' ? 'real.backend' : `${target}.router`
    const args = [
      join(repoRoot, 'bench', 'python', 'dyn_client.py'), '--endpoint', `${router}.${cell.mode === 'best' ? 'best_worker_id' : 'generate'}`,
      '--mode', cell.mode, '--concurrency', cell.concurrency, '--input-tokens', inputTokens, '--output-tokens', cell.outputTokens,
      '--seconds', this.#run.seconds, '--watch-pid', watched.child.pid ?? 0,
    ].map(String)
    const turn = await runLoadClient<Turn>({
      file: this.#run.dynamo.python, args, env: this.#deployment.env, seconds: this.#run.seconds,
      what: `${target} at ${cell.concurrency}x${cell.outputTokens}`, tokensPerRequest: cell.mode === 'best' ? 0 : cell.outputTokens,
    })
    this.#checkDeployment()
    return turn
  }

  #checkDeployment(): void {
    for (const [target, { child }] of this.#watched) if (child.exitCode !== null) throw new Error(`the process behind ${target} ended with ${child.exitCode}`)
    for (const side of ['real', 'ours']) {
      const workers = this.#deployment.records('instances', `${side}/backend/generate`).length
      const routers = this.#deployment.records('instances', `${side}/router/generate`).length
      if (workers !== workersEach || routers !== 1) throw new Error(`${side}: ${workers} workers and ${routers} routers are registered`)
    }
  }

  async close(): Promise<void> {
    const ours = this.#watched.get('ours')
    // A profile is written at an orderly end only.
    if (this.#run.profileFolder !== null && ours !== undefined) await this.#deployment.stop(ours)
    await this.#deployment.close(false)
  }
}

/** Runs every cell in every round, in an order that turns from cell to cell. Errors: a turn that does not count. */
export async function compareRouters(run: RouterRun): Promise<RouterFigures> {
  const comparison = new Comparison(run)
  try {
    await comparison.start()
    const cells = run.cells.map((cell) => ({ ...cell, turns: { direct: [] as Turn[], real: [] as Turn[], ours: [] as Turn[] } }))
    for (let round = 0; round < run.rounds; round += 1) {
      for (const [position, cell] of cells.entries()) {
        const due = cell.mode === 'best' ? targets.filter((target) => target !== 'direct') : [...targets]
        const shift = (round + position) % due.length
        for (const target of [...due.slice(shift), ...due.slice(0, shift)]) {
          const turn = await comparison.turn(target, cell)
          cell.turns[target].push(turn)
          run.progress(`round ${round + 1} ${cell.mode} ${cell.concurrency}x${cell.outputTokens} ${target}: ${turn.cpuUsPerRequest} us CPU, p50 ${turn.latencyP50Ms} ms, ` +
            `${turn.requestsPerSecond} req/s, ${turn.rssMiB} MiB, ${turn.errors} errors`)
        }
      }
    }
    return { inputTokens, cells, routerArguments: run.routerArguments, logLines: { real: comparison.logLines('real-router'), ours: comparison.logLines('our-router') } }
  } finally {
    await comparison.close()
  }
}
