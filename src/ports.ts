/**
 * What the core and the services ask of the world: interfaces only.
 *
 * Time, chance, discovery, requests, events and the log reach the core through these, so that it can be embedded,
 * simulated, recorded and replayed. Adapters implement them; nothing here has state.
 */
import type { Failure } from './model/failure.ts'
import type { HicacheLayout, SharedHits } from './model/shared-cache.ts'
import type { WorkerId } from './model/worker.ts'

export interface Clock {
  /** Monotonic milliseconds, with fractions. */
  nowMs(): number
  /** Unix time in milliseconds. */
  epochMs(): number
  /** Calls back once; the handle ends it. A timer never keeps the process alive. */
  setTimer(delayMs: number, callback: () => void): TimerHandle
}

export interface TimerHandle {
  cancel(): void
}

export interface Random {
  /** Uniform in [0, 1). */
  float(): number
  /** Uniform u64 as [low, high] halves. */
  u64(): readonly [number, number]
}

/** Fields are fixed: request_id, worker_id (decimal string), dp_rank, stage, model, reason, duration_ms, and what a component documents. */
export interface Log {
  debug(fields: LogFields, message: string): void
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
}

export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>

// ---- Discovery -------------------------------------------------------------------------------------------------------------

export type Bucket = 'v1/instances' | 'v1/mdc' | 'v1/event_channels' | 'v1/event_sources'

/** A JSON value whose integers beyond 2^53 are bigints and never lossy numbers. */
export type Json = null | boolean | number | bigint | string | readonly Json[] | { readonly [key: string]: Json }
export type JsonObject = { readonly [key: string]: Json }

/** `kind: 'put'` also for a changed value; `synced` once, after the records that stood when the watch began. */
export type DiscoveryEvent =
  | { readonly kind: 'put'; readonly key: string; readonly value: JsonObject }
  | { readonly kind: 'delete'; readonly key: string }
  | { readonly kind: 'synced' }

export interface Watch {
  close(): void
}

/** One process's place in a deployment. Keys are relative to their bucket, `/`-separated; prefixes match whole parts. */
export interface Discovery {
  readonly kind: 'file' | 'memory' | 'etcd' | 'kubernetes' | 'nats'
  /** This process's instance id. Errors: before `start` has resolved. */
  readonly instanceId: bigint
  /** Connects and takes an identity. Rejects on abort; says in the log what it waits for and how to do without. */
  start(signal: AbortSignal): Promise<void>
  /** Creates the record, or replaces it when it is ours. Kept alive until removed or closed. */
  put(bucket: Bucket, key: string, value: JsonObject): Promise<void>
  remove(bucket: Bucket, key: string): Promise<void>
  list(bucket: Bucket, prefix: string): Promise<ReadonlyMap<string, JsonObject>>
  /** Delivers in order, never two calls at once. Unparseable records are logged and skipped. An empty prefix watches the bucket. */
  watch(bucket: Bucket, prefix: string, listener: (event: DiscoveryEvent) => void): Watch
  /** Resolves when identity is lost for good (lease expired and not renewable). */
  readonly lost: Promise<Error>
  /** Removes all records of this process, within `deadlineMs`. */
  close(deadlineMs: number): Promise<void>
}

// ---- Request plane ---------------------------------------------------------------------------------------------------------

export type Codec = 'msgpack' | 'json'

export interface EndpointId {
  readonly namespace: string
  readonly component: string
  readonly endpoint: string
}

/** How an instance can be reached, as in its record's `transport`. */
export type TransportAddress = { readonly tcp: string } | { readonly nats_tcp: string }

/** A `v1/instances` record, decoded. */
export interface InstanceRecord extends EndpointId {
  readonly instanceId: bigint
  readonly transport: TransportAddress
  readonly codec: Codec
  readonly deviceType: string | null
}

/** A request as it arrived at a served endpoint: the body is not decoded. */
/** Says that something is to end. What the platform's signals can; an own one costs less to make. */
export interface StopSignal {
  readonly aborted: boolean
  readonly reason: unknown
  throwIfAborted(): void
  addEventListener(type: 'abort', listener: () => void, options?: { readonly once?: boolean }): void
  removeEventListener(type: 'abort', listener: () => void): void
}

export interface IncomingRequest {
  readonly id: string
  /** Frame headers: request-id, traceparent, tracestate, x-request-id ... */
  readonly headers: Readonly<Record<string, string>>
  readonly metadata: Readonly<Record<string, string>>
  readonly codec: Codec
  readonly body: Uint8Array
  /** What the body holds, where the caller is in this process; nobody changes it. */
  readonly value?: JsonObject
  /** `Clock.nowMs` when the frame was complete. */
  readonly receivedAtMs: number
}

export type CancelKind = 'stop' | 'kill' | 'disconnect'

/** The response stream towards one caller. After `end`, `fail` or `abort` every call is ignored. */
export interface ResponseWriter {
  /** Called at most once, also when it happened before it was set. */
  onCancel: ((kind: CancelKind) => void) | null
  /** Called when a `writeFrame`/`writeItem` that returned false may go on. */
  onDrain: (() => void) | null
  /** Sends the good prologue; called by the first write when left out. */
  begin(): void
  /** One complete body-only frame (24-byte header and body) as it came from a worker; not copied, must not change. `body`: its body, where it is at hand. False: pause the source. */
  writeFrame(frame: Uint8Array, body?: Uint8Array): boolean
  /** One encoded response item (`{"data":…,"complete_final":false}`), framed here. */
  writeItem(body: Uint8Array): boolean
  /** Before `begin`: a prologue error. After: an error item, then the end. */
  fail(failure: Failure): void
  /** The final item and the sentinel. `finalFrame`: the worker's own final frame, else one is made. */
  end(finalFrame?: Uint8Array): void
  /** Closes without a final item: the caller sees a broken stream. */
  abort(): void
}

