/** The rank of a chosen worker as requests and answers name it. */
import type { Router } from '../router/contract.ts'
import type { GenerateRequest } from '../dynamo/wire/generate-request.ts'
import { prefillHints } from './decode-constraint.ts'

/** A worker, and its rank unless the engine is to choose that. */
export interface NamedWorker {
  readonly workerId: bigint
  readonly dpRank: number | null
}

/** Who was chosen to answer. Modes that do not look at caches leave the rank to the engine, unless the caller named one. Source: Dynamo 1.6.1. */
export const namedForDecode = (router: Router | null, { routing }: GenerateRequest, { workerId, dpRank }: { readonly workerId: bigint; readonly dpRank: number }): NamedWorker =>
  ({ workerId, dpRank: choosesRanks(router) ? dpRank : (routing.pin?.dpRank ?? routing.dpRank ?? null) })

/** Who was chosen to compute the prompt, likewise. */
export function namedForPrefill(router: Router | null, generate: GenerateRequest, { workerId, dpRank }: { readonly workerId: bigint; readonly dpRank: number }): NamedWorker {
  if (choosesRanks(router)) return { workerId, dpRank }
  const asked = prefillHints(generate)
  return { workerId, dpRank: asked.pin?.dpRank ?? asked.dpRank ?? null }
}

const choosesRanks = (router: Router | null): boolean => router?.settings.selectionMode === undefined
