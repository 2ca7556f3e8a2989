/**
 * The client's requests over NATS: request and reply on an inbox of ours; the empty reply is the acknowledgement.
 *
 * A request that finds the connection lost waits for its return. One that was sent when the connection went is given a moment to be
 * answered by its worker, who may have it; if nobody dials, it is sent again when the connection is back. The subject of its response
 * stream stays the same, so that a worker that got it twice is heard once.
 */
import { randomUUID } from 'node:crypto'
import type { Failure } from '../../model/failure.ts'
import type { Clock, TimerHandle } from '../../ports.ts'
import type { LinkState, LinkSubscription, NatsLink } from '../nats/nats-link.ts'
import type { SentRequest } from './request-connection.ts'

/** Bounds and deadlines of requests over NATS. */
export interface NatsRequestLimits {
  /** For the worker to acknowledge, and for the connection to come back. A connection that comes and goes: `turnsMax` times this in all. */
  readonly ackTimeoutMs: number
  /** Requests without acknowledgement. */
  readonly pendingMax: number
  /** Bytes of requests that wait for a connection, or are kept to be sent again. */
  readonly heldBytesMax: number
}

/** Counters since the start, and what waits now. */
export interface NatsRequestsStats {
  readonly sent: number
  readonly pending: number
  /** Requests that wait for the connection. */
  readonly held: number
  /** Requests sent again after the connection had been lost. */
  readonly resent: number
  readonly noResponders: number
  readonly timeouts: number
  /** Requests given up because the connection was lost. */
  readonly lost: number
  /** Requests refused because too many were on the way. */
  readonly full: number
}

/** A request as it is put on the wire. */
export interface NatsRequest {
  /** As the record has it. */
  readonly subject: string
  readonly headers: Readonly<Record<string, string>>
  readonly payload: Uint8Array
}

/** Who sent it. */
export interface NatsSender extends SentRequest {
  /** Its worker has it, or nobody waits for it any more. */
  readonly isSettled: boolean
  /** False: it fails at once while the connection is lost. */
  readonly waitsForLink: boolean
  /** Set here: it waits for the connection. */
  isWaiting: boolean
}

/** `held`: not sent. `lost`: sent, and then the connection went. */
type PendingState = 'held' | 'sent' | 'lost'

interface Pending {
  readonly sender: NatsSender
  state: PendingState
  /** To be sent, or sent again; null when it was too much to keep. */
  kept: NatsRequest | null
  deadlineMs: number
  /** However often the connection comes and goes. */
  readonly lastMs: number
  /** Lost requests are not sent again before. */
  resendMs: number
  /** Until the next question to a worker that is not back yet. */
  askAgainMs: number
}

/** For a worker to answer a request that was sent before the connection was lost. */
const lostGraceMs = 1_000
const sweepEveryMs = 200
/** After the connection is back: workers come back through the same server, but up to some seconds later. */
const regroupMs = 6_000
const askAgainMinMs = 50
const askAgainMaxMs = 400
/** Deadlines that one request gets at most. */
const turnsMax = 3

const defaults: NatsRequestLimits = { ackTimeoutMs: 10_000, pendingMax: 16_384, heldBytesMax: 67_108_864 }

/** State: requests without acknowledgement, by the last part of their reply subject. */
export class NatsRequests {
  readonly #link: NatsLink
  readonly #clock: Clock
  readonly #limits: NatsRequestLimits
  readonly #inbox = `_INBOX.${randomUUID().replaceAll('-', '')}`
  readonly #pending = new Map<string, Pending>()
  readonly #counts = { sent: 0, resent: 0, noResponders: 0, timeouts: 0, lost: 0, full: 0 }
  #subscription: LinkSubscription | null = null
  #watch: { close(): void } | null = null
  #sweep: TimerHandle | null = null
  #keptBytes = 0
  #next = 0
  #wasDown = false
  /** Until when nobody answering is taken for not yet. */
  #regroupUntilMs = -Infinity

  constructor(link: NatsLink, clock: Clock, limits: Partial<NatsRequestLimits> = {}) {
    this.#link = link
    this.#clock = clock
    this.#limits = { ...defaults, ...limits }
  }

