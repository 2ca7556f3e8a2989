/** What the global router serves: one endpoint for each kind of pool. */
import type { GlobalRouterConfig, PoolGroup } from './pool-config.ts'

export type StageKind = 'prefill' | 'decode' | 'agg'

/** How a stage shows itself to frontends. Source: registration of Dynamo's global router 1.6.1. */
export interface Stage {
  readonly kind: StageKind
  readonly endpoint: string
  readonly modelType: string
  readonly workerType: 'prefill' | 'decode' | 'aggregated'
  readonly needs: readonly (readonly string[])[]
  readonly pools: PoolGroup
}

export function stagesOf(config: GlobalRouterConfig): readonly Stage[] {
  if (config.mode === 'agg') {
    return [{ kind: 'agg', endpoint: 'generate', modelType: 'Chat | Completions', workerType: 'aggregated', needs: [], pools: config.aggregated }]
  }
  return [
    { kind: 'prefill', endpoint: 'prefill_generate', modelType: 'Prefill', workerType: 'prefill', needs: [['decode']], pools: config.prefill },
    { kind: 'decode', endpoint: 'decode_generate', modelType: 'Chat | Completions', workerType: 'decode', needs: [['prefill']], pools: config.decode },
  ]
}
