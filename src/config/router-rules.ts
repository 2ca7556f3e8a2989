/** What holds between the router's options: presets, older options that map to others, the policy file, the tracking key. */
import { checkDisagg } from './disagg-rules.ts'
import { placeOf } from './draft.ts'
import type { Draft, ReadFile } from './draft.ts'
import { UsageError, shown } from './usage-error.ts'
import { valueFromYaml } from './value.ts'
import { noProfiles, type PolicyProfiles } from './policy-profiles.ts'
import { readBytes, readPolicyFile, type PolicyFile } from './yaml-files.ts'
import type { PrefillLoadModel } from '../router/contract.ts'
import { readPrefillModel } from './prefill-model.ts'
import { selectionPoliciesOf } from './worker-selection.ts'
import type { SelectionPolicies } from './worker-selection.ts'
import type { OptionValue } from './option.ts'

/** What `--load-aware` stands for. Source: router-algorithm 15. */
const loadAwarePreset: Readonly<Record<string, OptionValue>> = {
  overlapScoreCredit: 0, useKvEvents: false, trackActiveBlocks: true, assumeKvReuse: false, trackPrefillTokens: true,
  useRemoteIndexer: false, serveIndexer: false, sharedCacheMultiplier: 0, sharedCacheType: 'none', predictedTtlSeconds: null,
}

/** What the rules make of options and files. */
export interface RouterRulesOutcome {
  /** The tracking key, if one is asked for. */
  readonly trackingKey: Uint8Array | null
  readonly selectionPolicies: SelectionPolicies
  readonly policyProfiles: PolicyProfiles
  readonly prefillLoadModel: PrefillLoadModel | null
}

/** Applies the rules in Dynamo's order. Errors: `UsageError`. */
export async function applyRouterRules(
  draft: Draft, readFile: ReadFile, { needsTarget, changes }: { readonly needsTarget: boolean; readonly changes: Readonly<Record<string, OptionValue>> },
): Promise<RouterRulesOutcome> {
  applyChanges(draft, changes)
  if (draft.values['loadAware'] === true) applyLoadAware(draft)
  const policyPath = draft.values['policyConfig']
  const policyFile = typeof policyPath === 'string' ? await applyPolicyFile(draft, policyPath, readFile) : null
  applyOverlapWeight(draft)
  applyChanges(draft, changes)
  if (needsTarget && draft.values['endpoint'] === null) {
    throw new UsageError('--endpoint is missing; give the workers as namespace.component.endpoint, or set DYN_ROUTER_ENDPOINT')
  }
  checkTogether(draft)
  const prefillLoadModel = await readPrefillModel(draft, readFile)
  return { prefillLoadModel, selectionPolicies: selectionPoliciesOf(draft, policyFile?.workerSelection ?? null), policyProfiles: policyFile?.profiles ?? noProfiles, trackingKey: readTrackingKey(draft, readFile) }
}

/** What was changed while running goes before all else: before the rules, for the paths that they read, and after what they set. */
function applyChanges(draft: Draft, changes: Readonly<Record<string, OptionValue>>): void {
  for (const [key, value] of Object.entries(changes)) {
    draft.values[key] = value
    draft.sources[key] = { kind: 'admin', name: `PATCH /settings: ${draft.table[key]?.name ?? key}` }
  }
}

const isExplicit = (draft: Draft, key: string): boolean => draft.sources[key]?.kind !== 'default'

function applyLoadAware(draft: Draft): void {
  const overridden: string[] = []
  for (const [key, value] of Object.entries(loadAwarePreset)) {
    if (isExplicit(draft, key) && draft.values[key] !== value) overridden.push(placeOf(draft, key))
    draft.values[key] = value
    draft.sources[key] = { kind: 'preset', name: placeOf(draft, 'loadAware') }
  }
  if (overridden.length > 0) draft.warnings.push(`${placeOf(draft, 'loadAware')} overrides ${overridden.join(', ')}`)
}

async function applyPolicyFile(draft: Draft, path: string, readFile: ReadFile): Promise<PolicyFile> {
  const overridden: string[] = []
  const file = await readPolicyFile(path, draft.table, readFile)
  for (const { key, name, raw } of file.entries) {
    const option = draft.table[key]
    if (option === undefined) continue
    const value = valueFromYaml(option, raw, `${path}: router.${name}`)
    if (isExplicit(draft, key) && draft.values[key] !== value) overridden.push(`${placeOf(draft, key)} (${shown(draft.values[key])} -> ${shown(value)})`)
    draft.values[key] = value
    draft.sources[key] = { kind: 'policy-config', name: path }
  }
  if (overridden.length > 0) draft.warnings.push(`${path}: its router: mapping overrides ${overridden.join(', ')}`)
  return file
}

/** Cost of the first releases: weight * prompt work + decode blocks. Source: compat 7.2. */
function applyOverlapWeight(draft: Draft): void {
  const weight = draft.values['overlapScoreWeight']
  if (typeof weight !== 'number') return
  const place = placeOf(draft, 'overlapScoreWeight')
  const overridden: string[] = []
  const set = (key: string, value: number): void => {
    if (isExplicit(draft, key) && draft.values[key] !== value) overridden.push(placeOf(draft, key))
    draft.values[key] = value
    draft.sources[key] = { kind: 'derived', name: place }
  }
  set('prefillLoadScale', weight)
  if (weight === 0) set('overlapScoreCredit', 0)
  if (overridden.length > 0) draft.warnings.push(`${place} overrides ${overridden.join(', ')}`)
}

