/**
 * Settings that change while a router or frontend runs: on SIGHUP and through the admin API, all or nothing.
 *
 * A change parses everything anew, files included, reads the policies, and only then touches routers, which cannot fail.
 */
import { readFileSync } from 'node:fs'
import { changeableKeys, readChanges, type ChangeProblem } from '../config/changeable.ts'
import type { OptionTable, OptionValue } from '../config/option.ts'
import { parseCommand, type Environment, type ParsedConfig } from '../config/parse-command.ts'
import { tables } from '../config/table.ts'
import { UsageError } from '../config/usage-error.ts'
import type { PolicyFileStatus } from '../policy-files/policy-file.ts'
import { PolicyFiles } from '../policy-files/policy-files.ts'
import { PolicyFileError } from '../policy-files/load-policy.ts'
import type { ShadowComparison } from '../policies/policy-slot.ts'
import type { Json, JsonObject, Log } from '../ports.ts'
import type { RouterSettings } from '../router/contract.ts'
import type { KvRouter } from '../router/kv-router.ts'
import { RouterFollowers, type BusyThresholdValues } from './router-followers.ts'

export type LiveCommand = 'router' | 'frontend'

/** One setting that has another value now. */
export interface SettingChange {
  readonly name: string
  readonly from: OptionValue
  readonly to: OptionValue
}

export type ChangeOutcome =
  | { readonly kind: 'applied'; readonly generation: number; readonly changed: readonly SettingChange[] }
  | { readonly kind: 'refused'; readonly problems: readonly ChangeProblem[] }

export interface LiveSettingsParts<Command extends LiveCommand> {
  readonly config: ParsedConfig<Command>
  readonly argv: readonly string[]
  readonly env: Environment
  readonly log: Log
}

/** One writer: changes wait for each other. */
export class LiveSettings<Command extends LiveCommand> {
  readonly policies: PolicyFiles
  /** Applied and refused changes since the start. */
  readonly counts = { reload: { applied: 0, refused: 0 }, admin: { applied: 0, refused: 0 } }
  /** Hears of comparisons of the shadow policy. */
  onCompared: (comparison: ShadowComparison) => void = () => {}
  /** Set by a command whose models have thresholds of their own. */
  onThresholds: ((thresholds: BusyThresholdValues) => void) | null = null
  readonly #parts: LiveSettingsParts<Command>
  readonly #followers = new RouterFollowers<ParsedConfig<Command>>()
  #config: ParsedConfig<Command>
  #overlay: ReadonlyMap<string, OptionValue> = new Map()
  #generation = 1
  #queue: Promise<unknown> = Promise.resolve()
  readonly #onHangup = (): void => { void this.reload() }

  constructor(parts: LiveSettingsParts<Command>) {
    this.#parts = parts
    this.#config = parts.config
    this.policies = new PolicyFiles(parts.log, (comparison) => this.onCompared(comparison))
  }

  get config(): ParsedConfig<Command> {
    return this.#config
  }

  /** 1 at the start; each change that was applied counts. */
  get generation(): number {
    return this.#generation
  }

