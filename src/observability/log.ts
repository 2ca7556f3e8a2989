/** The log: one line per entry on standard error, for people or, with `DYN_LOGGING_JSONL`, as JSON. Fields: docs/logging.md. */
import { pino } from 'pino'
import type { Log, LogFields } from '../ports.ts'

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'off'

/** Takes whole lines; must not throw. */
export interface LogStream {
  write(line: string): unknown
}

export interface ProcessLog extends Log {
  readonly level: LogLevel
  /** Writes what is waiting, at once. */
  flush(): void
  /** Lines given up because the reader of standard error does not keep up. */
  readonly droppedLines: number
}

/** Bytes that may wait for a slow reader of standard error; lines beyond are dropped and counted. */
const waitingBytesLimit = 4_194_304
const gatheredBytes = 8_192
const gatheredMs = 25
const ranks: Readonly<Record<LogLevel, number>> = { off: 0, error: 1, warn: 2, info: 3, debug: 4, trace: 5 }

/**
 * Reads `DYN_LOG`: a level, or a list such as `info,warmpath=debug` of which the entry for all targets or for `warmpath` counts.
 * What cannot be read means `info`: a wrong log setting must not end a start.
 */
export const parseLogLevel = (text: string): LogLevel => readLevel(text) ?? 'info'

/** Whether `DYN_LOG` says anything of this process's level. A list for other targets alone is fine, too. */
const saysLevel = (text: string): boolean => readLevel(text) !== null || text.split(',').every((part) => part.includes('='))

function readLevel(text: string): LogLevel | null {
  let general: LogLevel | null = null
  let own: LogLevel | null = null
  for (const part of text.toLowerCase().split(',')) {
    const [target = '', level] = part.split('=').map((piece) => piece.trim())
    if (level === undefined) general = toLevel(target) ?? general
    else if (target === 'warmpath') own = toLevel(level) ?? own
  }
  return own ?? general
}

const toLevel = (word: string): LogLevel | null =>
  word === 'warning' ? 'warn' : Object.hasOwn(ranks, word) ? (word as LogLevel) : null

/** `stream`: standard error when left out, written without blocking. */
export function createLog({ level, jsonl, stream }: { readonly level: string; readonly jsonl: boolean; readonly stream?: LogStream }): ProcessLog {
  const wanted = parseLogLevel(level)
  let droppedLines = 0
  const own = stream === undefined ? pino.destination({ dest: 2, sync: false, minLength: gatheredBytes, maxLength: waitingBytesLimit }) : null
  own?.on('drop', () => { droppedLines += 1 })
  // A reader that went away must not end the service.
  own?.on('error', () => { droppedLines += 1 })
  const sink: LogStream = stream ?? (own === null ? process.stderr : gathering(own))
  const methods = jsonl ? jsonMethods(wanted, sink) : lineMethods(wanted, sink)
  if (!saysLevel(level)) methods.warn({ stage: 'config' }, `DYN_LOG=${JSON.stringify(level)} names no level for warmpath; info is used. Set error, warn, info, debug or trace`)
  return {
    ...methods,
    level: wanted,
    flush: () => {
      try {
        own?.flushSync()
      } catch {
        // Not open yet or already closed: nothing can be written.
      }
    },
    get droppedLines() { return droppedLines },
  }
}

/** Lines are written together: by the time that passes, or by their length. An end of the process, orderly or not, writes what waits. */
function gathering(destination: { write(line: string): unknown; flush(): void }): LogStream {
  let isDue = false
  const flush = (): void => {
    isDue = false
    try {
      destination.flush()
    } catch {
      // Closed meanwhile.
    }
  }
  return {
    write: (line) => {
      destination.write(line)
      if (isDue) return
      isDue = true
      setTimeout(flush, gatheredMs).unref()
    },
  }
}

const ignore = (): void => {}

function jsonMethods(level: LogLevel, sink: LogStream): Log {
  const logger = pino({
    level: level === 'off' ? 'silent' : level,
    base: null,
    messageKey: 'message',
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  }, { write: (line: string) => { sink.write(line) } })
  const at = (name: 'error' | 'warn' | 'info' | 'debug') =>
    ranks[level] < ranks[name] ? ignore : (fields: LogFields, message: string): void => logger[name](fields, message)
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

function lineMethods(level: LogLevel, sink: LogStream): Log {
  const at = (name: 'error' | 'warn' | 'info' | 'debug', label: string) =>
    ranks[level] < ranks[name] ? ignore : (fields: LogFields, message: string): void => { sink.write(formatLine(label, fields, message, new Date())) }
  return { debug: at('debug', 'DEBUG'), info: at('info', ' INFO'), warn: at('warn', ' WARN'), error: at('error', 'ERROR') }
}

/** `2026-01-02T03:04:05.678Z  INFO message key=value key="two words"`. Line feeds in texts are escaped: one entry is one line. */
export function formatLine(label: string, fields: LogFields, message: string, time: Date): string {
  let line = `${isoTime(time)} ${label} ${message.includes('\n') || message.includes('\r') ? JSON.stringify(message) : message}`
  for (const name in fields) {
    const value = fields[name]
    if (value === undefined) continue
    const text = String(value)
    line += ` ${name}=${typeof value === 'string' && !plainWord.test(text) ? JSON.stringify(text) : text}`
  }
  return `${line}\n`
}

const plainWord = /^[\w.:/@+-]+$/
/** The millisecond that was last written, and how. */
let written = { ms: Number.NaN, text: '' }
let second = { whole: Number.NaN, text: '' }

function isoTime(time: Date): string {
  const ms = time.getTime()
  if (ms === written.ms) return written.text
  const whole = Math.floor(ms / 1000)
  if (whole !== second.whole) second = { whole, text: time.toISOString().slice(0, -4) }
  const rest = ms - whole * 1000
  written = { ms, text: `${second.text}${rest < 10 ? '00' : rest < 100 ? '0' : ''}${rest}Z` }
  return written.text
}
