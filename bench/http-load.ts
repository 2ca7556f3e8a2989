/**
 * Closed-loop load on an OpenAI-compatible chat endpoint, over sockets of its own: as little of the machine as can be. A process of its
 * own; prints one JSON line. A request that was under way when measuring began counts by the share of its time that was measured, so
 * that CPU and requests cover the same work.
 */
import { connect, type Socket } from 'node:net'
import { parseArgs } from 'node:util'
import { quantile, wordsFrom } from './measure.ts'
import { cpuSeconds, rssMiB } from './process-tree.ts'

/** What one turn of the client gives. */
export interface HttpTurn {
  readonly completed: number
  readonly errors: number
  /** As the answers' own usage counts them. */
  readonly tokensPerRequest: number
  readonly promptTokens: number
  /** Events with a choice; one for a whole answer. */
  readonly eventsPerRequest: number
  readonly requestsPerSecond: number
  readonly cpuUsPerRequest: number
  readonly firstP50Ms: number
  readonly firstP99Ms: number
  readonly latencyP50Ms: number
  readonly latencyP99Ms: number
  readonly rssMiB: number
}

interface LoadOptions {
  readonly port: number
  readonly model: string
  readonly concurrency: number
  readonly stream: boolean
  readonly outputTokens: number
  readonly promptLetters: number
  readonly seconds: number
  readonly warmSeconds: number
  readonly watchPid: number
}

const bodiesMade = 512
const prefixes = 16