  stats(): NatsRequestsStats {
    let held = 0
    if (!this.#link.connected) for (const { state, sender } of this.#pending.values()) if (state !== 'sent' && !sender.isSettled) held += 1
    return { ...this.#counts, pending: this.#pending.size, held }
  }

  /** Sends a request, now or when the connection is there. Gives a failure when it cannot be taken; the sender hears nothing then. */
  send(request: NatsRequest, sender: NatsSender): Failure | null {
    const bad = /[\s*>]/.test(request.subject) || request.subject === ''
    if (bad) return unreachable(`NATS subject ${JSON.stringify(request.subject.slice(0, 200))} is not one that a request can be sent to`)
    const isUp = this.#link.connected
    if (!isUp && !sender.waitsForLink) return linkLost(`the connection to NATS at ${this.#link.servers} is lost`)
    const isTooMuch = this.#keptBytes + request.payload.length > this.#limits.heldBytesMax
    if (this.#pending.size >= this.#limits.pendingMax || (!isUp && isTooMuch)) {
      this.#counts.full += 1
      return {
        class: 'CapacityExhausted', reason: 'capacity.worker_overloaded', linkLost: true,
        message: `${this.#pending.size} requests over NATS wait ${isUp ? 'for their acknowledgement' : 'for the connection'}`,
      }
    }
    this.#open()
    this.#next += 1
    const token = this.#next.toString(36)
    const nowMs = this.#clock.nowMs()
    const { ackTimeoutMs } = this.#limits
    const pending: Pending = {
      sender, state: isUp ? 'sent' : 'held', kept: isTooMuch ? null : request,
      deadlineMs: nowMs + ackTimeoutMs, lastMs: nowMs + turnsMax * ackTimeoutMs, resendMs: 0, askAgainMs: askAgainMinMs,
    }
    if (isUp) {
      const failure = this.#publish(token, request)
      if (failure !== null) return failure
    }
    this.#pending.set(token, pending)
    sender.isWaiting = !isUp
    if (pending.kept !== null) this.#keptBytes += request.payload.length
    this.#sweep ??= this.#clock.setTimer(sweepEveryMs, () => this.#expire())
    return null
  }

  close(): void {
    this.#sweep?.cancel()
    this.#watch?.close()
    this.#subscription?.close()
    this.#pending.clear()
    this.#keptBytes = 0
  }

  #open(): void {
    if (this.#subscription !== null) return
    const prefix = this.#inbox.length + 1
    this.#subscription = this.#link.subscribe(`${this.#inbox}.*`, null, (message) => this.#replied(message.subject.slice(prefix), message.headers?.code === 503, message.data))
    this.#watch = this.#link.onState((state, error) => this.#linkChanged(state, error))
  }

  /** Null when it is sent. */
  #publish(token: string, { subject, headers, payload }: NatsRequest): Failure | null {
    let result: ReturnType<NatsLink['publish']>
    try {
      result = this.#link.publish(subject, payload, { reply: `${this.#inbox}.${token}`, headers: this.#link.headers(headers) })
    } catch (error) {
      return { class: 'InvalidRequest', reason: 'request.invalid', message: `headers cannot be sent over NATS: ${error instanceof Error ? error.message : String(error)}` }
    }
    switch (result) {
      case 'sent':
        this.#counts.sent += 1
        return null
      case 'too_large': {
        const limit = this.#link.payloadBytesMax
        return {
          class: 'PayloadTooLarge', reason: 'request.payload_too_large', publicDetail: { type: 'size_limit', limit, actual: payload.length },
          message: `request of ${payload.length} bytes, the NATS server takes ${limit}; raise its max_payload, or use DYN_REQUEST_PLANE=tcp`,
        }
      }
      case 'full': return { class: 'CapacityExhausted', reason: 'capacity.worker_overloaded', linkLost: true, message: 'the connection to NATS is full' }
      case 'disconnected': return linkLost(`the connection to NATS at ${this.#link.servers} is lost`)
    }
  }

  #replied(token: string, isUnanswered: boolean, data: Uint8Array): void {
    const pending = this.#pending.get(token)
    if (pending === undefined) return
    if (isUnanswered && data.length === 0) {
      if (pending.kept !== null && this.#clock.nowMs() < this.#regroupUntilMs && !pending.sender.isSettled) return this.#askAgain(token, pending)
      this.#drop(token, pending)
      this.#counts.noResponders += 1
      pending.sender.sendFailed(unreachable('no responders: nobody serves the NATS subject of the instance'))
      return
    }
    this.#drop(token, pending)
    pending.sender.acknowledged(data.length === 0 ? '' : Buffer.from(data.subarray(0, 1024)).toString())
  }

  #askAgain(token: string, pending: Pending): void {
    const delayMs = pending.askAgainMs
    pending.askAgainMs = Math.min(askAgainMaxMs, delayMs * 2)
    this.#clock.setTimer(delayMs, () => {
      // A connection that is lost again meanwhile sends it when it is back.
      if (this.#pending.get(token) === pending && pending.state === 'sent' && this.#link.connected) this.#resend(token, pending)
    })
  }

  #linkChanged(state: LinkState, error: Error | null): void {
    const nowMs = this.#clock.nowMs()
    if (state === 'up') {
      if (this.#wasDown) this.#regroupUntilMs = nowMs + regroupMs
      this.#sendWaiting(nowMs)
    } else if (state === 'down') {
      this.#wasDown = true
      for (const pending of this.#pending.values()) {
        if (pending.state !== 'sent') continue
        pending.state = 'lost'
        pending.sender.isWaiting = true
        pending.resendMs = nowMs + lostGraceMs
        this.#extend(pending, nowMs + (pending.kept === null ? lostGraceMs : this.#limits.ackTimeoutMs))
      }
    } else if (!this.#link.everConnected) {
      // Nobody has ever answered there: waiting is of no use.
      for (const token of Array.from(this.#pending.keys())) this.#fail(token, linkLost(`NATS at ${this.#link.servers} is not reachable (${error?.message ?? 'no answer'}); see NATS_SERVER`), false)
    }
  }

  /** What waited for the connection goes out, what may have been delivered after its grace. */
  #sendWaiting(nowMs: number): void {
    for (const [token, pending] of Array.from(this.#pending)) {
      if (pending.state === 'sent' || pending.kept === null) continue
      if (pending.sender.isSettled) this.#drop(token, pending)
      else if (pending.state === 'held' || nowMs >= pending.resendMs) this.#resend(token, pending)
    }
  }

  #resend(token: string, pending: Pending): void {
    const request = pending.kept
    if (request === null) return
    const mayDial = pending.state !== 'held'
    if (pending.state === 'lost') this.#counts.resent += 1
    pending.state = 'sent'
    pending.sender.isWaiting = false
    this.#extend(pending, this.#clock.nowMs() + this.#limits.ackTimeoutMs)
    const failure = this.#publish(token, request)
    if (failure !== null) this.#fail(token, failure, mayDial)
  }

  #extend(pending: Pending, untilMs: number): void {
    pending.deadlineMs = Math.min(pending.lastMs, untilMs)
  }

  #drop(token: string, pending: Pending): void {
    this.#pending.delete(token)
    if (pending.kept !== null) this.#keptBytes -= pending.kept.payload.length
  }

  #fail(token: string, failure: Failure, mayDial: boolean): void {
    const pending = this.#pending.get(token)
    if (pending === undefined) return
    this.#drop(token, pending)
    pending.sender.sendFailed(failure, mayDial)
  }

  #expire(): void {
    this.#sweep = null
    const nowMs = this.#clock.nowMs()
    if (this.#link.connected) this.#sendWaiting(nowMs)
    for (const [token, pending] of Array.from(this.#pending)) {
      if (pending.deadlineMs > nowMs) continue
      if (pending.sender.isSettled) this.#drop(token, pending)
      else if (pending.state === 'sent') {
        this.#counts.timeouts += 1
        this.#fail(token, unreachable(`the worker did not acknowledge the request over NATS within ${this.#limits.ackTimeoutMs} ms`), true)
      } else {
        this.#counts.lost += 1
        const message = pending.state === 'held'
          ? `no connection to NATS at ${this.#link.servers} within ${this.#limits.ackTimeoutMs} ms`
          : `the connection to NATS at ${this.#link.servers} was lost before the worker acknowledged the request${pending.kept === null ? '' : `, and did not come back within ${this.#limits.ackTimeoutMs} ms`}`
        this.#fail(token, linkLost(message), pending.state === 'lost')
      }
    }
    if (this.#pending.size > 0) this.#sweep = this.#clock.setTimer(sweepEveryMs, () => this.#expire())
  }

}

const unreachable = (message: string): Failure => ({ class: 'Unavailable', reason: 'transport.cannot_connect', message })
const linkLost = (message: string): Failure => ({ ...unreachable(message), linkLost: true })
