/** What holds between the options of two stages. */
import type { AffinityRules } from '../affinity/affinity-table.ts'
import { parseConditionalDisagg, type ConditionalDisagg } from '../disagg/conditional.ts'
import { placeOf, type Draft } from './draft.ts'
import { UsageError } from './usage-error.ts'

/** Errors: `UsageError` that names option, value and mend. */
export function checkDisagg(draft: Draft): void {
  const { values } = draft
  if (typeof values['prefillEndpoint'] === 'string' && values['prefillEndpoint'] === values['endpoint']) {
    throw new UsageError(`${placeOf(draft, 'prefillEndpoint')}: ${values['prefillEndpoint']} is the endpoint of the decode workers (${placeOf(draft, 'endpoint')}), too; give that of the prefill workers, or leave it out where the workers do both`)
  }
  if (values['conditionalDisagg'] !== true) {
    if (typeof values['conditionalDisaggConfig'] === 'string') throw new UsageError(`${placeOf(draft, 'conditionalDisaggConfig')} needs --router-conditional-disagg; set it or leave the rules out`)
    return
  }
  const place = placeOf(draft, 'conditionalDisagg')
  if ('prefillEndpoint' in values && values['prefillEndpoint'] === null) {
    throw new UsageError(`${place}: a router of one pool has no prefill stage to skip, in Dynamo neither; give --prefill-endpoint, or set it on the frontend`)
  }
  if (typeof values['routerMode'] === 'string' && values['routerMode'] !== 'kv' && values['loadAware'] !== true) {
    throw new UsageError(`${place} needs --router-mode kv, which ${placeOf(draft, 'routerMode')} changed to ${values['routerMode']}`)
  }
  const parsed = parseConditionalDisagg(values['conditionalDisaggConfig'] as string | null, values['queueThreshold'] as number | null)
  if (parsed.kind === 'problem') throw new UsageError(`${placeOf(draft, 'conditionalDisaggConfig')}: ${parsed.problem}`)
}

interface DisaggValues {
  readonly conditionalDisagg: boolean
  readonly conditionalDisaggConfig: string | null
  readonly queueThreshold: number | null
  readonly sessionAffinityTtlSeconds: number | null
  readonly sessionAffinityMode: string
}

/** Rules of checked values; null: off. */
export function conditionalDisaggOf({ conditionalDisagg, conditionalDisaggConfig, queueThreshold }: DisaggValues): ConditionalDisagg | null {
  const parsed = conditionalDisagg ? parseConditionalDisagg(conditionalDisaggConfig, queueThreshold) : null
  return parsed?.kind === 'rules' ? parsed.rules : null
}

/** Null: off. */
export function sessionAffinityOf({ sessionAffinityTtlSeconds, sessionAffinityMode }: DisaggValues): AffinityRules | null {
  return sessionAffinityTtlSeconds === null ? null : { ttlMs: 1000 * sessionAffinityTtlSeconds, mode: sessionAffinityMode === 'soft' ? 'soft' : 'hard' }
}
