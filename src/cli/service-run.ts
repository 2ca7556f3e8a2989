/** The frame around every command that serves: values, log, signals, and the exit code at the end. */
import { readFileSync } from 'node:fs'
import { parseCommand, type ParsedConfig } from '../config/parse-command.ts'
import type { CommandName } from '../config/table.ts'
import { UsageError } from '../config/usage-error.ts'
import { createLog, type ProcessLog } from '../observability/log.ts'

export type Environment = Readonly<Record<string, string | undefined>>

export interface ServiceRun<Command extends CommandName> {
  readonly config: ParsedConfig<Command>
  readonly argv: readonly string[]
  readonly env: Environment
  readonly log: ProcessLog
  /** Aborted by SIGTERM and SIGINT: ends a start that waits. */
  readonly signal: AbortSignal
  /** Resolves with the first of them. */
  readonly signalled: Promise<void>
}

/** Runs `serve` until it resolves. Gives the exit code: 0 drained, 1 runtime. Errors: `UsageError`. */
export async function runService<Command extends CommandName>(
  command: Command, argv: readonly string[], env: Environment, serve: (run: ServiceRun<Command>) => Promise<number>,
): Promise<number> {
  const parsed = await parseCommand(command, argv, env, (path) => readFileSync(path))
  if (parsed.kind !== 'config') return 0
  const { log: level, logJson } = parsed.values as { readonly log: string; readonly logJson: boolean }
  const log = createLog({ level, jsonl: logJson })
  for (const warning of parsed.warnings) log.warn({ stage: 'config' }, warning)
  const stop = new AbortController()
  const signalled = new Promise<void>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => { stop.abort(new Error(`${name} received`)); resolve() })
  })
  // Timers of the parts do not keep the process; while they wait, for etcd say, nothing else would.
  const keepAlive = setInterval(() => {}, 2 ** 30)
  try {
    return await serve({ config: parsed, argv, env, log, signal: stop.signal, signalled })
  } catch (error) {
    if (stop.signal.aborted && !(error instanceof UsageError)) return 0
    throw error
  } finally {
    clearInterval(keepAlive)
    log.flush()
  }
}
