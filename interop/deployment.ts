/** One deployment for one scenario: processes with a discovery folder of their own, all ended with it. */
import { spawn, type ChildProcess } from 'node:child_process'
import { appendFileSync, closeSync, existsSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { parse, isSafeNumber } from 'lossless-json'
import { freePort } from '../test/free-port.ts'
import { repoRoot } from '../test/repo-root.ts'
import { until } from '../test/until.ts'
import type { DynamoInstallation, OlderVersion } from './dynamo-venv.ts'

/** JSON without loss: integers beyond 2^53 are bigints. */
export const parseLossless = (text: string): unknown =>
  parse(text, undefined, (number) => (/^-?\d+$/.test(number) && !isSafeNumber(number) ? BigInt(number) : Number(number)))

/** JSON with bare integers for bigints. */
export const stringifyLossless = (value: unknown): string =>
  JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? `\u0000${item}\u0000` : item)).replace(/"\\u0000(\d+)\\u0000"/g, '$1')

/** The command line under test: as it is installed, or another build of it. */
export const cliPath = process.env['WARMPATH_INTEROP_CLI'] ?? join(repoRoot, 'dist', 'cli', 'main.js')

export { freePort }

export interface Managed {
  readonly label: string
  readonly child: ChildProcess
  /** Its process group, once it has one. */
  group(): number | undefined
  readonly exited: Promise<number | null>
  log(): string
}

export class Deployment {
  readonly folder = mkdtempSync(join(tmpdir(), 'warmpath-interop-'))
  readonly env: NodeJS.ProcessEnv
  readonly dynamo: DynamoInstallation
  readonly #older: ReadonlyMap<OlderVersion, DynamoInstallation>
  readonly #processes: Managed[] = []
  #drivers: Driver[] = []

  constructor(dynamo: DynamoInstallation, env: NodeJS.ProcessEnv = {}, older: ReadonlyMap<OlderVersion, DynamoInstallation> = new Map()) {
    this.dynamo = dynamo
    this.#older = older
    this.env = {
      ...process.env, DYN_DISCOVERY_BACKEND: 'file', DYN_FILE_KV: join(this.folder, 'kv'), DYN_REQUEST_PLANE: 'tcp', DYN_EVENT_PLANE: 'zmq',
      DYN_LOG: 'info', DYN_LOGGING_DISABLE_ANSI_COLORS: '1', PYTHONUNBUFFERED: '1', HF_HUB_OFFLINE: '1', ...env,
    }
  }

  /**
   * Starts a process in a group of its own. `sharedSession`: the group stays in our session, for processes that poll without pause
   * and would starve each other when the kernel shares time by session.
   */
  spawn(label: string, command: string, args: readonly (string | number)[], env: NodeJS.ProcessEnv = {}, sharedSession = false): Managed {
    const path = join(this.folder, `${label}.log`)
    // Straight into the file: what a process said before it did something is there once that shows.
    const file = openSync(path, 'a')
    const options = { env: { ...this.env, ...env }, stdio: ['ignore', file, file] as ['ignore', number, number] }
    const groupFile = join(this.folder, `${label}.group`)
    const child = sharedSession
      ? spawn('bash', ['-c', 'set -m; file=$1; shift; "$@" & echo $! > "$file"; wait $!', 'bash', groupFile, command, ...args.map(String)], options)
      : spawn(command, args.map(String), { ...options, detached: true })
    closeSync(file)
    const exited = new Promise<number | null>((resolve) => {
      child.once('exit', (code) => resolve(code))
      child.once('error', (error) => { appendFileSync(path, `${error.message}\n`); resolve(null) })
    })
    const group = (): number | undefined => (!sharedSession ? child.pid : existsSync(groupFile) ? Number(readFileSync(groupFile, 'utf8')) : undefined)
    const managed: Managed = { label, child, group, exited, log: () => (existsSync(path) ? readFileSync(path, 'utf8') : '') }
    this.#processes.push(managed)
    return managed
  }

  module(label: string, module: string, args: readonly (string | number)[], env: NodeJS.ProcessEnv = {}): Managed {
    return this.spawn(label, this.dynamo.python, ['-m', module, ...args], env)
  }

  /** A module of an earlier release, which the scenario has asked for. */
  olderModule(version: OlderVersion, label: string, module: string, args: readonly (string | number)[], env: NodeJS.ProcessEnv = {}): Managed {
    return this.spawn(label, this.#pythonOf(version), ['-m', module, ...args], env)
  }

  olderMocker(version: OlderVersion, label: string, args: readonly (string | number)[] = [], env: NodeJS.ProcessEnv = {}): Managed {
    return this.olderModule(version, label, 'dynamo.mocker', ['--model-path', this.dynamo.modelPath, '--model-name', 'tiny', '--block-size', 16, '--speedup-ratio', 10, ...args], env)
  }

  #pythonOf(version: OlderVersion | undefined): string {
    const installation = version === undefined ? this.dynamo : this.#older.get(version)
    if (installation === undefined) throw new Error(`the scenario does not say that it needs Dynamo ${version}`)
    return installation.python
  }

