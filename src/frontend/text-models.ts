/** Text models by the files of their cards: loaded once for all that share the files, tried again when that failed. */
import type { Clock, Log } from '../ports.ts'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import type { TextModel } from '../text/text-model.ts'
import { cardFiles } from './card-files.ts'

export type LoadText = (card: ModelCard, signal: AbortSignal) => Promise<TextModel>

/** Between two tries. */
const retryMs = { first: 1_000, most: 60_000 } as const
/** How long requests may still use a text model that no card names any more. */
const keepMs = 60_000

interface Slot {
  text: TextModel | null
  /** Why it cannot be used; null while loading or loaded. */
  problem: string | null
  readonly users: Set<string>
  readonly stop: AbortController
  delayMs: number
}

export interface TextModelsParts {
  readonly load: LoadText
  readonly clock: Clock
  readonly log: Log
  /** A text model of this user was loaded, or could not be. */
  onSettled(user: string): void
}

export class TextModels {
  readonly #parts: TextModelsParts
  readonly #slots = new Map<string, Slot>()
  readonly #keyByUser = new Map<string, string>()
  #closed = false

  constructor(parts: TextModelsParts) {
    this.#parts = parts
  }

  /** The text model for a card: there, being loaded (both null), or with a problem. `user`: the model's name; it has one at a time. */
  use(user: string, card: ModelCard): { readonly text: TextModel | null; readonly problem: string | null } {
    const key = fileKey(card)
    const before = this.#keyByUser.get(user)
    if (before !== undefined && before !== key) this.release(user)
    this.#keyByUser.set(user, key)
    let slot = this.#slots.get(key)
    if (slot === undefined) {
      slot = { text: null, problem: null, users: new Set(), stop: new AbortController(), delayMs: retryMs.first }
      this.#slots.set(key, slot)
      void this.#load(key, slot, card)
    }
    slot.users.add(user)
    return slot
  }

  release(user: string): void {
    const key = this.#keyByUser.get(user)
    const slot = key === undefined ? undefined : this.#slots.get(key)
    this.#keyByUser.delete(user)
    slot?.users.delete(user)
    if (key === undefined || slot === undefined || slot.users.size > 0) return
    this.#slots.delete(key)
    slot.stop.abort()
    if (slot.text !== null) this.#parts.clock.setTimer(keepMs, () => void slot.text?.close())
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const slot of this.#slots.values()) slot.stop.abort()
    await Promise.all([...this.#slots.values()].map((slot) => slot.text?.close()))
    this.#slots.clear()
  }

  async #load(key: string, slot: Slot, card: ModelCard): Promise<void> {
    const { load, clock, log } = this.#parts
    const fields = { stage: 'text', model: card.displayName }
    const startedMs = clock.nowMs()
    try {
      const text = await load(card, slot.stop.signal)
      if (this.#slots.get(key) !== slot || this.#closed) return await text.close()
      slot.text = text
      slot.problem = null
      log.info({ ...fields, duration_ms: Math.round(clock.nowMs() - startedMs) }, 'tokenizer and chat template loaded')
    } catch (error) {
      if (slot.stop.signal.aborted) return
      slot.problem = (error as Error).message
      log.error({ ...fields, reason: slot.problem }, `model cannot be served: its tokenizer or chat template cannot be used (trying again in ${slot.delayMs / 1000} s)`)
      clock.setTimer(slot.delayMs, () => { if (!slot.stop.signal.aborted) void this.#load(key, slot, card) })
      slot.delayMs = Math.min(retryMs.most, slot.delayMs * 2)
    }
    for (const user of slot.users) this.#parts.onSettled(user)
  }
}

const keys = new WeakMap<ModelCard, string>()

/** Equal for cards with the same file contents, wherever they lie, that are read for the same use. Asked for with every request: made once per card. */
export function fileKey(card: ModelCard): string {
  const known = keys.get(card)
  if (known !== undefined) return known
  const made = madeKey(card)
  keys.set(card, made)
  return made
}

function madeKey({ raw, modelInput }: ModelCard): string {
  const files = cardFiles(raw)
  return (modelInput === 'Text' ? 'text input ' : '') + JSON.stringify([files.map(({ section, kind, path, checksum }) => [section, kind, checksum === '' ? path : checksum]), files.length === 0 ? (raw['source_path'] ?? null) : null])
}
