/** Conditional disaggregation of one request: previews both stages and says whether the prefill workers are skipped. Nothing is booked. */
import type { Candidate, Decision } from '../model/decision.ts'
import type { WorkerId } from '../model/worker.ts'
import { bypassVerdict, netNewTokens } from '../disagg/conditional.ts'
import type { GenerateRequest } from '../dynamo/wire/generate-request.ts'
import type { Choice } from './choose-worker.ts'
import { isBootstrapPool } from './decode-constraint.ts'
import { mapOf } from './decode-edits.ts'
import type { RoutedGenerateParts } from './routed-generate.ts'
import type { RoutedPool } from './routed-pool.ts'
import type { StageChoice } from './stage-choice.ts'

/** Marks a request that its decode worker computes whole; also the name of the event that tells the caller. Source: Dynamo 1.6.1. */
export const bypassMark = 'x-bypass-remote-prefill'

export interface BypassInput {
  readonly parts: RoutedGenerateParts
  readonly requestId: string
  readonly generate: GenerateRequest
  readonly prefillPool: RoutedPool
  readonly decodeStage: StageChoice
  readonly prefillStage: StageChoice
  readonly prefillChoice: Choice & { readonly requested: { readonly workerId: WorkerId; readonly dpRank: number | null } | null }
  readonly decodeChoice: Choice
}

/** The decode worker that computes the prompt itself; null: the prefill workers are used. */
export function decodeWorkerForBypass(input: BypassInput): Decision | null {
  const { parts: { options, pool, observer, log }, generate, requestId } = input
  const rules = options.conditional
  if (rules === null) return null
  const skipped = whyNotAsked(input)
  if (skipped !== null) return remote(input, skipped)
  const decision = input.decodeStage.preview(pool, input.decodeChoice, generate.routing.pin ?? null)
  if (decision.kind === 'refused') return remote(input, 'no_decode')
  const { cachedTokens } = decision
  const promptTokens = generate.tokens.length
  const verdict = bypassVerdict(rules, {
    promptTokens, cachedTokens,
    decodeBlocks: rules.decodeBusyThreshold === null ? null : (candidateOf(decision)?.potentialDecodeBlocks ?? null),
    decodeTotalBlocks: pool.router?.worker(decision.workerId)?.totalKvBlocks ?? null,
    prefillLoad: () => prefillLoad(input),
  })
  if (!verdict.bypass) return remote(input, verdict.reason)
  observer.onConditional('bypass', verdict.reason)
  log.info({
    request_id: requestId, worker_id: decision.workerId.toString(), dp_rank: decision.dpRank, stage: 'conditional', reason: verdict.reason,
    net_new_tokens: netNewTokens({ promptTokens, cachedTokens }), overlap_tokens: cachedTokens,
  }, 'Conditional disagg routing to decode worker')
  return decision
}

/** Requests and pools to which the rules do not apply. */
function whyNotAsked({ parts, generate, prefillPool }: BypassInput): string | null {
  if ((mapOf(generate.field('routing'))['prefill_worker_id'] ?? null) !== null) return 'pinned'
  if (generate.tokens.length === 0) return 'empty'
  // SGLang's decode workers cannot compute a prompt.
  if (isBootstrapPool(prefillPool) || parts.needsBootstrap?.() === true) return 'bootstrap'
  return parts.pool.router?.settings.selectionMode === undefined ? null : 'mode'
}

function remote({ parts: { observer, log }, requestId }: BypassInput, reason: string): null {
  observer.onConditional('remote', reason)
  log.debug({ request_id: requestId, stage: 'conditional', reason }, 'the prompt is computed by a prefill worker')
  return null
}

function prefillLoad({ prefillPool, prefillStage, prefillChoice }: BypassInput): { readonly activeTokens: number; readonly maxBatchTokens: number | null } | null {
  const decision = prefillStage.preview(prefillPool, prefillChoice, prefillChoice.requested)
  const candidate = decision.kind === 'refused' ? null : candidateOf(decision)
  if (candidate === null) return null
  return { activeTokens: candidate.activePrefillTokens, maxBatchTokens: prefillPool.router?.worker(candidate.workerId)?.maxNumBatchedTokens ?? null }
}

/** Loads of the chosen rank; only right after the decision was made. */
const candidateOf = (decision: Decision): Candidate | null => decision.explain().candidates.find(({ slot }) => slot === decision.slot) ?? null

/** The caller's annotations without the mark, and with it where the request skips the prefill workers; null: as the caller sent them. */
export function markedAnnotations(generate: GenerateRequest, decidesStages: boolean, isBypassed: boolean): readonly string[] | null {
  if (!decidesStages) return null
  const given = generate.field('annotations')
  const own = Array.isArray(given) ? (given as readonly unknown[]).filter((each): each is string => typeof each === 'string') : []
  if (!isBypassed && !own.includes(bypassMark)) return null
  const kept = own.filter((each) => each !== bypassMark)
  return isBypassed ? [...kept, bypassMark] : kept
}