  mocker(label: string, args: readonly (string | number)[] = [], env: NodeJS.ProcessEnv = {}): Managed {
    return this.module(label, 'dynamo.mocker', ['--model-path', this.dynamo.modelPath, '--model-name', 'tiny', '--block-size', 16, '--speedup-ratio', 10, ...args], env)
  }

  /** Our command line, as it is installed. */
  warmpath(label: string, args: readonly (string | number)[], env: NodeJS.ProcessEnv = {}): Managed {
    return this.spawn(label, process.execPath, [cliPath, ...args], env)
  }

  /** Our router, registered. */
  async router(args: readonly (string | number)[], options: { label?: string; namespace?: string; component?: string; env?: NodeJS.ProcessEnv } = {}): Promise<Managed> {
    const component = options.component ?? 'router'
    const router = this.warmpath(options.label ?? 'router', ['router', ...args, ...(component === 'router' ? [] : ['--component', component])], options.env)
    await this.registered(`${options.namespace ?? 'dynamo'}/${component}/generate`, 1, router)
    return router
  }

  async realRouter(args: readonly (string | number)[], label = 'real-router'): Promise<Managed> {
    const router = this.module(label, 'dynamo.router', args)
    await until(`${label} registers`, () => this.#alive(router) && router.log().includes("Registered endpoint"), 60_000)
    return router
  }

  /** A scripted worker with a card; resolves with its id when it is ready. */
  async worker(label: string, args: readonly (string | number)[] = [], env: NodeJS.ProcessEnv = {}): Promise<{ process: Managed; id: bigint; events: () => WorkerEvent[] }> {
    const path = join(this.folder, `${label}.jsonl`)
    const worker = this.spawn(label, this.dynamo.python, [
      join(repoRoot, 'interop', 'python', 'scripted_worker.py'), '--label', label, '--log', path, '--model-path', this.dynamo.modelPath, ...args,
    ], env)
    const events = (): WorkerEvent[] => (existsSync(path) ? readFileSync(path, 'utf8').split('\n').filter(Boolean).map((line) => parseLossless(line) as WorkerEvent) : [])
    const ready = await until(`${label} is ready`, () => this.#alive(worker) && events().find((event) => event.ev === 'ready'), 60_000)
    return { process: worker, id: BigInt(ready['instance_id'] as bigint | number), events }
  }

  async driver(env: NodeJS.ProcessEnv = {}, version?: OlderVersion): Promise<Driver> {
    const driver = await Driver.start(this.#pythonOf(version), { ...this.env, ...env })
    this.#drivers.push(driver)
    return driver
  }

  /** The process that was started under this label. */
  labelled(label: string): Managed {
    const found = this.#processes.find((each) => each.label === label)
    if (found === undefined) throw new Error(`nothing is called ${label}`)
    return found
  }

  #alive(managed: Managed): boolean {
    if (managed.child.exitCode !== null) throw new Error(`${managed.label} ended with ${managed.child.exitCode}: ${managed.log().slice(-1500)}`)
    return true
  }

  /** Records of a bucket whose key begins with `prefix`. */
  records(bucket: 'instances' | 'mdc' | 'event_sources' | 'event_channels', prefix: string): { key: string; value: Record<string, unknown> }[] {
    const folder = join(this.folder, 'kv', 'v1', bucket)
    if (!existsSync(folder)) return []
    return readdirSync(folder).filter((name) => !name.startsWith('.tmp_')).flatMap((name) => {
      const key = decodeURIComponent(name)
      if (!key.startsWith(prefix)) return []
      try {
        return [{ key, value: parseLossless(readFileSync(join(folder, name), 'utf8')) as Record<string, unknown> }]
      } catch {
        return []
      }
    })
  }

  /** Waits for `count` records of an endpoint; gives their instance ids, sorted. */
  async registered(prefix: string, count: number, managed?: Managed, bucket: 'instances' | 'mdc' = 'instances'): Promise<bigint[]> {
    const found = await until(`${count} of ${prefix} in ${bucket}`, () => {
      if (managed !== undefined) this.#alive(managed)
      const records = this.records(bucket, prefix)
      return records.length >= count && records
    }, 90_000)
    return found.map(({ value }) => BigInt(value['instance_id'] as bigint | number)).sort((left, right) => (left < right ? -1 : 1))
  }

  signal(managed: Managed, signal: NodeJS.Signals): void {
    const group = managed.group()
    if (group === undefined) return
    try {
      process.kill(-group, signal)
    } catch {
      // Already gone.
    }
  }

  async stop(managed: Managed, signal: NodeJS.Signals = 'SIGTERM', timeoutMs = 15_000): Promise<number | null> {
    this.signal(managed, signal)
    const code = await Promise.race([managed.exited, delay(timeoutMs, undefined)])
    if (code === undefined) {
      this.signal(managed, 'SIGKILL')
      throw new Error(`${managed.label} did not end within ${timeoutMs / 1000} s of ${signal}`)
    }
    return code
  }

  /** Ends everything; `keep` leaves the folder with the logs. */
  async close(keep: boolean): Promise<void> {
    for (const driver of this.#drivers) driver.close()
    for (const managed of this.#processes) {
      if (managed.child.exitCode === null && managed.child.signalCode === null) {
        this.signal(managed, 'SIGCONT')
        this.signal(managed, 'SIGKILL')
      }
    }
    await Promise.all(this.#processes.map((managed) => managed.exited))
    if (!keep) rmSync(this.folder, { recursive: true, force: true })
  }
}

export type WorkerEvent = { readonly ev: string } & Readonly<Record<string, unknown>>

export interface CallOptions {
  readonly contextId?: string
  readonly metadata?: Readonly<Record<string, string>>
  readonly instance?: bigint
  readonly cancelAfter?: number
  readonly dropAfter?: number
  readonly timeoutSeconds?: number
  readonly quiet?: boolean
  readonly onOutput?: (output: unknown) => void
}

export interface CallResult {
  readonly outputs: readonly unknown[]
  readonly outputCount: number
  readonly error: { readonly type: string; readonly message: string } | null
  readonly elapsedSeconds: number
}

/** A real Dynamo client in a Python process of its own. */
export class Driver {
  readonly #child: ChildProcess
  readonly #open = new Map<number, { outputs: unknown[]; onOutput: ((output: unknown) => void) | undefined; resolve: (result: Record<string, unknown>) => void; reject: (error: Error) => void }>()
  #next = 0

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  static async start(python: string, env: NodeJS.ProcessEnv): Promise<Driver> {
    const child = spawn(python, [join(repoRoot, 'interop', 'python', 'driver.py')], { env: { ...env, DYN_LOG: 'error' }, stdio: ['pipe', 'pipe', 'ignore'] })
    const driver = new Driver(child)
    const ready = new Promise<void>((resolve, reject) => {
      child.once('exit', (code) => { reject(new Error(`the driver ended with ${code}`)); driver.#failAll(code) })
      createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => driver.#line(line, resolve))
    })
    await ready
    return driver
  }

  #line(line: string, ready: () => void): void {
    if (!line.startsWith('{')) return
    const document = parseLossless(line) as { n?: number; event: string; output?: unknown } & Record<string, unknown>
    if (document.event === 'ready') {
      ready()
      return
    }
    const call = document.n === undefined ? undefined : this.#open.get(document.n)
    if (call === undefined) return
    if (document.event === 'output') {
      call.outputs.push(document.output)
      call.onOutput?.(document.output)
      return
    }
    this.#open.delete(document.n as number)
    call.resolve(document)
  }

  #failAll(code: number | null): void {
    for (const call of this.#open.values()) call.reject(new Error(`the driver ended with ${code}`))
    this.#open.clear()
  }

  #send(document: Record<string, unknown>, onOutput?: (output: unknown) => void): Promise<{ outputs: unknown[]; end: Record<string, unknown> }> {
    this.#next += 1
    const n = this.#next
    const outputs: unknown[] = []
    return new Promise((resolve, reject) => {
      this.#open.set(n, { outputs, onOutput, resolve: (end) => resolve({ outputs, end }), reject })
      this.#child.stdin?.write(`${stringifyLossless({ ...document, n })}\n`)
    })
  }

  async call(endpoint: string, payload: unknown, options: CallOptions = {}): Promise<CallResult> {
    const { outputs, end } = await this.#send({
      op: 'call', endpoint, payload,
      ...(options.contextId === undefined ? {} : { context_id: options.contextId }),
      ...(options.metadata === undefined ? {} : { metadata: options.metadata }),
      ...(options.instance === undefined ? {} : { instance: options.instance }),
      ...(options.cancelAfter === undefined ? {} : { cancel_after: options.cancelAfter }),
      ...(options.dropAfter === undefined ? {} : { drop_after: options.dropAfter }),
      ...(options.timeoutSeconds === undefined ? {} : { timeout: options.timeoutSeconds }),
      ...(options.quiet === true ? { quiet: true } : {}),
    }, options.onOutput)
    return {
      outputs, outputCount: end['outputs'] as number, error: (end['error'] as CallResult['error'] | undefined) ?? null,
      elapsedSeconds: end['elapsed'] as number,
    }
  }

  async instances(endpoint: string): Promise<bigint[]> {
    const { end } = await this.#send({ op: 'instances', endpoint })
    return (end['instances'] as (number | bigint)[]).map(BigInt)
  }

  close(): void {
    this.#child.removeAllListeners('exit')
    this.#child.kill('SIGKILL')
  }
}

/** A request as Dynamo's clients send it. */
export const generateRequest = (tokens: readonly number[], more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> => ({
  model: 'tiny', token_ids: tokens, stop_conditions: { max_tokens: 4, ignore_eos: true }, sampling_options: {}, output_options: {},
  eos_token_ids: [], annotations: [], ...more,
})
