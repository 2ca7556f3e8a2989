/**
 * The client's requests over NATS: request and reply on an inbox of ours; the empty reply is the acknowledgement.
 *
 * A request that finds the connection lost waits for its return. One that was sent when the connection went is given a moment to be
 * answered by its worker, who may have it, and is then sent elsewhere by whoever asked.
 */
import { randomUUID } from 'node:crypto'
import type { Failure } from '../../model/failure.ts'
import type { Clock, TimerHandle } from '../../ports.ts'
import type { LinkState, LinkSubscription, NatsLink } from '../nats/nats-link.ts'
import type { SentRequest } from './request-connection.ts'

/** Bounds and deadlines of requests over NATS. */
export interface NatsRequestLimits {
  /** From the call to the acknowledgement, waiting for a connection included. */
  readonly ackTimeoutMs: number
  /** Requests without acknowledgement. */
  readonly pendingMax: number
  /** Bytes of requests that wait for a connection. */
  readonly heldBytesMax: number
}

/** Counters since the start, and what waits now. */
export interface NatsRequestsStats {
  readonly sent: number
  readonly pending: number
  readonly held: number
  readonly noResponders: number
  readonly timeouts: number
  /** Requests that were on the way when the connection was lost, and were not answered. */
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
  /** Nobody waits for it any more. */
  readonly isOver: boolean
}

interface Pending {
  readonly sender: NatsSender
  /** Null once it is sent. */
  held: NatsRequest | null
  deadlineMs: number
  lost: boolean
  /** Kept while the worker may not have come back from the same loss yet; null otherwise. */
  again: NatsRequest | null
}

/** For a worker to answer a request that was sent before the connection was lost. */
const lostGraceMs = 1_000
const sweepEveryMs = 200
/** After the connection is back: workers have come back through the same server, but perhaps a moment later. */
const regroupMs = 2_000
const askAgainMs = 50

const defaults: NatsRequestLimits = { ackTimeoutMs: 10_000, pendingMax: 16_384, heldBytesMax: 67_108_864 }

/** State: requests without acknowledgement, by the last part of their reply subject. */
export class NatsRequests {
  readonly #link: NatsLink
  readonly #clock: Clock
  readonly #limits: NatsRequestLimits
  readonly #inbox = `_INBOX.${randomUUID().replaceAll('-', '')}`
  readonly #pending = new Map<string, Pending>()
  readonly #counts = { sent: 0, noResponders: 0, timeouts: 0, lost: 0, full: 0 }
  #subscription: LinkSubscription | null = null
  #watch: { close(): void } | null = null
  #sweep: TimerHandle | null = null
  #heldBytes = 0
  #held = 0
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
    return { ...this.#counts, pending: this.#pending.size, held: this.#held }
  }

  /** Sends a request, now or when the connection is there. Gives a failure when it cannot be taken; the sender hears nothing then. */
  send(request: NatsRequest, sender: NatsSender): Failure | null {
    const bad = /[\s*>]/.test(request.subject) || request.subject === ''
    if (bad) return unreachable(`NATS subject ${JSON.stringify(request.subject.slice(0, 200))} is not one that a request can be sent to`)
    if (this.#pending.size >= this.#limits.pendingMax || this.#heldBytes + request.payload.length > this.#limits.heldBytesMax) {
      this.#counts.full += 1
      return { class: 'CapacityExhausted', reason: 'capacity.worker_overloaded', message: `${this.#pending.size} requests over NATS wait for their acknowledgement` }
    }
    this.#open()
    this.#next += 1
    const token = this.#next.toString(36)
    const pending: Pending = { sender, held: null, deadlineMs: this.#clock.nowMs() + this.#limits.ackTimeoutMs, lost: false, again: null }
    if (this.#link.connected) {
      this.#keepFor(pending, request)
      const failure = this.#publish(token, request)
      if (failure !== null) return failure
    } else this.#hold(pending, request)
    this.#pending.set(token, pending)
    this.#sweep ??= this.#clock.setTimer(sweepEveryMs, () => this.#expire())
    return null
  }

  close(): void {
    this.#sweep?.cancel()
    this.#watch?.close()
    this.#subscription?.close()
    this.#pending.clear()
  }

  #open(): void {
    if (this.#subscription !== null) return
    const prefix = this.#inbox.length + 1
    this.#subscription = this.#link.subscribe(`${this.#inbox}.*`, null, (message) => this.#replied(message.subject.slice(prefix), message.headers?.code === 503, message.data))
    this.#watch = this.#link.onState((state, error) => this.#linkChanged(state, error))
  }

  #hold(pending: Pending, request: NatsRequest): void {
    pending.held = request
    this.#held += 1
    this.#heldBytes += request.payload.length
  }