function checkDurable(draft: Draft): void {
  const { values } = draft
  if (values['durableKvEvents'] === true && values['useKvEvents'] === false) {
    throw new UsageError(`${placeOf(draft, 'durableKvEvents')} needs cache events; leave out ${placeOf(draft, 'useKvEvents')}`)
  }
  if (values['durableKvEvents'] !== false || typeof values['stateDir'] === 'string') return
  for (const key of ['snapshotThreshold', 'resetStates']) {
    if (isExplicit(draft, key) && values[key] !== false) draft.warnings.push(`${placeOf(draft, key)} has no effect: nothing is kept, neither in JetStream (--router-durable-kv-events) nor on disk (--state-dir)`)
  }
}

function checkTogether(draft: Draft): void {
  checkDurable(draft)
  const { values } = draft
  if (values['serveIndexer'] === true && values['useRemoteIndexer'] === true) {
    throw new UsageError(`${placeOf(draft, 'serveIndexer')} and ${placeOf(draft, 'useRemoteIndexer')} exclude each other; keep one`)
  }
  if (values['serveIndexer'] === true && (values['routerMode'] ?? 'kv') !== 'kv' && values['loadAware'] !== true) {
    throw new UsageError(`${placeOf(draft, 'serveIndexer')} needs --router-mode kv; ${placeOf(draft, 'routerMode')} is ${String(values['routerMode'])}`)
  }
  if (values['trackOutputBlocks'] === true && values['trackActiveBlocks'] === false) {
    throw new UsageError(`${placeOf(draft, 'trackOutputBlocks')} needs --router-track-active-blocks, which ${placeOf(draft, 'trackActiveBlocks')} turned off`)
  }
  checkPolicy(draft)
  checkCaches(draft)
  checkDisagg(draft)
  checkName(draft, 'component')
  checkName(draft, 'namespace')
  checkName(draft, 'namespaceWorkerSuffix')
  checkName(draft, 'namespacePrefix')
  for (const key of Object.keys(values).filter((name) => /^(?:system(?:Health|Live)|chat|completions|models|health|live|metrics)Path$/.test(name))) {
    if (!String(values[key]).startsWith('/')) throw new UsageError(`${placeOf(draft, key)}: ${shown(values[key])} is not valid; expected a path that begins with /`)
  }
  if (values['registerModel'] === '') throw new UsageError(`${placeOf(draft, 'registerModel')}: "" is not valid; expected a model name`)
}

/** A policy of one's own chooses where the cost would. */
function checkPolicy(draft: Draft): void {
  const { values } = draft
  const mode = values['routerMode'] ?? 'kv'
  const key = ['policy', 'policyShadow'].find((name) => typeof values[name] === 'string')
  if (key !== undefined && mode !== 'kv' && values['loadAware'] !== true) throw new UsageError(`${placeOf(draft, key)} needs --router-mode kv; ${placeOf(draft, 'routerMode')} is ${String(mode)}`)
}

/** Which ways of knowing caches go together. Source: router-algorithm 19. */
function checkCaches(draft: Draft): void {
  const { values } = draft
  const needsEvents = (key: string): string => `${placeOf(draft, key)} needs --router-kv-events, which ${placeOf(draft, 'useKvEvents')} turned off`
  if (values['approximateCachePolicy'] === 'lru' && values['useKvEvents'] === true) {
    throw new UsageError(`${placeOf(draft, 'approximateCachePolicy')}: lru needs --no-router-kv-events; with events the workers tell what they hold`)
  }
  if (typeof values['predictedTtlSeconds'] === 'number' && values['useKvEvents'] === false) throw new UsageError(needsEvents('predictedTtlSeconds'))
  if (values['sessionPrefixIndex'] === true && values['useKvEvents'] === false) throw new UsageError(needsEvents('sessionPrefixIndex'))
}

/** Names become parts of keys that are separated by `/` and `.`. */
function checkName(draft: Draft, key: string): void {
  const value = draft.values[key]
  if (typeof value === 'string' && !/^[A-Za-z0-9_-]+$/.test(value)) {
    throw new UsageError(`${placeOf(draft, key)}: ${shown(value)} is not valid; expected letters, digits, - and _`)
  }
}

/** Source: router-algorithm 1.5. */
function readTrackingKey(draft: Draft, readFile: ReadFile): Uint8Array | null {
  const file = draft.values['trackingKeyFile']
  const keyId = draft.values['trackingKeyId']
  if (draft.values['trackingHash'] !== 'keyed-xxh3-v1') {
    const key = typeof file === 'string' ? 'trackingKeyFile' : 'trackingKeyId'
    if (file === null && keyId === null) return null
    throw new UsageError(`${placeOf(draft, key)} needs --router-tracking-hash keyed-xxh3-v1; set it or leave the key out`)
  }
  if (typeof file !== 'string') throw new UsageError('--router-tracking-hash keyed-xxh3-v1 needs --router-tracking-key-file, a file of 32 raw bytes')
  if (typeof keyId !== 'string' || keyId === '' || keyId !== keyId.trim()) {
    throw new UsageError(`${placeOf(draft, 'trackingKeyId')}: ${shown(keyId)} is not valid; keyed-xxh3-v1 needs a name without spaces around it`)
  }
  const bytes = readBytes(file, placeOf(draft, 'trackingKeyFile'), readFile, 1_048_576)
  if (bytes.length !== 32) throw new UsageError(`${placeOf(draft, 'trackingKeyFile')} ${file}: ${bytes.length} bytes; expected exactly 32 raw bytes`)
  return Uint8Array.from(bytes)
}
