/** Cards and records for tests of this folder. */
import type { JsonObject } from '../src/ports.ts'
import { parseModelCard, type ModelCard } from '../src/dynamo/cards/model-card.ts'
import { instanceKey } from '../src/dynamo/discovery/store-key.ts'
import { encodeInstanceRecord } from '../src/dynamo/wire/instance-record.ts'
import type { WorkerFact } from '../src/frontend/worker-pools.ts'

export interface CardInput {
  readonly id: number
  readonly model?: string
  readonly namespace?: string
  readonly component?: string
  /** Null: a card of before Dynamo 1.3. */
  readonly role?: string | null
  readonly modelType?: string
  readonly needs?: readonly (readonly string[])[]
  readonly blockSize?: number
  readonly bootstrap?: boolean
  readonly taints?: readonly string[]
  readonly runtime?: JsonObject
  readonly extra?: JsonObject
}

const needsByRole: Readonly<Record<string, readonly (readonly string[])[]>> = { prefill: [['decode']], decode: [['prefill']], encode: [['aggregated']] }

/** The `v1/mdc` record of a worker like those of Dynamo 1.6.1. */
export function cardRecordOf(input: CardInput): JsonObject {
  const { id, model = 'm', namespace = 'dynamo', role = 'aggregated', blockSize = 16 } = input
  return {
    type: 'Model', namespace, component: componentOf(input), endpoint: 'generate', instance_id: id,
    card_json: {
      display_name: model, slug: model, kv_cache_block_size: blockSize, model_input: 'Tokens',
      model_type: input.modelType ?? (role === 'prefill' ? '' : 'Chat | Completions'),
      worker_type: role, needs: input.needs ?? needsByRole[role ?? ''] ?? [],
      runtime_config: {
        total_kv_blocks: 1000, data_parallel_size: 1, taints: input.taints ?? [],
        ...(input.bootstrap === true ? { disaggregated_endpoint: { bootstrap_host: '127.0.0.1', bootstrap_port: 8998 } } : {}),
        ...input.runtime,
      },
      ...input.extra,
    },
  }
}

const componentOf = ({ component, role }: CardInput): string => component ?? (role === 'prefill' ? 'prefill' : 'backend')

export const cardOf = (input: CardInput): ModelCard => parseModelCard(cardRecordOf(input))

/** Its key in `v1/mdc` and `v1/instances`. */
export function keyOf(input: CardInput): string {
  const { namespace = 'dynamo', id } = input
  return instanceKey({ namespace, component: componentOf(input), endpoint: 'generate' }, BigInt(id))
}

export const factOf = (input: CardInput, isLive = true): WorkerFact => ({ key: keyOf(input), card: cardOf(input), isLive })

export function instanceRecordOf(input: CardInput): JsonObject {
  const { namespace = 'dynamo', id } = input
  return encodeInstanceRecord({
    namespace, component: componentOf(input), endpoint: 'generate', instanceId: BigInt(id), codec: 'msgpack', deviceType: 'cpu',
    transport: { tcp: `127.0.0.1:1/${id}` },
  })
}