  #release(pending: Pending): NatsRequest | null {
    const request = pending.held
    if (request === null) return null
    pending.held = null
    this.#held -= 1
    this.#heldBytes -= request.payload.length
    return request
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
      case 'full': return { class: 'CapacityExhausted', reason: 'capacity.worker_overloaded', message: 'the connection to NATS is full' }
      case 'disconnected': return unreachable(`the connection to NATS at ${this.#link.servers} is lost`)
    }
  }

  #replied(token: string, isUnanswered: boolean, data: Uint8Array): void {
    const pending = this.#pending.get(token)
    if (pending === undefined) return
    this.#pending.delete(token)
    if (isUnanswered && data.length === 0) {
      if (pending.again !== null && this.#clock.nowMs() < this.#regroupUntilMs && !pending.sender.isOver) {
        this.#askAgain(token, pending, pending.again)
        return
      }
      this.#counts.noResponders += 1
      pending.sender.sendFailed(unreachable('no responders: nobody serves the NATS subject of the instance'))
    } else pending.sender.acknowledged(data.length === 0 ? '' : Buffer.from(data.subarray(0, 1024)).toString())
  }

  #keepFor(pending: Pending, request: NatsRequest): void {
    pending.again = this.#clock.nowMs() < this.#regroupUntilMs ? request : null
  }

  #askAgain(token: string, pending: Pending, request: NatsRequest): void {
    this.#pending.set(token, pending)
    this.#clock.setTimer(askAgainMs, () => {
      if (this.#pending.get(token) !== pending) return
      if (!this.#link.connected) {
        this.#hold(pending, request)
        return
      }
      const failure = this.#publish(token, request)
      if (failure !== null) this.#fail(token, failure, false)
    })
  }

  #linkChanged(state: LinkState, error: Error | null): void {
    if (state === 'up') {
      if (this.#wasDown) this.#regroupUntilMs = this.#clock.nowMs() + regroupMs
      this.#sendHeld()
    } else if (state === 'down') {
      this.#wasDown = true
      const untilMs = this.#clock.nowMs() + lostGraceMs
      for (const pending of this.#pending.values()) {
        if (pending.held !== null) continue
        pending.lost = true
        pending.deadlineMs = Math.min(pending.deadlineMs, untilMs)
      }
    } else if (!this.#link.everConnected) {
      // Nobody has ever answered there: waiting is of no use.
      for (const token of Array.from(this.#pending.keys())) this.#fail(token, unreachable(`NATS at ${this.#link.servers} is not reachable (${error?.message ?? 'no answer'}); see NATS_SERVER`), false)
    }
  }

  #sendHeld(): void {
    for (const [token, pending] of Array.from(this.#pending)) {
      const request = this.#release(pending)
      if (request === null) continue
      if (pending.sender.isOver) {
        this.#pending.delete(token)
        continue
      }
      this.#keepFor(pending, request)
      const failure = this.#publish(token, request)
      if (failure !== null) this.#fail(token, failure, false)
    }
  }

  #fail(token: string, failure: Failure, mayDial: boolean): void {
    const pending = this.#pending.get(token)
    if (pending === undefined) return
    this.#pending.delete(token)
    this.#release(pending)
    pending.sender.sendFailed(failure, mayDial)
  }

  #expire(): void {
    this.#sweep = null
    const nowMs = this.#clock.nowMs()
    for (const [token, pending] of Array.from(this.#pending)) {
      if (pending.deadlineMs > nowMs) continue
      if (pending.held !== null) this.#fail(token, unreachable(`no connection to NATS at ${this.#link.servers} within ${this.#limits.ackTimeoutMs} ms`), false)
      else if (pending.lost) {
        this.#counts.lost += 1
        this.#fail(token, unreachable('the connection to NATS was lost before the worker acknowledged the request'), true)
      } else {
        this.#counts.timeouts += 1
        this.#fail(token, unreachable(`the worker did not acknowledge the request over NATS within ${this.#limits.ackTimeoutMs} ms`), true)
      }
    }
    if (this.#pending.size > 0) this.#sweep = this.#clock.setTimer(sweepEveryMs, () => this.#expire())
  }
}

const unreachable = (message: string): Failure => ({ class: 'Unavailable', reason: 'transport.cannot_connect', message })