  /** Loads the policies and listens for SIGHUP. Errors: `UsageError` when a policy cannot be used. */
  async start(): Promise<void> {
    try {
      (await this.policies.prepare(pathsOf(this.#config), true))()
    } catch (error) {
      throw error instanceof PolicyFileError ? new UsageError(`${policyPlace(this.#config, error.message)} ${error.message}`) : error
    }
    process.on('SIGHUP', this.#onHangup)
  }

  close(): void {
    process.off('SIGHUP', this.#onHangup)
    this.policies.close()
  }

  /** A router that lives: its settings come from `settingsOf`, now and after each change. */
  follow(router: KvRouter, settingsOf: (config: ParsedConfig<Command>) => RouterSettings): void {
    this.#followers.add(router, settingsOf, router.settings)
  }

  /** Reads all files anew, policies too. */
  reload(): Promise<ChangeOutcome> {
    return this.#inTurn(() => this.#change('reload', this.#overlay))
  }

  /** A body of option names to values. Null: back to what flags, variables and files say. */
  patch(body: unknown): Promise<ChangeOutcome> {
    return this.#inTurn(async () => {
      const read = readChanges(body, tables[this.#config.command])
      if ('problems' in read) return this.#refuse('admin', read.problems)
      const overlay = new Map(this.#overlay)
      for (const [key, value] of read.changes) {
        if (value === undefined) overlay.delete(key)
        else overlay.set(key, value)
      }
      return this.#change('admin', overlay)
    })
  }

  /** All settings with value, source and whether they may change; secrets are not shown. */
  report(): JsonObject {
    const table: OptionTable = tables[this.#config.command]
    const values = this.#config.values as Readonly<Record<string, OptionValue>>
    const settings: Record<string, Json> = {}
    for (const [key, option] of Object.entries(table)) {
      const { kind = 'default', name = null } = this.#config.sources[key] ?? {}
      const value = values[key] ?? null
      settings[option.name] = { value: option.isSecret && value !== null ? '(secret)' : value, source: kind, from: name, live: changeableKeys.includes(key) }
    }
    return { generation: this.#generation, settings, policies: { live: statusOf(this.policies.live.status()), shadow: statusOf(this.policies.shadow.status()) } }
  }

  #inTurn(work: () => Promise<ChangeOutcome>): Promise<ChangeOutcome> {
    const done = this.#queue.then(work)
    this.#queue = done.catch(() => {})
    return done
  }

  async #change(source: 'reload' | 'admin', overlay: ReadonlyMap<string, OptionValue>): Promise<ChangeOutcome> {
    const { argv, env } = this.#parts
    const { command } = this.#config
    let commitPolicies: () => void
    let parsed: ParsedConfig<Command> | null = null
    try {
      const outcome = await parseCommand(command as Command, argv, env, (path) => readFileSync(path), { changes: Object.fromEntries(overlay) })
      if (outcome.kind !== 'config') throw new Error('the command line asks for help')
      parsed = outcome
      commitPolicies = await this.policies.prepare(pathsOf(parsed), source === 'reload')
    } catch (error) {
      if (!(error instanceof UsageError) && !(error instanceof PolicyFileError)) throw error
      const message = error instanceof PolicyFileError && parsed !== null ? `${policyPlace(parsed, error.message)} ${error.message}` : error.message
      return this.#refuse(source, [{ field: fieldOf(message), message }])
    }
    const before = this.#config
    const restarts = this.#fixedChanges(before, parsed)
    this.#config = onlyChangeable(before, parsed)
    this.#overlay = overlay
    commitPolicies()
    this.#followers.apply(this.#config, this.onThresholds === null)
    const changed = changesBetween(before, this.#config)
    if (changed.some(({ name }) => name.startsWith('active-'))) this.onThresholds?.(thresholdsOf(this.#config))
    this.#generation += 1
    this.counts[source].applied += 1
    this.#tell(source, changed, restarts)
    return { kind: 'applied', generation: this.#generation, changed }
  }

  #refuse(source: 'reload' | 'admin', problems: readonly ChangeProblem[]): ChangeOutcome {
    this.counts[source].refused += 1
    const reason = problems.map(({ message }) => message).join('; ')
    this.#parts.log.error({ stage: 'settings', reason }, `${source === 'reload' ? 'the settings could not be read anew' : 'a change of settings was refused'}: ${reason}; all settings stay as they were`)
    return { kind: 'refused', problems }
  }

  /** Options whose new value counts with the next start only. */
  #fixedChanges(before: ParsedConfig<Command>, after: ParsedConfig<Command>): readonly string[] {
    return changesBetween(before, after, (key) => !changeableKeys.includes(key)).map(({ name }) => name)
  }

  #tell(source: 'reload' | 'admin', changed: readonly SettingChange[], restarts: readonly string[]): void {
    const { log } = this.#parts
    for (const { name, from, to } of changed) log.info({ stage: 'settings', reason: source }, `${name} changed from ${String(from)} to ${String(to)}`)
    log.info({ stage: 'settings', reason: source }, `settings of generation ${this.#generation} are in force (${changed.length === 0 ? 'no value of an option has changed' : `${changed.length} changed`})`)
    if (restarts.length > 0) log.warn({ stage: 'settings', reason: source }, `these cannot change while running and count from the next start on: ${restarts.join(', ')}`)
  }
}

const pathsOf = ({ values }: ParsedConfig<LiveCommand>): { policy: string | null; shadow: string | null; budgetUs: number } =>
  ({ policy: values.policy, shadow: values.policyShadow, budgetUs: values.policyBudgetUs })

const thresholdsOf = ({ values }: ParsedConfig<LiveCommand>): BusyThresholdValues => ({
  activeDecodeBlocks: values.activeDecodeBlocksThreshold, activePrefillTokens: values.activePrefillTokensThreshold,
  activePrefillTokensFraction: values.activePrefillTokensThresholdFraction,
})

/** The option whose file a message is about. */
function policyPlace({ values }: ParsedConfig<LiveCommand>, message: string): string {
  return values.policyShadow !== null && values.policyShadow !== values.policy && message.startsWith(values.policyShadow) ? '--policy-shadow' : '--policy'
}

/** The setting that a message of `parseCommand` begins with; '' when it names none. */
const fieldOf = (message: string): string => /^(?:PATCH \/settings: |--)([a-z0-9-]+)/.exec(message)?.[1] ?? ''

const statusOf = ({ file, name, generation, isSetAside, refused }: PolicyFileStatus): JsonObject => ({ file, name, generation, set_aside: isSetAside, refused })

/** The new configuration as far as it may count; the rest stays. */
function onlyChangeable<Command extends LiveCommand>(before: ParsedConfig<Command>, after: ParsedConfig<Command>): ParsedConfig<Command> {
  const values: Record<string, OptionValue> = { ...before.values }
  const sources = { ...before.sources }
  for (const key of changeableKeys) {
    values[key] = (after.values as Readonly<Record<string, OptionValue>>)[key] ?? null
    const source = after.sources[key]
    if (source !== undefined) sources[key] = source
  }
  return Object.freeze({ ...after, values: Object.freeze(values) as ParsedConfig<Command>['values'], sources: Object.freeze(sources), trackingKey: before.trackingKey, prefillLoadModel: before.prefillLoadModel })
}

function changesBetween(before: ParsedConfig<LiveCommand>, after: ParsedConfig<LiveCommand>, counts: (key: string) => boolean = (key) => changeableKeys.includes(key)): SettingChange[] {
  const table: OptionTable = tables[before.command]
  const [old, now] = [before.values, after.values] as readonly Readonly<Record<string, OptionValue>>[]
  return Object.keys(table).filter((key) => counts(key) && (old?.[key] ?? null) !== (now?.[key] ?? null)).map((key) => {
    const { name, isSecret } = table[key]!
    return { name, from: isSecret ? '(secret)' : (old?.[key] ?? null), to: isSecret ? '(secret)' : (now?.[key] ?? null) }
  })
}
