/** What a simulated worker says of its model: how routers and frontends learn its capacity, ranks and role. */
import type { ModelDescription } from '../../worker/model-card.ts'
import type { ModelFiles } from '../../worker/model-files.ts'
import { ModelInput, ModelType, WorkerType } from '../../worker/model-kinds.ts'
import type { EngineSettings } from './settings.ts'

export type SimulatedRole = 'aggregated' | 'prefill' | 'decode'

export interface CardParts {
  readonly modelName: string
  readonly role: SimulatedRole
  readonly settings: EngineSettings
  readonly kvEvents: boolean
  /** Null: the card names no files; routers can use the worker, frontends cannot. */
  readonly files: ModelFiles | null
}

/** A prefill worker serves decode workers that a frontend pairs it with, or such that ask for it themselves and look aggregated. */
const needsByRole: Readonly<Record<SimulatedRole, readonly (readonly WorkerType[])[]>> = {
  aggregated: [],
  prefill: [[WorkerType.Decode], [WorkerType.Aggregated]],
  decode: [[WorkerType.Prefill]],
}

/** The model as it is registered. */
export function simulatedModel({ modelName, role, settings, kvEvents, files }: CardParts): ModelDescription {
  return {
    modelInput: ModelInput.Tokens,
    modelType: role === 'prefill' ? ModelType.Prefill : ModelType.Chat | ModelType.Completions,
    modelName,
    ...(files === null ? {} : { modelPath: files.folder }),
    workerType: role,
    needs: needsByRole[role],
    kvCacheBlockSize: settings.blockSize,
    runtimeConfig: {
      ...(files?.contextLengthMax == null ? { contextLength: settings.contextLength } : {}),
      totalKvBlocks: settings.blocks,
      maxNumSeqs: settings.maxSequences,
      maxNumBatchedTokens: settings.maxBatchedTokens,
      dataParallelStartRank: settings.dpStart,
      dataParallelSize: settings.dpSize,
      enableLocalIndexer: kvEvents,
      kvEventPublishingEnabled: kvEvents,
    },
  }
}
