/** A worker rank of this process whose cache events are scripted: lost ones, ids that begin anew under the same identity, a log that forgets. */
import { join } from 'node:path'
import { FileDiscovery } from '../src/dynamo/discovery/file-discovery.ts'
import { instanceKey } from '../src/dynamo/discovery/store-key.ts'
import { eventKey } from '../src/dynamo/event-plane/event-keys.ts'
import { createZmqEventPlane } from '../src/dynamo/event-plane/zmq-event-plane.ts'
import { encodeEventSource, kvEventsTopic, recoveryEndpointName } from '../src/dynamo/kv-state/event-source.ts'
import { KvEventLog, type KvChange } from '../src/dynamo/kv-state/kv-event-log.ts'
import { decodeRecoveryRequest, encodeRecoveryItem } from '../src/dynamo/kv-state/recovery-codec.ts'
import { createTcpRequestServer } from '../src/dynamo/request-plane/tcp-server.ts'
import { encodeInstanceRecord } from '../src/dynamo/wire/instance-record.ts'
import { encodeData } from '../src/dynamo/wire/items.ts'
import { encodeKvEvents } from '../src/dynamo/wire/kv-events.ts'
import { publicSeed, sharedHasher } from '../src/hashing/block-hasher.ts'
import { hashListOf } from '../src/model/hash-list.ts'
import type { EventPublisher, InstanceRecord, RequestPlaneServer } from '../src/ports.ts'
import { systemPorts } from '../src/system-ports.ts'
import { silentLog } from '../test/request-plane-kit.ts'
import type { Deployment } from './deployment.ts'

const endpoint = { namespace: 'dynamo', component: 'backend', endpoint: 'generate' }
const blockSize = 16

/** The blocks of a prompt, as an engine that now holds them says it. */
export function storedPrompt(tokens: readonly number[]): KvChange {
  const tokensHashes = sharedHasher().localHashes(Uint32Array.from(tokens), { blockSize, seed: publicSeed })
  const count = Math.floor(tokens.length / blockSize)
  const blockHashes = hashListOf(Array.from({ length: count }, (_, index) => BigInt((tokens[0] ?? 0) * 1000 + index + 1)))
  return { storageTier: 'device', data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes, tokensHashes, mmInfos: null } }
}

export const cleared: KvChange = { storageTier: 'device', data: { kind: 'cleared' } }

export class ScriptedSource {
  readonly id: bigint
  #log: KvEventLog
  /** Questions for what it holds. */
  asked = 0
  /** Prompt tokens from its cache, as its answers say. */
  cachedTokens = 0
  readonly #publisher: EventPublisher
  readonly #server: RequestPlaneServer
  readonly #closing: (() => Promise<void> | void)[]

  private constructor(id: bigint, publisher: EventPublisher, server: RequestPlaneServer, closing: (() => Promise<void> | void)[]) {
    this.id = id
    this.#log = new KvEventLog({ workerId: id, dpRank: 0 })
    this.#publisher = publisher
    this.#server = server
    this.#closing = closing
  }

  static async start(deployment: Deployment, id: bigint): Promise<ScriptedSource> {
    const signal = AbortSignal.timeout(10_000)
    const parts = { ...systemPorts(), log: silentLog }
    const discovery = new FileDiscovery({ root: join(deployment.folder, 'kv'), instanceId: id, ...parts })
    await discovery.start(signal)
    const plane = createZmqEventPlane({ discovery, ...parts })
    const server = createTcpRequestServer({ ...parts, host: '127.0.0.1' })
    await server.start(signal)
    const publisher = await plane.publisher(endpoint, kvEventsTopic)
    const source = new ScriptedSource(id, publisher, server, [() => publisher.close(), () => plane.close(), () => server.close(), () => discovery.close(1000)])
    const query = { ...endpoint, endpoint: recoveryEndpointName(publisher.publisherId) }
    const asked = server.serve(query, id, (request, response) => {
      source.asked += 1
      response.writeItem(encodeRecoveryItem(source.#log.answer(decodeRecoveryRequest(request.body, request.codec)), request.codec))
      response.end()
    })
    const generate = server.serve(endpoint, id, (request, response) => {
      response.writeItem(encodeData({
        token_ids: [1], finish_reason: 'length', completion_usage: { prompt_tokens: 64, completion_tokens: 1, total_tokens: 65, prompt_tokens_details: { cached_tokens: source.cachedTokens } },
      }, request.codec))
      response.end()
    })
    const recordOf = (place: typeof endpoint, transport: InstanceRecord['transport']): InstanceRecord => ({ ...place, instanceId: id, transport, codec: 'msgpack', deviceType: null })
    const recoveryTarget = recordOf(query, asked.transport)
    await discovery.put('v1/instances', instanceKey(query, id), encodeInstanceRecord(recoveryTarget))
    await discovery.put('v1/event_sources', eventKey(endpoint, kvEventsTopic, publisher.publisherId), encodeEventSource(endpoint, { publisherId: publisher.publisherId, rank: source.#log.rank, recoveryTarget }))
    await discovery.put('v1/instances', instanceKey(endpoint, id), encodeInstanceRecord(recordOf(endpoint, generate.transport)))
    return source
  }

  get lastEventId(): bigint {
    return this.#log.lastEventId
  }

  /** Numbers changes and sends them; `isLost`: they happen, and nobody hears of it. */
  publish(changes: readonly KvChange[], isLost = false): void {
    const events = changes.map((change) => this.#log.append(change))
    if (!isLost) this.#publisher.publish(encodeKvEvents(events))
  }

  /** The engine begins anew behind the same records: an empty cache, ids from 1. */
  beginAnew(): void {
    this.#log = new KvEventLog(this.#log.rank)
  }

  /** Its port refuses from now on; its records stand. */
  closePort(): Promise<void> | void {
    return this.#server.close()
  }

  async close(): Promise<void> {
    for (const step of this.#closing) await step()
  }
}
