/** Random policy profiles for requests that wait, and the scenario that runs both selection services under each. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Deployment } from '../deployment.ts'
import type { Scenario } from '../scenario.ts'
import { Dice, services } from './selection-sides.ts'
import { WaitingDifferential, type WaitingSetup } from './selection-waiting.ts'

interface Profile extends WaitingSetup {
  readonly env: NodeJS.ProcessEnv
  /** Null: one class, by environment. */
  readonly yaml: string | null
}

/** Without a file: one threshold for all. */
function singleProfile(dice: Dice): Profile {
  return {
    yaml: null, classNames: [], hasEvents: dice.chance(0.6),
    env: { DYN_ROUTER_QUEUE_THRESHOLD: dice.of(['0', '0.05', '0.3']), DYN_ROUTER_QUEUE_POLICY: dice.of(['fcfs', 'wspt', 'lcfs']) },
  }
}

/** What a class holds but its name. */
function classRules(dice: Dice): string {
  const rules = [`quantum: ${dice.of([1, 8, 20, 64, 300])}`, `queue_policy: ${dice.of(['fcfs', 'wspt'])}`]
  if (dice.chance(0.7)) rules.push(`prefill_busy_threshold: ${dice.of([0, 0, 10, 30])}`)
  if (dice.chance(0.4)) rules.push(`prefill_busy_threshold_frac: ${dice.of([0, 0.05, 0.2])}`)
  if (dice.chance(0.3)) rules.push(`request_queue_limit_per_worker: ${dice.of([0, 1, 1, 2])}`)
  if (dice.chance(0.15)) rules.push(`raw_isl_token_queue_limit_per_worker: ${dice.of([0, 20, 40])}`)
  if (dice.chance(0.15)) rules.push(`cached_token_queue_limit_per_worker: ${dice.of([0, 4, 16])}`)
  return rules.join(', ')
}

function classesProfile(dice: Dice): Profile {
  const buckets = ['small', 'middle', 'large'].slice(0, 1 + dice.below(3))
  const families = ['std', 'batch'].slice(0, 1 + dice.below(2))
  const explicit = ['vip', 'probe'].slice(0, dice.below(3))
  const classes = [
    ...families.flatMap((family) => buckets.map((bucket) => `name: ${family}-${bucket}, policy_family: ${family}, cache_bucket: ${bucket}`)), ...explicit.map((name) => `name: ${name}`),
  ]
  const yaml = [
    'default_policy_family: std', 'uncached_isl_buckets:', ...buckets.map((bucket, index) => `  - {min_tokens: ${12 * index}, bucket: ${bucket}}`),
    'policy_classes:', ...classes.map((name) => `  - {${name}, ${classRules(dice)}}`),
  ]
  return { yaml: `${yaml.join('\n')}\n`, env: {}, classNames: [...families, ...explicit, 'std-small', 'nobody'], hasEvents: dice.chance(0.6) }
}

async function part(deployment: Deployment, name: string, seed: number, steps: number, counts: Map<string, number>): Promise<void> {
  const dice = new Dice(seed)
  const profile = dice.chance(0.3) ? singleProfile(dice) : classesProfile(dice)
  const file = join(deployment.folder, `${name}.yaml`)
  if (profile.yaml !== null) writeFileSync(file, profile.yaml)
  const sides = await services(deployment, name, {
    // What waits is judged by what it found on arrival, or always by what it finds when it goes; nothing ends by age.
    DYN_ROUTER_OVERLAP_REFRESH_AFTER_SECS: dice.of(['0', '0', '0.000001']), DYN_ROUTER_ACTIVE_REQUEST_EXPIRY_SECS: '36000', DYN_ROUTER_TTL_SECS: '36000',
    ...(profile.hasEvents ? {} : { DYN_ROUTER_USE_KV_EVENTS: 'false' }), ...(profile.yaml === null ? {} : { DYN_ROUTER_POLICY_CONFIG: file }), ...profile.env,
  })
  const run = new WaitingDifferential(dice, sides, profile)
  let step = 0
  try {
    await run.begin()
    for (; step < steps; step++) await run.step()
    await run.finish()
  } catch (error) {
    throw new Error(`${name}, seed ${seed}, step ${step}: WARMPATH_SELECTION_PART=${seed}:${steps} replays it: ${(error as Error).message}\n${profile.yaml ?? JSON.stringify(profile.env)}`, { cause: error })
  } finally {
    run.close()
  }
  for (const [kind, count] of run.counts) counts.set(kind, (counts.get(kind) ?? 0) + count)
  await deployment.stop(deployment.labelled(`ours-${name}`))
  await deployment.stop(deployment.labelled(`real-${name}`), 'SIGKILL')
}

/** A new random profile every so many steps; the last part has what is left. */
async function waitingDifferential(deployment: Deployment): Promise<void> {
  const counts = new Map<string, number>()
  const replay = process.env['WARMPATH_SELECTION_PART']?.split(':').map(Number)
  const total = replay?.[1] ?? Number(process.env['WARMPATH_SELECTION_STEPS'] ?? 280)
  const each = replay === undefined ? Math.max(70, Math.min(250, Math.ceil(total / 4))) : total
  let seed = replay?.[0] ?? Number(process.env['WARMPATH_SELECTION_SEED'] ?? 20_261)
  for (let done = 0; done < total; done += each) await part(deployment, `waiting-${seed}`, seed++, Math.min(each, total - done), counts)
  process.stdout.write(`  ${total} steps, every answer and every order equal: ${[...counts].map(([kind, count]) => `${kind} ${count}`).join(', ')}\n`)
}

export const selectionQueueScenarios: readonly Scenario[] = [
  { name: 'selection: requests that wait', timeoutSeconds: Number(process.env['WARMPATH_SELECTION_STEPS'] ?? 0) > 1000 ? 3600 : 120, run: waitingDifferential },
]