/** Requests whose prompts share one of 16 prefixes for their first half. */
function requestsOf({ port, model, stream, outputTokens, promptLetters }: LoadOptions): Buffer[] {
  const words = (seed: number): string => {
    const next = wordsFrom(seed)
    let text = ''
    while (text.length < promptLetters / 2) text += `w${next() % 997} `
    return text
  }
  return Array.from({ length: bodiesMade }, (_, index) => {
    const body = JSON.stringify({
      model, max_tokens: outputTokens, ignore_eos: true, stream, ...(stream ? { stream_options: { include_usage: true } } : {}),
      messages: [{ role: 'system', content: words(index % prefixes) }, { role: 'user', content: words(1000 + index) }],
    })
    return Buffer.from(`POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
  })
}

/** Reads answers off one kept connection. Calls back at the first byte of a body and at the end of an answer. */
class AnswerReader {
  #text = ''
  #isHead = true
  #isChunked = false
  #bodyBytes = 0
  #head = ''
  first = false

  /** The whole answer, or null when more is to come. Errors: a status that is not 200. */
  push(chunk: Buffer): string | null {
    // Latin-1, so that letters are bytes.
    this.#text += chunk.toString('latin1')
    if (this.#isHead) {
      const end = this.#text.indexOf('\r\n\r\n')
      if (end < 0) return null
      this.#head = this.#text.slice(0, end).toLowerCase()
      this.#text = this.#text.slice(end + 4)
      this.#isHead = false
      this.#isChunked = this.#head.includes('transfer-encoding: chunked')
      this.#bodyBytes = Number(/content-length: (\d+)/.exec(this.#head)?.[1] ?? 0)
    }
    this.first ||= this.#text !== ''
    if (this.#isChunked ? !this.#text.endsWith('\r\n0\r\n\r\n') : this.#text.length < this.#bodyBytes) return null
    const answer = this.#text
    if (!this.#head.startsWith('http/1.1 200')) throw new Error(`${this.#head.slice(0, 100)}: ${answer.slice(0, 300)}`)
    this.#text = ''
    this.#isHead = true
    this.first = false
    return answer
  }
}

class Load {
  readonly #options: LoadOptions
  readonly #requests: readonly Buffer[]
  readonly #firstMs: number[] = []
  readonly #wholeMs: number[] = []
  #sent = 0
  #tokens = 0
  #promptTokens = 0
  #events = 0
  #errors = 0
  #served = 0
  #beginMs = 0
  #endMs = 0

  constructor(options: LoadOptions) {
    this.#options = options
    this.#requests = requestsOf(options)
  }

  async run(): Promise<HttpTurn> {
    const { seconds, warmSeconds, concurrency, watchPid } = this.#options
    this.#beginMs = performance.now() + warmSeconds * 1000
    this.#endMs = this.#beginMs + seconds * 1000
    let cpuBefore = 0
    const timer = setTimeout(() => { cpuBefore = cpuSeconds(watchPid) }, warmSeconds * 1000)
    await Promise.all(Array.from({ length: concurrency }, () => this.#client()))
    clearTimeout(timer)
    const measuredS = (performance.now() - this.#beginMs) / 1000
    const cpu = cpuSeconds(watchPid) - cpuBefore
    const completed = this.#wholeMs.length
    const each = (sum: number): number => sum / Math.max(1, completed)
    return {
      completed, errors: this.#errors, tokensPerRequest: each(this.#tokens), promptTokens: each(this.#promptTokens), eventsPerRequest: each(this.#events),
      requestsPerSecond: this.#served / measuredS, cpuUsPerRequest: (1e6 * cpu) / Math.max(1, this.#served),
      firstP50Ms: quantile(this.#firstMs, 0.5), firstP99Ms: quantile(this.#firstMs, 0.99),
      latencyP50Ms: quantile(this.#wholeMs, 0.5), latencyP99Ms: quantile(this.#wholeMs, 0.99), rssMiB: rssMiB(watchPid),
    }
  }

  /** One connection after another, each until it fails or the time is over. */
  async #client(): Promise<void> {
    while (performance.now() < this.#endMs) {
      const error = await new Promise<Error | null>((resolve) => this.#connection(resolve))
      if (error === null) return
      this.#errors += 1
      if (this.#errors <= 3) process.stderr.write(`${error.message}\n`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  #connection(over: (error: Error | null) => void): void {
    const socket: Socket = connect(this.#options.port, '127.0.0.1')
    const reader = new AnswerReader()
    let sentMs = 0
    let firstMs = 0
    const close = (error: Error | null): void => {
      socket.removeAllListeners()
      socket.on('error', () => {})
      socket.destroy()
      over(error)
    }
    const send = (): void => {
      sentMs = performance.now()
      firstMs = 0
      if (sentMs >= this.#endMs) return close(null)
      socket.write(this.#requests[this.#sent % bodiesMade] as Buffer)
      this.#sent += 1
    }
    socket.setNoDelay(true)
    socket.on('connect', send)
    socket.on('error', close)
    socket.on('close', () => close(new Error('the connection was closed')))
    socket.on('data', (chunk: Buffer) => {
      try {
        const answer = reader.push(chunk)
        if (firstMs === 0 && (reader.first || answer !== null)) firstMs = performance.now()
        if (answer === null) return
        this.#count(answer, sentMs, firstMs)
        send()
      } catch (error) {
        close(error as Error)
      }
    })
  }

  #count(answer: string, sentMs: number, firstMs: number): void {
    const doneMs = performance.now()
    const completion = Number(/"completion_tokens":(\d+)/.exec(answer)?.[1] ?? Number.NaN)
    if (Number.isNaN(completion)) throw new Error(`an answer without usage: ${answer.slice(-500)}`)
    if (doneMs < this.#beginMs) return
    this.#served += Math.min(1, (doneMs - this.#beginMs) / (doneMs - sentMs))
    if (sentMs < this.#beginMs) return
    this.#firstMs.push(firstMs - sentMs)
    this.#wholeMs.push(doneMs - sentMs)
    this.#tokens += completion
    this.#promptTokens += Number(/"prompt_tokens":(\d+)/.exec(answer)?.[1] ?? 0)
    this.#events += answer.split('"finish_reason"').length - 1
  }
}

function readOptions(): LoadOptions {
  const { values } = parseArgs({
    options: {
      port: { type: 'string' }, model: { type: 'string' }, concurrency: { type: 'string' }, stream: { type: 'boolean', default: false }, 'output-tokens': { type: 'string' },
      'prompt-letters': { type: 'string' }, seconds: { type: 'string' }, 'warm-seconds': { type: 'string', default: '1' }, 'watch-pid': { type: 'string' },
    },
  })
  const number = (name: keyof typeof values): number => {
    const value = Number(values[name])
    if (!(value > 0)) throw new Error(`--${name} ${String(values[name])}: a number above 0 is needed`)
    return value
  }
  return {
    port: number('port'), model: values.model ?? 'tiny', concurrency: number('concurrency'), stream: values.stream, outputTokens: number('output-tokens'),
    promptLetters: number('prompt-letters'), seconds: number('seconds'), warmSeconds: number('warm-seconds'), watchPid: number('watch-pid'),
  }
}

process.stdout.write(`${JSON.stringify(await new Load(readOptions()).run())}\n`)
