/** Both policy files of a process, and the places that their policies take. */
import { defaultBudgetUs, PolicySlot, type PolicyPlaces } from '../policies/policy-slot.ts'
import type { Log } from '../ports.ts'
import { PolicyFile } from './policy-file.ts'
import { PolicyReports, type OnCompared } from './policy-reports.ts'

/** What to run; null or left out: nothing. */
export interface PolicyPaths {
  readonly policy?: string | null
  readonly shadow?: string | null
  /** Longest time of one decision. Units: microseconds. */
  readonly budgetUs?: number
}

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} }

/** The live policy's file and the shadow's. Nothing is loaded before `change`. */
export class PolicyFiles {
  readonly live: PolicyFile
  readonly shadow: PolicyFile
  /** For the routers. */
  readonly places: PolicyPlaces
  readonly #reports: PolicyReports

  constructor(log: Log, onCompared?: OnCompared) {
    this.#reports = new PolicyReports(log, () => this.shadow.slot.policy?.name ?? '', onCompared)
    this.live = new PolicyFile(new PolicySlot('live', defaultBudgetUs, this.#reports), log)
    this.shadow = new PolicyFile(new PolicySlot('shadow', defaultBudgetUs, this.#reports), log)
    this.places = { live: this.live.slot, shadow: this.shadow.slot, onCompared: this.#reports.onCompared }
  }

  /**
   * Reads what is to run; gives what puts all of it in force at once. `again`: also files that are in force already.
   * Errors: `PolicyFileError`; nothing has changed then.
   */
  async prepare({ policy = null, shadow = null, budgetUs = defaultBudgetUs }: PolicyPaths, again: boolean): Promise<() => void> {
    const wanted = [[this.live, policy], [this.shadow, shadow]] as const
    const read = await Promise.all(wanted.map(async ([place, file]) => {
      const isWanted = again || file !== place.file
      return { place, file, isWanted, taken: isWanted ? await place.read(file) : null }
    }))
    return () => {
      for (const { place, file, isWanted, taken } of read) {
        place.slot.budgetUs = budgetUs
        if (isWanted && (file !== null || place.file !== null)) place.take(file, taken)
      }
    }
  }

  close(): void {
    this.live.close()
    this.shadow.close()
    this.#reports.close()
  }
}

/**
 * For programs that embed the router: policies from files, loaded anew when they change. Give `places` to `KvRouter` as `policies`.
 *
 * Errors: `PolicyFileError` when a file cannot be used at the start.
 */
export async function openPolicies(paths: PolicyPaths & { readonly log?: Log; readonly onCompared?: OnCompared }): Promise<{ readonly places: PolicyPlaces; close(): void }> {
  const files = new PolicyFiles(paths.log ?? silent, paths.onCompared)
  try {
    (await files.prepare(paths, true))()
  } catch (error) {
    files.close()
    throw error
  }
  return { places: files.places, close: () => files.close() }
}
