/** Options of serving in two stages, and of sessions, that frontend and router share. */
import { booleanOption, maybeInteger, maybeText, textOption } from '../option.ts'
import type { Option, OptionValue } from '../option.ts'

const disagg = 'Prefill and decode'
const sessions = 'Sessions'

export const disaggOptions = {
  conditionalDisagg: booleanOption(false, {
    name: 'router-conditional-disagg', env: ['DYN_ROUTER_CONDITIONAL_DISAGG'], since: 'Dynamo 1.6', section: disagg,
    help: 'Let a request skip the prefill workers when the decode worker that it would go to has most of its prompt cached, or by prefill load. Needs two stages.',
  }),
  conditionalDisaggConfig: maybeText({
    name: 'router-conditional-disagg-config', env: ['DYN_ROUTER_CONDITIONAL_DISAGG_CONFIG'], since: 'Dynamo 1.6', section: disagg, defaultText: 'isl_bounding, 2048, 0.7',
    help: 'Rules of that as JSON: policy (isl_bounding, prefill_load, isl_or_load), eff_isl_threshold, eff_isl_ratio_threshold, prefill_busy_threshold, decode_busy_threshold.',
  }),
  sessionAffinityTtlSeconds: maybeInteger({
    name: 'router-session-affinity-ttl-secs', env: ['DYN_ROUTER_SESSION_AFFINITY_TTL_SECS'], since: 'Dynamo 1.6', minimum: 1, maximum: 31_536_000, unit: 'seconds', isNullable: true,
    section: sessions, defaultText: 'off', help: 'Keep the requests of a session on one worker, in each stage, until the session was idle for so long.',
  }),
  sessionAffinityMode: textOption('hard', {
    name: 'router-session-affinity-mode', env: ['DYN_ROUTER_SESSION_AFFINITY_MODE'], since: 'Dynamo 1.6', choices: ['hard', 'soft'], section: sessions,
    help: 'What a binding means: hard takes the bound worker as long as it is there; soft takes another where that one may not be chosen, and binds the session to it.',
  }),
  migrationLengthMax: maybeInteger({
    name: 'migration-max-seq-len', env: ['DYN_MIGRATION_MAX_SEQ_LEN'], minimum: 1, maximum: 4_294_967_295, unit: 'tokens', isNullable: true, section: 'When workers fail', defaultText: 'no bound',
    help: 'Prompt and answer together beyond which a request does not go on elsewhere; its tokens are then not kept either.',
  }),
}

/** For the router, which has no such flags in Dynamo. */
const asOwn = <T extends OptionValue>(option: Option<T>, env: string): Option<T> => ({ ...option, env: [env, ...option.env], origin: 'warmpath', since: 'Warmpath 0.3' })

const { conditionalDisagg, conditionalDisaggConfig, sessionAffinityTtlSeconds, sessionAffinityMode, migrationLengthMax } = disaggOptions

export const routerDisaggOptions = {
  // Dynamo's router knows the names, to refuse them.
  conditionalDisagg, conditionalDisaggConfig,
  sessionAffinityTtlSeconds: asOwn(sessionAffinityTtlSeconds, 'WARMPATH_SESSION_AFFINITY_TTL_SECS'),
  sessionAffinityMode: asOwn(sessionAffinityMode, 'WARMPATH_SESSION_AFFINITY_MODE'),
  migrationLengthMax: asOwn(migrationLengthMax, 'WARMPATH_MIGRATION_MAX_SEQ_LEN'),
}