/** Takes one request. Must not throw; a rejection is answered as an internal failure. */
export type RequestHandler = (request: IncomingRequest, response: ResponseWriter) => void | Promise<void>

export interface ServedEndpoint {
  readonly transport: TransportAddress
  /** Resolves when callers can reach it, where that takes a while; publish the record then. Left out: at once. */
  readonly ready?: Promise<void> | undefined
  /** Requests whose response stream has not ended. */
  readonly inflight: number
  /** New requests are refused as unavailable from now on; open streams go on. */
  close(): void
}

export interface RequestPlaneServer {
  /** Binds; resolves when requests can arrive. */
  start(signal: AbortSignal): Promise<void>
  /** Registers a handler. The caller publishes the discovery record afterwards. */
  serve(endpoint: EndpointId, instanceId: bigint, handler: RequestHandler): ServedEndpoint
  /** Ends open streams with abort and closes all sockets. */
  close(): Promise<void>
}

export interface OutgoingRequest {
  readonly id: string
  readonly headers?: Readonly<Record<string, string>>
  readonly metadata?: Readonly<Record<string, string>>
  readonly codec: Codec
  /** Parts of the encoded body, sent one after the other. */
  readonly body: readonly Uint8Array[]
  /** False: fails at once while a connection that is shared by all workers (NATS) is lost. Left out: waits for it, for a while. */
  readonly waitsForLink?: boolean
}

/** What a call tells its owner, in this order: accepted?, prologue?, frame*, then exactly one of end or fail. */
export interface ResponseListener {
  /** The worker acknowledged the request. */
  onAccepted?(): void
  /** The worker's handler produced a stream. */
  onPrologue?(): void
  /** One body-only frame: `frame` with its 24-byte header, `body` its body; both views of the read buffer, valid to keep. Never the final frame. */
  onFrame(frame: Uint8Array, body: Uint8Array): void
  /** A frame with `complete_final: true` was seen; `frame` is it. */
  onEnd(finalFrame: Uint8Array): void
  /** The stream broke, was refused, timed out or was cancelled by us. `beforeFrames`: no frame was delivered. */
  onFail(failure: Failure, beforeFrames: boolean): void
}

export interface CallHandle {
  /** It waits for a connection that is shared by all workers: its silence is not the worker's. */
  readonly isWaiting?: boolean
  /** Asks the worker to end gracefully; reading goes on until it closes, at most a grace time. */
  stop(): void
  /** Ends the worker's work at once. The listener hears a Cancelled failure. */
  kill(): void
  /** Like kill, with the failure that the listener is to hear (timeout, instance gone). */
  fail(failure: Failure): void
  pause(): void
  resume(): void
}

export interface RequestPlaneClient {
  /** Binds the call-home listener. */
  start(signal: AbortSignal): Promise<void>
  /** Never throws; what goes wrong reaches the listener, never before this returns. */
  call(instance: InstanceRecord, request: OutgoingRequest, listener: ResponseListener): CallHandle
  /** Closes pooled connections to an instance that has left. */
  forget(instance: InstanceRecord): void
  close(): Promise<void>
}

// ---- Shared cache ----------------------------------------------------------------------------------------------------------

export interface SharedCacheQuery {
  readonly tokens: Uint32Array
  readonly blockSize: number
  readonly cacheNamespace?: string
}

/** A cache that all workers of a pool share, as far as it is known here. Answers at once. */
export interface SharedCache {
  /** How a worker lays it out; null: it shares none, or is gone. */
  setWorker(workerId: WorkerId, layout: HicacheLayout | null): void
  hits(query: SharedCacheQuery): SharedHits
}

// ---- Event plane -----------------------------------------------------------------------------------------------------------

/** Scope of topics: the worker endpoint. */
/**
 * Whose events: of an endpoint; before Dynamo 1.6 of a component (`endpoint` null) or of a namespace (`component` null, too).
 */
export interface EventScope {
  readonly namespace: string
  readonly component: string | null
  readonly endpoint: string | null
}

export interface EventEnvelope {
  readonly publisherId: bigint
  readonly sequence: bigint
  readonly publishedAtMs: number
  readonly topic: string
  readonly payload: Uint8Array
}

export interface EventPublisher {
  readonly publisherId: bigint
  /** Lossy: dropped when no subscriber keeps up, and counted. */
  publish(payload: Uint8Array): void
  close(): Promise<void>
}

export interface EventPlane {
  readonly kind: 'zmq' | 'nats'
  /**
   * Follows the publishers of exactly this scope and topic as they come and go. `onResumed`: the connection that they share was lost and is
   * back; what was published meanwhile is lost.
   */
  subscribe(scope: EventScope, topic: string, listener: (envelope: EventEnvelope) => void, onResumed?: () => void): Watch
  /** Binds and registers a publisher. */
  publisher(scope: EventScope, topic: string): Promise<EventPublisher>
  close(): Promise<void>
}
