/** This router's index for others: `--serve-indexer`. Answers at once, from the index as it is. */
import { instanceKey } from '../dynamo/discovery/store-key.ts'
import {
  decodeIndexerQuestion, decodeIndexerRecord, encodeIndexerAnswer, encodeIndexerError, encodeIndexerRecorded, indexerQueryEndpoint, indexerRecordEndpoint,
} from '../dynamo/wire/indexer.ts'
import { encodeInstanceRecord } from '../dynamo/wire/instance-record.ts'
import { WireError } from '../dynamo/wire/wire-error.ts'
import type { Clock, Codec, Discovery, EndpointId, Log, RequestHandler, RequestPlaneServer, ServedEndpoint } from '../ports.ts'
import type { Router } from '../router/contract.ts'

export interface ServedIndexParts {
  /** The workers' endpoint: the index is served beside it. */
  readonly workers: EndpointId
  readonly discovery: Discovery
  readonly server: RequestPlaneServer
  readonly clock: Clock
  readonly log: Log
  readonly codec: Codec
  /** Blocks are assumed from what is routed, so others tell what they route. */
  readonly isApproximate: boolean
  /** The index of a model; null: it is not served here. */
  routerOf(modelName: string): Router | null
  /** Wraps each served endpoint, for request-plane metrics. */
  measured(endpoint: string, handler: RequestHandler): RequestHandler
}

export class ServedIndex {
  readonly #parts: ServedIndexParts
  readonly #served: ServedEndpoint[] = []

  constructor(parts: ServedIndexParts) {
    this.#parts = parts
  }

  /** Registers the endpoints. Errors: of discovery. */
  async start(): Promise<void> {
    const { server, discovery, codec, measured, log, workers } = this.#parts
    for (const [name, handler] of this.#handlers()) {
      const endpoint = this.#endpoint(name)
      const served = server.serve(endpoint, discovery.instanceId, measured(name, handler))
      this.#served.push(served)
      await served.ready
      await discovery.put('v1/instances', instanceKey(endpoint, discovery.instanceId),
        encodeInstanceRecord({ ...endpoint, instanceId: discovery.instanceId, transport: served.transport, codec, deviceType: 'cpu' }))
    }
    log.info({ stage: 'start' }, `index served at ${workers.namespace}.${workers.component}.${indexerQueryEndpoint}`)
  }

  /** Removes the records; open questions are still answered until `close`. */
  async unregister(): Promise<void> {
    const { discovery } = this.#parts
    for (const [name] of this.#handlers()) await discovery.remove('v1/instances', instanceKey(this.#endpoint(name), discovery.instanceId))
  }

  close(): void {
    for (const served of this.#served) served.close()
  }

  #endpoint(endpoint: string): EndpointId {
    return { namespace: this.#parts.workers.namespace, component: this.#parts.workers.component, endpoint }
  }

  #handlers(): [string, RequestHandler][] {
    const query: [string, RequestHandler] = [indexerQueryEndpoint, (request, response) => {
      response.writeItem(this.#answer(request.codec, () => {
        const { modelName, local, deviceOnly } = decodeIndexerQuestion(request.body, request.codec)
        const rows = this.#routerOf(modelName).overlap({ tokens: new Uint32Array(0), local, includeShared: false }).rows
        return encodeIndexerAnswer(rows, deviceOnly, request.codec)
      }))
      response.end()
    }]
    if (!this.#parts.isApproximate) return [query]
    return [query, [indexerRecordEndpoint, (request, response) => {
      response.writeItem(this.#answer(request.codec, () => {
        const { modelName, rank, local, sequence } = decodeIndexerRecord(request.body, request.codec)
        this.#routerOf(modelName).bookings.recordPrompt(rank, local, sequence, this.#parts.clock.nowMs())
        return encodeIndexerRecorded(request.codec)
      }))
      response.end()
    }]]
  }

  #routerOf(modelName: string): Router {
    const router = this.#parts.routerOf(modelName)
    if (router === null) throw new WireError('malformed', `no index of model ${modelName.slice(0, 200)} is served here`)
    return router
  }

  #answer(codec: Codec, answer: () => Uint8Array): Uint8Array {
    try {
      return answer()
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      return encodeIndexerError(error.message, codec)
    }
  }
}
