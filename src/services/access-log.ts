/** One line of JSON per call, in a file that may be moved away while it is written. */
import { closeSync, openSync, writeSync } from 'node:fs'
import { parseJson } from '../dynamo/wire/json.ts'
import type { ServiceCall } from './answer.ts'

export class AccessLog {
  readonly #path: string
  readonly #traceHeader: string
  readonly #isLocalTime: boolean
  #file: number
  /** Lines that could not be written. */
  failures = 0

  /** Errors: a file that cannot be opened. */
  constructor(path: string, traceHeader: string, isLocalTime: boolean) {
    this.#path = path
    this.#traceHeader = traceHeader.toLowerCase()
    this.#isLocalTime = isLocalTime
    this.#file = openSync(path, 'a')
  }

  write(pattern: string | null, status: number, seconds: number, call: ServiceCall): void {
    const line = {
      ts: this.#isLocalTime ? localTime(new Date()) : new Date().toISOString(), trace_id: call.headers[this.#traceHeader] ?? '-', method: call.method,
      path: pattern ?? 'unknown', model: modelOf(call.body), status, duration_ms: 1000 * seconds,
    }
    try {
      writeSync(this.#file, `${JSON.stringify(line)}\n`)
    } catch {
      this.failures += 1
    }
  }

  /** Begins the file anew, after it was moved away. Errors: a file that cannot be opened; the old one stays. */
  reopen(): void {
    const file = openSync(this.#path, 'a')
    closeSync(this.#file)
    this.#file = file
  }

  close(): void {
    closeSync(this.#file)
  }
}

function modelOf(body: string): string {
  const found = /"model_name"\s*:\s*("(?:[^"\\]|\\.)*")/.exec(body.length > 65_536 ? body.slice(0, 32_768) + body.slice(-32_768) : body)?.[1]
  return found === undefined ? '-' : String(parseJson(found))
}

function localTime(now: Date): string {
  const offset = -now.getTimezoneOffset()
  const two = (value: number): string => String(Math.abs(Math.trunc(value))).padStart(2, '0')
  return `${new Date(now.getTime() + 60_000 * offset).toISOString().slice(0, -1)}${offset < 0 ? '-' : '+'}${two(offset / 60)}:${two(offset % 60)}`
}
