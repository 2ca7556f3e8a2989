/** Asks a handler in its own process, when nobody else does, whether it still answers. */
import type { WireValue } from '../dynamo/wire/body.ts'
import type { Clock, Log, TimerHandle } from '../ports.ts'
import { Context } from './context.ts'
import type { ServedWorkerEndpoint } from './served-endpoint.ts'

export interface HealthCheckSettings {
  /** Without a request for so long, the handler is asked. Units: ms. */
  readonly idleMs: number
  /** For the first item of the answer. Units: ms. */
  readonly timeoutMs: number
}

export class HealthProbe {
  readonly #served: ServedWorkerEndpoint
  readonly #payload: WireValue
  readonly #parts: HealthCheckSettings & { readonly clock: Clock; readonly log: Log }
  #timer: TimerHandle | null = null
  #stopped = false
  /** Of the last probe; true before the first. */
  isGood = true

  constructor(served: ServedWorkerEndpoint, payload: WireValue, parts: HealthCheckSettings & { readonly clock: Clock; readonly log: Log }) {
    this.#served = served
    this.#payload = payload
    this.#parts = parts
  }

  start(): void {
    this.#wait(this.#parts.idleMs)
  }

  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
  }

  #wait(delayMs: number): void {
    if (!this.#stopped) this.#timer = this.#parts.clock.setTimer(delayMs, () => void this.#turn())
  }

  async #turn(): Promise<void> {
    const { clock, idleMs } = this.#parts
    const idleForMs = clock.nowMs() - this.#served.idleSinceMs
    if (this.#served.inflight > 0) return this.#wait(idleMs)
    // A request that ended well since the last look stands for a probe.
    if (idleForMs < idleMs && this.isGood) return this.#wait(idleMs - idleForMs)
    this.#judge(await this.#ask())
    this.#wait(idleMs)
  }

  /** Null: an item came in time; else what went wrong. */
  async #ask(): Promise<string | null> {
    const { clock, timeoutMs } = this.#parts
    const context = new Context()
    const answer = this.#served.inProcess(this.#payload, context)[Symbol.asyncIterator]()
    let timer: TimerHandle | null = null
    const late = new Promise<string>((resolve) => { timer = clock.setTimer(timeoutMs, () => resolve(`no item within ${timeoutMs} ms`)) })
    const first = answer.next().then(({ done }) => (done === true ? 'the answer is empty' : null), (error: unknown) => (error instanceof Error ? error.message : String(error)))
    const outcome = await Promise.race([first, late])
    ;(timer as TimerHandle | null)?.cancel()
    context.kill()
    answer.return?.().catch(() => {})
    return outcome
  }

  #judge(reason: string | null): void {
    const { log } = this.#parts
    if (reason !== null) log.warn({ stage: 'health', reason }, 'the health probe was not answered; /health says notready')
    else if (!this.isGood) log.info({ stage: 'health' }, 'the health probe is answered again')
    this.isGood = reason === null
  }
}
