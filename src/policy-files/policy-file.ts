/** One file that a policy comes from: read at the start, and anew when it changes. What cannot be used then leaves the old policy in force. */
import { stat } from 'node:fs/promises'
import type { Policy } from '../policies/contract.ts'
import type { PolicySlot } from '../policies/policy-slot.ts'
import type { Log } from '../ports.ts'
import { loadPolicy } from './load-policy.ts'

/** Between two looks at a file; links as config maps are mounted by are followed. A change counts once it has been still for one look. */
const lookMs = 200

/** A policy and what its file looked like before it was read. */
export interface ReadPolicy {
  readonly policy: Policy
  readonly stamp: string
}

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
  /** Of what was read last, and of a change that may not be complete. */
  #stamp = ''
  #pending = ''
  /** Changes when the file does, so that what was begun before counts no more. */
  #turn = 0
  #isLooking = false

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
  async read(file: string | null): Promise<ReadPolicy | null> {
    if (file === null) return null
    // Taken before: a change in between is seen at the next look.
    const stamp = await stampOf(file)
    try {
      return { policy: await loadPolicy(file), stamp }
    } catch (error) {
      this.counts.refused += 1
      if (file === this.#file) this.#refused = (error as Error).message
      throw error
    }
  }

  /** In force from the next decision on, and followed. Null: the built-in policy decides again. */
  take(file: string | null, read: ReadPolicy | null): void {
    this.#turn += 1
    this.#file = file
    this.#stamp = read?.stamp ?? ''
    this.#pending = this.#stamp
    this.#refused = null
    this.slot.load(read?.policy ?? null)
    if (file === null || read === null) return this.#unwatch()
    this.#timer ??= setInterval(() => { void this.#look() }, lookMs).unref()
    this.counts.loaded += 1
    const { name } = read.policy
    this.#log.info({ stage: 'policy', reason: name }, `${this.#option} ${file}: the policy ${name} is in force${this.slot.place === 'shadow' ? ' beside the one that decides' : ''}`)
  }

  close(): void {
    this.#turn += 1
    this.#unwatch()
    this.#file = null
  }

  #unwatch(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
  }

  async #look(): Promise<void> {
    const [file, turn] = [this.#file, this.#turn]
    if (file === null || this.#isLooking) return
    this.#isLooking = true
    try {
      const stamp = await stampOf(file)
      if (turn !== this.#turn || stamp === this.#stamp) return
      if (stamp !== this.#pending) {
        this.#pending = stamp
        return
      }
      this.#stamp = stamp
      await this.#reload(file, turn)
    } finally {
      this.#isLooking = false
    }
  }

  async #reload(file: string, turn: number): Promise<void> {
    try {
      const read = await this.read(file)
      if (turn === this.#turn) this.take(file, read)
    } catch (error) {
      if (turn !== this.#turn) return
      const stays = this.slot.policy === null ? 'the built-in policy decides' : `the policy ${this.slot.policy.name} stays in force`
      this.#log.error({ stage: 'policy', reason: (error as Error).message }, `${this.#option} ${file} has changed and cannot be used: ${(error as Error).message}; ${stays}`)
    }
  }
}

/** Size, time and identity of a file as a text; 'none' when there is none. Never rejects. */
async function stampOf(file: string): Promise<string> {
  try {
    const { mtimeMs, size, ino } = await stat(file)
    return `${mtimeMs} ${size} ${ino}`
  } catch {
    return 'none'
  }
}
