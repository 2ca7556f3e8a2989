#!/usr/bin/env node
/** The command `warmpath`. Each command's code is loaded when it is asked for, so that help and mistakes are answered at once. */
import { splitArguments } from '../config/arguments.ts'
import { helpText, overviewText } from '../config/help.ts'
import { flagSpellings } from '../config/option.ts'
import { tables } from '../config/table.ts'
import type { CommandName } from '../config/table.ts'
import { UsageError, didYouMean, shown } from '../config/usage-error.ts'
import { packageVersion } from './version.ts'

type Environment = Readonly<Record<string, string | undefined>>
type Run = (argv: readonly string[], env: Environment) => Promise<number>

const commands: Readonly<Record<CommandName, () => Promise<Run>>> = {
  router: async () => (await import('./router.ts')).runRouter,
  frontend: async () => (await import('./frontend.ts')).runFrontend,
  'global-router': async () => (await import('./global-router.ts')).runGlobalRouter,
  'select-service': async () => (await import('./select-service.ts')).runSelectService,
  indexer: async () => (await import('./indexer.ts')).runIndexer,
  'slot-tracker': async () => (await import('./slot-tracker.ts')).runSlotTracker,
  start: async () => (await import('./start.ts')).runStart,
  worker: async () => (await import('./worker.ts')).runWorker,
}

const exitOk = 0
const exitFailed = 1
const exitUsage = 2

async function run(argv: readonly string[], env: Environment): Promise<number> {
  const [name, ...rest] = argv
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const text = overviewText()
    if (name === undefined) process.stderr.write(text)
    else process.stdout.write(text)
    return name === undefined ? exitUsage : exitOk
  }
  if (name === '--version') return printVersion()
  if (name === 'config') return runConfig(rest, env)
  if (name === 'api-key') return (await import('./api-key.ts')).runApiKey(rest)
  if (!isCommand(name)) {
    throw new UsageError(`unknown command ${shown(name)}${didYouMean(name, [...Object.keys(commands), 'config', 'api-key'])}; see warmpath --help`)
  }
  const { wantsHelp, wantsVersion } = splitArguments(name, rest, flagSpellings(tables[name]))
  if (wantsVersion) return printVersion()
  if (wantsHelp) {
    process.stdout.write(helpText(name))
    return exitOk
  }
  const command = await commands[name]()
  return command(rest, env)
}

const isCommand = (name: string): name is CommandName => Object.hasOwn(commands, name)

function printVersion(): number {
  process.stdout.write(`warmpath ${packageVersion()}\n`)
  return exitOk
}

async function runConfig([action, ...rest]: readonly string[], env: Environment): Promise<number> {
  if (action !== 'print') {
    throw new UsageError(`config ${action === undefined ? 'needs an action' : `${shown(action)} is unknown`}; write warmpath config print [COMMAND] [options]`)
  }
  const { runConfigPrint } = await import('./config-print.ts')
  return runConfigPrint(rest, env)
}

/** What went wrong, on one line; the stack only where the log level asks for it. */
function report(error: unknown, env: Environment): number {
  if (error instanceof UsageError) {
    process.stderr.write(`warmpath: ${error.message}\n`)
    return exitUsage
  }
  const wantsStack = /\b(?:debug|trace)\b/i.test(env['DYN_LOG'] ?? '')
  const text = error instanceof Error ? (wantsStack && error.stack !== undefined ? error.stack : error.message) : String(error)
  process.stderr.write(`warmpath: ${text}\n`)
  return exitFailed
}

/** A reader that went away must not end a service, nor `--help | head` with an error. */
function tolerateClosedPipe(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_DESTROYED') throw error
  })
}

tolerateClosedPipe(process.stdout)
tolerateClosedPipe(process.stderr)
const code = await run(process.argv.slice(2), process.env).catch((error: unknown) => report(error, process.env))
process.exitCode = code
// Written output first; then nothing that was left open keeps the process.
if (process.stdout.destroyed) process.exit(code)
process.stdout.write('', () => process.exit(code))
