/** What a running command shows of its changing settings: metrics and the admin API. */
import type { AdminAnswer } from '../admin/admin-server.ts'
import type { ParsedConfig } from '../config/parse-command.ts'
import { UsageError } from '../config/usage-error.ts'
import type { MetricSet } from '../observability/metric-set.ts'
import type { PolicyFile } from '../policy-files/policy-file.ts'
import type { Log } from '../ports.ts'
import { listenError } from './listen-error.ts'
import type { ChangeOutcome, LiveCommand, LiveSettings } from './live-settings.ts'

const regretBounds = [0, 0.01, 0.1, 1, 10, 100, 1000, 10_000]
const gapBounds = [-256, -64, -16, -4, -1, 0, 1, 4, 16, 64, 256, 1024]

/** Families of policies and settings; those of policies only once a policy is loaded. */
export function showLiveMetrics<Command extends LiveCommand>(set: MetricSet, live: LiveSettings<Command>): void {
  const generation = set.gauge('warmpath_settings_generation', 'Counts the changes of settings that were applied, from 1 at the start', {}).with()
  const changes = set.counter('warmpath_settings_changes_total', 'Changes of settings, by where they came from', {}, ['source', 'outcome'])
  const loads = set.counter('warmpath_policy_loads_total', 'Policy files that were read', {}, ['place', 'outcome'])
  const calls = set.counter('warmpath_policy_decisions_total', 'Decisions for which a policy was asked', {}, ['place'])
  const failures = set.counter('warmpath_policy_failures_total', 'Decisions in which a policy failed', {}, ['place', 'reason'])
  const aside = set.gauge('warmpath_policy_set_aside', 'Whether the policy is set aside for its time until it is loaded again', {}, ['place'])
  const compared = set.counter('warmpath_policy_shadow_decisions_total', 'Decisions that the shadow policy was compared with', {}, ['outcome'])
  const regret = set.histogram('warmpath_policy_shadow_regret', 'Score of the live choice above that of the best one, by the shadow policy', regretBounds, {}).with()
  const gap = set.histogram('warmpath_policy_shadow_cost_gap_blocks', 'Built-in cost of the choice of the shadow policy above that of the live one', gapBounds, {}).with()
  const agree = compared.with('agree')
  const disagree = compared.with('disagree')
  live.onCompared = (comparison) => {
    (comparison.agrees ? agree : disagree).inc()
    if (comparison.regret !== null) regret.observe(comparison.regret)
    gap.observe(comparison.costGapBlocks)
  }
  const showFile = (place: 'live' | 'shadow', { slot, counts }: PolicyFile): void => {
    loads.with(place, 'loaded').set(counts.loaded)
    loads.with(place, 'refused').set(counts.refused)
    calls.with(place).set(slot.counts.decisions)
    for (const [reason, count] of [['exception', slot.counts.exception], ['invalid', slot.counts.invalid], ['over_budget', slot.counts.overBudget]] as const) failures.with(place, reason).set(count)
    aside.with(place).set(slot.isSetAside ? 1 : 0)
  }
  set.onScrape(() => {
    generation.set(live.generation)
    for (const source of ['reload', 'admin'] as const) for (const outcome of ['applied', 'refused'] as const) changes.with(source, outcome).set(live.counts[source][outcome])
    showFile('live', live.policies.live)
    showFile('shadow', live.policies.shadow)
  })
}

/** The admin API, where it is asked for; gives what closes it. Errors: `UsageError` for the token file; a port that is taken. */
export async function openAdmin<Command extends LiveCommand>(live: LiveSettings<Command>, log: Log): Promise<(() => Promise<void>) | null> {
  const { adminPort, adminTokenFile } = live.config.values as Pick<ParsedConfig<LiveCommand>['values'], 'adminPort' | 'adminTokenFile'>
  if (adminPort === null) return null
  const { TokenFileError, startAdminServer } = await import('../admin/admin-server.ts')
  try {
    const server = await startAdminServer({
      port: adminPort, tokenFile: adminTokenFile, log,
      target: { report: () => live.report(), patch: async (body) => answerOf(await live.patch(body)), reload: async () => answerOf(await live.reload()) },
    })
    log.info({ stage: 'start' }, `admin API: ${server.url}/settings${adminTokenFile === null ? ' (reads only; --admin-token-file allows writes)' : ''}`)
    return () => server.close()
  } catch (error) {
    if (error instanceof TokenFileError) throw new UsageError(`--admin-token-file ${error.message}`)
    throw listenError(error, { what: 'admin port', host: '127.0.0.1', port: adminPort, portOption: '--admin-port', hostOption: '--admin-port' })
  }
}

function answerOf(outcome: ChangeOutcome): AdminAnswer {
  if (outcome.kind === 'refused') return outcome
  return { kind: 'applied', body: { generation: outcome.generation, changed: outcome.changed.map(({ name, from, to }) => ({ name, from, to })) } }
}
