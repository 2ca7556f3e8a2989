/** One file that a policy comes from: read at the start, and anew when it changes. What cannot be used then leaves the old policy in force. */
import { statSync, unwatchFile, watchFile } from 'node:fs'
import type { Policy } from '../policies/contract.ts'
import type { PolicySlot } from '../policies/policy-slot.ts'
import type { Log } from '../ports.ts'
import { loadPolicy } from './load-policy.ts'

/** Between two looks at a file; links as config maps are mounted by are followed. */
const lookMs = 250
/** A file counts once it has been still for this long. */
const stillMs = 100

/** What a place has come to. */
export interface PolicyFileStatus {
  readonly file: string | null
  readonly name: string | null
  /** Counts the policies that came into force here. */
  readonly generation: number
  readonly isSetAside: boolean
  /** Why the last change of the file was refused; null: it was not. */
  readonly refused: string | null
}

export class PolicyFile {
  readonly slot: PolicySlot
  readonly counts = { loaded: 0, refused: 0 }
  readonly #option: string
  readonly #log: Log
  #file: string | null = null
  #refused: string | null = null
  #timer: NodeJS.Timeout | null = null
  /** Changes when the file does, so that what was begun before counts no more. */
  #turn = 0

  constructor(slot: PolicySlot, log: Log) {
    this.slot = slot
    this.#option = slot.place === 'live' ? '--policy' : '--policy-shadow'
    this.#log = log
  }

  get file(): string | null {
    return this.#file
  }

  status(): PolicyFileStatus {
    return { file: this.#file, name: this.slot.policy?.name ?? null, generation: this.counts.loaded, isSetAside: this.slot.isSetAside, refused: this.#refused }
  }

  /** A policy for `take`; nothing changes yet. Errors: `PolicyFileError`, counted. */
  async read(file: string | null): Promise<Policy | null> {
    if (file === null) return null
    try {
      return await loadPolicy(file)
    } catch (error) {
      this.counts.refused += 1
      if (file === this.#file) this.#refused = (error as Error).message
      throw error
    }
  }

  /** In force from the next decision on, and followed. Null: the built-in policy decides again. */
  take(file: string | null, policy: Policy | null): void {
    this.#turn += 1
    if (file !== this.#file) {
      this.#unwatch()
      this.#file = file
      if (file !== null) watchFile(file, { interval: lookMs, persistent: false }, this.#onChange)
    }
    this.#refused = null
    this.slot.load(policy)
    if (policy === null) return
    this.counts.loaded += 1
    this.#log.info({ stage: 'policy', reason: policy.name }, `${this.#option} ${file}: the policy ${policy.name} is in force${this.slot.place === 'shadow' ? ' beside the one that decides' : ''}`)
  }

  close(): void {
    this.#turn += 1
    this.#unwatch()
    this.#file = null
  }

  #unwatch(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (this.#file !== null) unwatchFile(this.#file, this.#onChange)
  }

  readonly #onChange = (): void => {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#whenStill(stamp(this.#file)), stillMs)
  }

  /** Whoever writes in several steps is waited for. */
  #whenStill(before: string): void {
    this.#timer = null
    if (stamp(this.#file) === before) {
      this.#timer = setTimeout(() => { this.#timer = null; if (stamp(this.#file) === before) void this.#reload(); else this.#onChange() }, stillMs)
    } else this.#onChange()
  }

  async #reload(): Promise<void> {
    const file = this.#file
    const turn = this.#turn
    try {
      const policy = await this.read(file)
      if (turn === this.#turn) this.take(file, policy)
    } catch (error) {
      if (turn !== this.#turn) return
      const stays = this.slot.policy === null ? 'the built-in policy decides' : `the policy ${this.slot.policy.name} stays in force`
      this.#log.error({ stage: 'policy', reason: (error as Error).message }, `${this.#option} ${file} has changed and cannot be used: ${(error as Error).message}; ${stays}`)
    }
  }
}

/** Size and time of a file as a text; '' when there is none. */
function stamp(file: string | null): string {
  try {
    const { mtimeMs, size, ino } = statSync(file ?? '')
    return `${mtimeMs} ${size} ${ino}`
  } catch {
    return ''
  }
}
